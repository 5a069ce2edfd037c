#include "programs/guest/ram.h"

#include "base/text.h"
#include "programs/cli/complain.h"
#include "programs/cli/process.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/memfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#define HUGE_BYTES (2u << 20)

int guest_ram_set_backing(struct guest_ram *ram, const char *name)
{
	static const char *const names[] = {
		[GUEST_THP] = "thp", [GUEST_MEMFD] = "memfd", [GUEST_HUGETLB] = "hugetlb-2m"
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (names[i] && strcmp(name, names[i]) == 0) {
			ram->backing = (enum guest_backing)i;
			return 0;
		}
	}
	return -EINVAL;
}

static uint64_t huge_ceil(uint64_t bytes)
{
	return (bytes + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES;
}

/* Aligned, so that huge pages fit; a small block must not cost 2 MiB. */
static int make_anonymous(struct guest_block *b)
{
	char *p, *aligned;

	if (b->bytes > SIZE_MAX / 2)
		return -ENOMEM;
	b->map_bytes = b->bytes < HUGE_BYTES ? b->bytes : b->bytes + HUGE_BYTES;
	p = mmap(NULL, b->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return -errno;
	aligned = p;
	if (b->bytes >= HUGE_BYTES) {
		aligned = (char *)(uintptr_t)huge_ceil((uintptr_t)p);
		munmap(p, (size_t)(aligned - p));
		b->map_bytes -= (size_t)(aligned - p);
		madvise(aligned, b->map_bytes, MADV_HUGEPAGE); /* advice: may fail */
	}
	b->addr = aligned;
	return 0;
}

/* Not populated: in postcopy a page that is there would not be asked for. */
static int map_file(struct guest_block *b, uint64_t bytes)
{
	b->addr = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, b->fd, 0);
	if (b->addr == MAP_FAILED) {
		b->addr = NULL;
		return -errno;
	}
	b->map_bytes = bytes;
	return 0;
}

static int make_memfd(struct guest_block *b, bool huge, bool mapped)
{
	uint64_t bytes = huge ? huge_ceil(b->bytes) : b->bytes;

	b->huge = huge;
	b->fd = memfd_create("guest-ram", MFD_CLOEXEC | (huge ? MFD_HUGETLB | MFD_HUGE_2MB : 0u));
	if (b->fd < 0 || ftruncate(b->fd, (off_t)bytes) < 0)
		return -errno;
	if (!huge && !mapped)
		return 0;
	return map_file(b, bytes);
}

static void block_fini(struct guest_block *b)
{
	free(b->name);
	if (b->addr)
		munmap(b->addr, b->map_bytes);
	if (b->fd >= 0)
		close(b->fd);
}

static enum guest_backing backing_of(const struct guest_ram *ram, const struct inm_ram_block *block)
{
	/* In postcopy a page must be as large as the source's, which says it only of those that are not ordinary. */
	if (ram->postcopy && ram->backing == GUEST_HUGETLB && block->page_bytes != HUGE_BYTES)
		return GUEST_MEMFD;
	if (ram->backing != GUEST_DEFAULT)
		return ram->backing;
	return ram->postcopy ? GUEST_MEMFD : GUEST_THP;
}

/* The memory that --ram gives, mapped where it is needed. Its descriptor moves to the block. */
static int take_file(struct guest_ram *ram, struct guest_file *f, struct guest_block *b)
{
	uint64_t bytes = (b->bytes + f->page_bytes - 1) / f->page_bytes * f->page_bytes;

	if ((uint64_t)f->st.st_size < b->bytes) {
		fail("--ram %s: %s has %" PRIu64 " bytes, and the block %" PRIu64, TEXT_QUOTE(f->name, strlen(f->name)),
		     f->path, (uint64_t)f->st.st_size, b->bytes);
		return -EINVAL;
	}
	b->fd = f->fd;
	f->fd = -1;
	f->used = true;
	b->huge = f->huge;
	if (!f->huge && !ram->postcopy && !ram->touched)
		return 0;
	return map_file(b, bytes);
}

static int make_block(struct guest_ram *ram, const struct inm_ram_block *block, struct guest_file *file,
                      struct guest_block *b)
{
	enum guest_backing backing = backing_of(ram, block);

	if (!b->name)
		return -ENOMEM;
	if (file)
		return take_file(ram, file, b);
	return backing == GUEST_THP ? make_anonymous(b) :
	                              make_memfd(b, backing == GUEST_HUGETLB, ram->postcopy || ram->touched);
}

/* A limit that is met is the only thing about our own memory that somebody can do something about. */
static int say_limit(const struct inm_ram_block *block, int r)
{
	char hint[160];

	if (process_limit_hint(hint, r)[0])
		fail("memory of %" PRIu64 " bytes for block %s: %s%s", block->bytes,
		     TEXT_QUOTE(block->name, strlen(block->name)), strerror(-r), hint);
	return r;
}

int guest_ram_block(struct guest_ram *ram, struct inm_ram_block *block)
{
	struct guest_file *file = guest_files_find(&ram->files, block->name);
	struct guest_block *blocks = realloc(ram->blocks, (ram->count + 1) * sizeof(*blocks)), *b;
	int r;

	if (!blocks)
		return -ENOMEM;
	ram->blocks = blocks;
	r = ram_dir_add(&ram->dir, block->name, block->bytes, &ram->files);
	if (r < 0)
		return r;
	b = &blocks[ram->count];
	*b = (struct guest_block){ .name = strdup(block->name), .bytes = block->bytes, .fd = -1 };
	r = make_block(ram, block, file, b);
	if (r < 0) {
		block_fini(b);
		return say_limit(block, r);
	}
	ram->count++;
	block->fd = b->fd;
	block->addr = b->fd < 0 || ram->postcopy ? b->addr : NULL;
	block->dirty = file;
	block->unplugged = guest_unplugged_take(&ram->unplugged, block->name);
	return 0;
}

void guest_ram_fini(struct guest_ram *ram)
{
	for (size_t i = 0; i < ram->count; i++)
		block_fini(&ram->blocks[i]);
	free(ram->blocks);
	guest_files_fini(&ram->files);
	guest_unplugged_fini(&ram->unplugged);
	ram_dir_close(&ram->dir);
	*ram = (struct guest_ram){ 0 };
}

static int copy_file(int from, int to, off_t begin, off_t end)
{
	while (begin < end) {
		ssize_t n;

		if (lseek(to, begin, SEEK_SET) < 0)
			return -errno;
		n = sendfile(to, from, &begin, (size_t)(end - begin));
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			return -EIO;
	}
	return 0;
}

/* Only what the memory file holds: its holes become holes. */
static int write_memfd(const struct guest_block *b, int to)
{
	off_t begin = 0, end;
	int r = 0;

	while (r == 0 && begin < (off_t)b->bytes) {
		begin = lseek(b->fd, begin, SEEK_DATA);
		if (begin < 0)
			return errno == ENXIO ? 0 : -errno;
		if (begin >= (off_t)b->bytes)
			return 0; /* a file of --ram may be longer than the block */
		end = lseek(b->fd, begin, SEEK_HOLE);
		if (end < 0)
			return -errno;
		if (end > (off_t)b->bytes)
			end = (off_t)b->bytes;
		r = copy_file(b->fd, to, begin, end);
		begin = end;
	}
	return r;
}

static bool is_zero(const char *p, size_t bytes)
{
	return p[0] == 0 && memcmp(p, p + 1, bytes - 1) == 0;
}

static int write_memory(const struct guest_block *b, int to)
{
	const size_t chunk_bytes = 64u << 10;
	uint64_t bytes;

	for (uint64_t off = 0; off < b->bytes; off += bytes) {
		bytes = b->bytes - off < chunk_bytes ? b->bytes - off : chunk_bytes;
		if (is_zero(b->addr + off, bytes))
			continue;
		for (uint64_t done = 0; done < bytes;) {
			ssize_t n = pwrite(to, b->addr + off + done, bytes - done, (off_t)(off + done));

			if (n < 0 && errno != EINTR)
				return -errno;
			done += n > 0 ? (uint64_t)n : 0;
		}
	}
	return 0;
}

static int write_block(const struct guest_ram *ram, const struct guest_block *b)
{
	int r = 0, fd = ram_dir_create(&ram->dir, b->name);

	if (fd < 0)
		return fd;
	if (ftruncate(fd, (off_t)b->bytes) < 0)
		r = -errno;
	if (r == 0)
		r = b->fd < 0 || b->huge ? write_memory(b, fd) : write_memfd(b, fd);
	if (close(fd) < 0 && r == 0)
		r = -errno;
	return r;
}

int guest_ram_write(const struct guest_ram *ram)
{
	int r = 0;

	for (size_t i = 0; ram->dir.path && r == 0 && i < ram->count; i++) {
		r = write_block(ram, &ram->blocks[i]);
		if (r < 0)
			ram_dir_say(&ram->dir, ram->blocks[i].name, r);
	}
	return r;
}
