#include "memory/block.h"

#include "base/assert.h"

#include <errno.h>
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
	bitmap_fini(&b->received);
	free(b);
}

void ram_fini(struct ram *ram)
{
	for (size_t i = 0; i < ram->count; i++)
		block_free(ram->blocks[i]);
	free(ram->blocks);
	ram->blocks = NULL;
	ram->count = 0;
	ram->total_bytes = 0;
}

struct block *ram_find(const struct ram *ram, const char *name, size_t name_bytes)
{
	for (size_t i = 0; i < ram->count; i++) {
		struct block *b = ram->blocks[i];

		if (b->name_bytes == name_bytes && memcmp(b->name, name, name_bytes) == 0)
			return b;
	}
	return NULL;
}

/* What backs @fd: hugetlbfs says its page size as the block size of the file system. */
static int fd_hpage_bytes(int fd, size_t *ret_bytes)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return -errno;
	*ret_bytes = (unsigned long)fs.f_type == HUGETLBFS_MAGIC ? (size_t)fs.f_bsize : (size_t)sysconf(_SC_PAGESIZE);
	return 0;
}

static int map_fd(struct block *b, const struct block_source *source)
{
	struct stat st;
	uint64_t bytes;
	void *p;
	int r = fd_hpage_bytes(source->fd, &b->hpage_bytes);

	if (r < 0)
		return r;
	if (source->fd_off % b->hpage_bytes)
		return -EINVAL;
	bytes = (b->used_bytes + b->hpage_bytes - 1) / b->hpage_bytes * b->hpage_bytes;
	if (fstat(source->fd, &st) < 0)
		return -errno;
	/* Beyond the end of the file every access would be a SIGBUS. Of the last page only the used part must exist. */
	if (source->fd_off > INT64_MAX - bytes || (uint64_t)st.st_size < source->fd_off + b->used_bytes)
		return -EINVAL;
	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, source->fd, (off_t)source->fd_off);
	if (p == MAP_FAILED)
		return -errno;
	b->landing = p;
	b->mapped_bytes = bytes;
	return 0;
}

static int use_addr(struct block *b, const struct block_source *source)
{
	b->hpage_bytes = (size_t)sysconf(_SC_PAGESIZE);
	if (!source->addr || (uintptr_t)source->addr % b->hpage_bytes)
		return -EINVAL;
	b->landing = source->addr;
	return 0;
}

static int ram_append(struct ram *ram, struct block *b)
{
	struct block **blocks = realloc(ram->blocks, (ram->count + 1) * sizeof(*blocks));

	if (!blocks)
		return -ENOMEM;
	ram->blocks = blocks;
	blocks[ram->count++] = b;
	ram->total_bytes += b->used_bytes;
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
	b->used_bytes = used_bytes;
	b->dirty = source->dirty;
	b->ignored = source->ignored;
	r = source->fd >= 0 ? map_fd(b, source) : use_addr(b, source);
	if (r == 0)
		r = bitmap_init(&b->received, used_bytes >> ram->tpage_shift);
	if (r == 0)
		r = ram_append(ram, b);
	if (r < 0) {
		block_free(b);
		return r;
	}
	*ret_block = b;
	return 0;
}

void block_zero_page(struct block *b, size_t tpage, unsigned tpage_shift)
{
	if (b->dirty || block_is_received(b, tpage))
		memset(b->landing + ((uint64_t)tpage << tpage_shift), 0, (size_t)1 << tpage_shift);
	block_mark_received(b, tpage);
}
