#include "memory/block.h"

#include "base/assert.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

void ram_init(struct ram *ram, unsigned tpage_shift)
{
	*ram = (struct ram){ .tpage_shift = tpage_shift };
}

static void block_free(struct block *b)
{
	if (!b)
		return;
	if (b->mapped_bytes)
		munmap(b->landing, b->mapped_bytes);
	if (b->engine)
		munmap(b->engine, b->mapped_bytes);
	if (b->fd >= 0)
		close(b->fd);
	bitmap_fini(&b->received);
	free(b);
}

void ram_fini(struct ram *ram)
{
	for (size_t i = 0; i < ram->count; i++)
		block_free(ram->blocks[i]);
	free(ram->blocks);
	names_fini(&ram->names);
	ram->blocks = NULL;
	ram->count = ram->room = 0;
	ram->total_bytes = ram->tpages = ram->received_tpages = 0;
}

struct block *ram_find(const struct ram *ram, const char *name, size_t name_bytes)
{
	return names_find(&ram->names, name, name_bytes);
}

static enum block_kind kind_of(unsigned long file_system)
{
	switch (file_system) {
	case TMPFS_MAGIC:
		return BLOCK_SHMEM;
	case HUGETLBFS_MAGIC:
		return BLOCK_HUGETLB;
	default:
		return BLOCK_FILE;
	}
}

/* What backs @fd: hugetlbfs says its page size as the block size of the file system, and cannot be written to. */
static int ask_file(struct block *b, int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return -errno;
	b->kind = kind_of((unsigned long)fs.f_type);
	b->hpage_bytes = b->kind == BLOCK_HUGETLB ? (size_t)fs.f_bsize : (size_t)sysconf(_SC_PAGESIZE);
	/* The embedder may close its own. */
	b->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return b->fd < 0 ? -errno : 0;
}

static int map_fd(struct block *b, const struct block_source *source)
{
	struct stat st;
	uint64_t bytes, end;
	void *p;
	int r = ask_file(b, source->fd);

	if (r < 0)
		return r;
	if (source->fd_off % b->hpage_bytes || __builtin_add_overflow(b->used_bytes, b->hpage_bytes - 1, &bytes) ||
	    __builtin_add_overflow(source->fd_off, b->used_bytes, &end))
		return -EINVAL;
	bytes = bytes / b->hpage_bytes * b->hpage_bytes;
	if (fstat(source->fd, &st) < 0)
		return -errno;
	/* Beyond the end of the file every access would be a SIGBUS. Of the last page only the used part must exist. */
	if (end > INT64_MAX || (uint64_t)st.st_size < end)
		return -EINVAL;
	/* Huge pages are reserved here: without, a pool that runs dry would be a SIGBUS in the middle of the guest. */
	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, source->fd, (off_t)source->fd_off);
	if (p == MAP_FAILED)
		return -errno;
	b->landing = p;
	b->mapped_bytes = bytes;
	b->fd_off = source->fd_off;
	b->guest = source->addr;
	return (uintptr_t)b->guest % b->hpage_bytes ? -EINVAL : 0;
}

static int use_addr(struct block *b, const struct block_source *source)
{
	b->kind = BLOCK_ANONYMOUS;
	b->hpage_bytes = (size_t)sysconf(_SC_PAGESIZE);
	if (!source->addr || (uintptr_t)source->addr % b->hpage_bytes)
		return -EINVAL;
	b->landing = source->addr;
	b->guest = source->addr;
	return 0;
}

/* Where its bytes go. */
static int use_source(struct block *b, const struct block_source *source)
{
	int r;

	if (source->ignored)
		return 0;
	r = source->fd >= 0 ? map_fd(b, source) : use_addr(b, source);
	if (r < 0)
		return r;
	if (b->hpage_bytes > block_unit_bytes(b))
		b->unit_shift = (unsigned)__builtin_ctzll(b->hpage_bytes);
	return bitmap_init(&b->received, b->used_bytes >> b->tpage_shift);
}

static int ram_append(struct ram *ram, struct block *b)
{
	size_t room = ram->room ? 2 * ram->room : 16;
	struct block **blocks;
	int r;

	if (ram->count == ram->room) {
		blocks = reallocarray(ram->blocks, room, sizeof(struct block *));
		if (!blocks)
			return -ENOMEM;
		ram->blocks = blocks;
		ram->room = room;
	}
	r = names_add(&ram->names, b);
	if (r < 0)
		return r;
	b->index = ram->count;
	ram->blocks[ram->count++] = b;
	ram->total_bytes += b->used_bytes;
	ram->tpages += b->received.nbits;
	return 0;
}

int ram_add(struct ram *ram, const char *name, size_t name_bytes, uint64_t used_bytes,
            const struct block_source *source, struct block **ret_block)
{
	struct block *b;
	int r;

	ASSERT(name_bytes <= BLOCK_NAME_BYTES_MAX && used_bytes > 0 && used_bytes % ram_tpage_bytes(ram) == 0);
	if (ram_find(ram, name, name_bytes))
		return -EEXIST;
	b = calloc(1, sizeof(*b));
	if (!b)
		return -ENOMEM;
	memcpy(b->name, name, name_bytes);
	b->name_bytes = name_bytes;
	text_quote(b->label, name, name_bytes);
	b->used_bytes = used_bytes;
	b->tpage_shift = b->unit_shift = ram->tpage_shift;
	b->fd = -1;
	b->dirty = source->dirty;
	b->unplugged = source->unplugged;
	b->ram = ram;
	r = use_source(b, source);
	if (r == 0)
		r = ram_append(ram, b);
	if (r < 0) {
		block_free(b);
		return r;
	}
	*ret_block = b;
	return 0;
}

void block_moved(struct block *b, uint8_t *to)
{
	b->guest = to;
	if (b->kind == BLOCK_ANONYMOUS)
		b->landing = to;
}

int block_map_engine(struct block *b)
{
	void *p;

	ASSERT(block_is_file(b) && !b->engine);
	/* Without NORESERVE as in map_fd: the huge pages are reserved for the file already. */
	p = mmap(NULL, b->mapped_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, b->fd, (off_t)b->fd_off);
	if (p == MAP_FAILED)
		return -errno;
	b->engine = p;
	return 0;
}
