#include "memory/forget.h"

#include "base/assert.h"
#include "coroutine/turn.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

static int give_back(const struct block *b, uint64_t off, uint64_t bytes)
{
	int r;

	if (b->kind == BLOCK_ANONYMOUS) {
		r = madvise(b->landing + off, bytes, MADV_DONTNEED);
	} else {
		/* A block may end inside its last hpage; what is after it is nobody's. */
		if (off + bytes == b->used_bytes)
			bytes = (bytes + b->hpage_bytes - 1) / b->hpage_bytes * b->hpage_bytes;
		r = fallocate(b->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(b->fd_off + off),
		              (off_t)bytes);
	}
	return r < 0 ? -errno : 0;
}

int forget_pages(struct block *b, size_t tpage, size_t count)
{
	uint64_t off = (uint64_t)tpage << b->tpage_shift, bytes = (uint64_t)count << b->tpage_shift;
	int r;

	ASSERT(off % block_unit_bytes(b) == 0 && off + bytes <= b->used_bytes);
	r = give_back(b, off, bytes);
	if (r == 0)
		block_unmark_received(b, tpage, count);
	return r;
}

/* Looked at a time for pages that are there: what is received, a bit for each. */
#define LOOK_TPAGES ((size_t)64 * 1024 * 8)

/* So many tpages from @tpage on, whole units, hold FORGET_TPAGES at most; one unit at least. */
static size_t piece(const struct block *b, size_t tpage, size_t count, size_t unit)
{
	size_t n = FORGET_TPAGES > unit ? FORGET_TPAGES : unit, end = tpage + count, at = tpage;

	/* What the embedder has put there is not known. */
	if (b->dirty)
		return n < count ? n : count;
	/* The first page that is there; what is before it costs nothing. */
	at = bitmap_next_set(&b->received, tpage, count < LOOK_TPAGES ? end : tpage + LOOK_TPAGES);
	n += (at - tpage) / unit * unit;
	return n < count ? n : count;
}

int forget_range(struct sched *s, struct block *b, size_t tpage, size_t count)
{
	size_t unit = (size_t)1 << block_unit_order(b), n;
	int r = 0;

	while (r == 0 && count > 0) {
		n = piece(b, tpage, count, unit);
		r = forget_pages(b, tpage, n);
		tpage += n;
		count -= n;
		/* A look at the clock for each piece of some size; a page alone costs its system call. */
		if (r == 0)
			r = turn_spend(s, n < TURN_LOOK / TURN_SYSCALL ? TURN_SYSCALL : TURN_LOOK);
	}
	return r;
}

int forget_all(struct sched *s, struct block *b)
{
	int r = forget_range(s, b, 0, b->received.nbits);

	if (r == 0)
		b->dirty = false;
	return r;
}

void forget_unseen(struct block *b, size_t tpage, size_t count)
{
	uint64_t off = (uint64_t)tpage << b->tpage_shift, bytes = (uint64_t)count << b->tpage_shift;

	gate_expect_placed(&b->ram->gate);
	ASSERT(block_is_file(b) && off + bytes <= b->mapped_bytes);
	block_unmark_received(b, tpage, count);
	memset(b->landing + off, 0, bytes);
}
