#include "memory/land.h"

#include "base/assert.h"

#include <errno.h>
#include <string.h>

static uint8_t *place_of(const struct block *b, size_t tpage)
{
	return b->landing + ((uint64_t)tpage << b->tpage_shift);
}

/* All of it: a short write on tmpfs is rare, and goes on. */
static int write_all(int fd, struct iovec *iov, int count, off_t off)
{
	while (count > 0) {
		ssize_t n = pwritev(fd, iov, count, off);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			return -EIO;
		for (off += n > 0 ? n : 0; n > 0; iov++, count--) {
			if ((size_t)n < iov->iov_len) {
				iov->iov_base = (char *)iov->iov_base + n;
				iov->iov_len -= (size_t)n;
				break;
			}
			n -= (ssize_t)iov->iov_len;
		}
	}
	return 0;
}

static int write_pages(struct block *b, size_t tpage, struct iovec *pages, int count)
{
	uint64_t off = (uint64_t)tpage << b->tpage_shift;

	ASSERT(count > 0 && off + ((uint64_t)count << b->tpage_shift) <= b->used_bytes);
	if (land_wants_buffer(b))
		return write_all(b->fd, pages, count, (off_t)(b->fd_off + off));
	for (int i = 0; i < count; i++)
		memcpy(place_of(b, tpage + (size_t)i), pages[i].iov_base, pages[i].iov_len);
	return 0;
}

int land_pages(struct block *b, size_t tpage, struct iovec *pages, int count)
{
	int r;

	gate_expect_direct(&b->ram->gate);
	r = write_pages(b, tpage, pages, count);
	if (r == 0)
		block_mark_received(b, tpage, (size_t)count);
	return r;
}

void land_zero(struct block *b, size_t tpage)
{
	gate_expect_direct(&b->ram->gate);
	if (b->dirty || block_is_received(b, tpage))
		memset(place_of(b, tpage), 0, block_tpage_bytes(b));
	block_mark_received(b, tpage, 1);
}

uint8_t *land_at(const struct block *b, size_t tpage)
{
	gate_expect_direct(&b->ram->gate);
	return place_of(b, tpage);
}

uint8_t *land_at_inside(const struct block *b, size_t tpage)
{
	gate_expect_inside(&b->ram->gate);
	return place_of(b, tpage);
}

void land_done(struct block *b, size_t tpage, size_t count)
{
	gate_expect_direct(&b->ram->gate);
	block_mark_received(b, tpage, count);
}

int land_unseen(struct block *b, size_t tpage, struct iovec *pages, int count)
{
	size_t claimed;
	int r;

	gate_expect_placed(&b->ram->gate);
	ASSERT(block_is_file(b));
	claimed = block_mark_received(b, tpage, (size_t)count);
	ASSERT(claimed == (size_t)count);
	r = write_pages(b, tpage, pages, count);
	if (r < 0)
		block_unmark_received(b, tpage, (size_t)count);
	return r;
}

void land_make(struct block *b, uint64_t off)
{
	gate_expect_placed(&b->ram->gate);
	ASSERT(block_is_file(b) && off < b->mapped_bytes);
	/* To touch it is enough: the kernel makes it. */
	b->landing[off] = 0;
}
