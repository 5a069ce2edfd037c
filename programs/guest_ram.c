#include "programs/guest_ram.h"

#include "base/text.h"
#include "programs/program.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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

static int make_memfd(struct guest_block *b, bool huge, bool mapped)
{
	uint64_t bytes = huge ? huge_ceil(b->bytes) : b->bytes;

	b->huge = huge;
	b->fd = memfd_create("guest-ram", MFD_CLOEXEC | (huge ? MFD_HUGETLB | MFD_HUGE_2MB : 0u));
	if (b->fd < 0 || ftruncate(b->fd, (off_t)bytes) < 0)
		return -errno;
	if (!huge && !mapped)
		return 0;
	/* Not populated: in postcopy a page that is there would not be asked for. */
	b->addr = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, b->fd, 0);
	if (b->addr == MAP_FAILED) {
		b->addr = NULL;
		return -errno;
	}
	b->map_bytes = bytes;
	return 0;
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

int guest_ram_block(struct guest_ram *ram, struct inm_ram_block *block)
{
	enum guest_backing backing = backing_of(ram, block);
	struct guest_block *blocks = realloc(ram->blocks, (ram->count + 1) * sizeof(*blocks)), *b;
	int r;

	if (!blocks)
		return -ENOMEM;
	ram->blocks = blocks;
	b = &blocks[ram->count];
	*b = (struct guest_block){ .name = strdup(block->name), .bytes = block->bytes, .fd = -1 };
	r = !b->name               ? -ENOMEM
	    : backing == GUEST_THP ? make_anonymous(b)
				   : make_memfd(b, backing == GUEST_HUGETLB, ram->postcopy || ram->touched);
	if (r < 0) {
		block_fini(b);
		return r;
	}
	ram->count++;
	block->fd = b->fd;
	block->addr = b->fd < 0 || ram->postcopy ? b->addr : NULL;
	return 0;
}

void guest_ram_fini(struct guest_ram *ram)
{
	for (size_t i = 0; i < ram->count; i++)
		block_fini(&ram->blocks[i]);
	free(ram->blocks);
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

	while (r == 0) {
		begin = lseek(b->fd, begin, SEEK_DATA);
		if (begin < 0)
			return errno == ENXIO ? 0 : -errno;
		end = lseek(b->fd, begin, SEEK_HOLE);
		if (end < 0)
			return -errno;
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

static void file_name(char path[static PATH_MAX], const char *dir, const char *block)
{
	int n = snprintf(path, PATH_MAX, "%s/", dir);

	snprintf(path + n, PATH_MAX - (size_t)n, "%s.raw", block);
	for (char *p = path + n; *p; p++) {
		if (*p == '/')
			*p = '_';
	}
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* "a/b" and "a_b" would be one file, and one block lost. Sorted, because the source may have sent 4096 names. */
static int check_names(char **names, size_t count, const char *dir)
{
	char path[PATH_MAX];

	qsort(names, count, sizeof(*names), compare_names);
	for (size_t i = 1; i < count; i++) {
		if (strcmp(names[i - 1], names[i]) != 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		fail("%s: %s", TEXT_QUOTE(path, strlen(path)), strerror(EEXIST));
		return -EEXIST;
	}
	return 0;
}

static int check_files_differ(const struct guest_ram *ram, const char *dir)
{
	char **names = calloc(ram->count + 1, sizeof(*names)), path[PATH_MAX];
	int r = names ? 0 : -ENOMEM;

	for (size_t i = 0; r == 0 && i < ram->count; i++) {
		file_name(path, dir, ram->blocks[i].name);
		names[i] = strdup(path + strlen(dir) + 1);
		r = names[i] ? 0 : -ENOMEM;
	}
	if (r < 0)
		fail("%s: %s", dir, strerror(-r));
	else
		r = check_names(names, ram->count, dir);
	for (size_t i = 0; names && i < ram->count; i++)
		free(names[i]);
	free(names);
	return r;
}

static int write_block(const struct guest_block *b, const char *path)
{
	int r = 0, fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)b->bytes) < 0)
		r = -errno;
	if (r == 0)
		r = b->fd < 0 || b->huge ? write_memory(b, fd) : write_memfd(b, fd);
	if (close(fd) < 0 && r == 0)
		r = -errno;
	return r;
}

int guest_ram_make_dir(const struct guest_ram *ram, const char *dir)
{
	int r = 0;

	if (strlen(dir) > PATH_MAX - 300)
		r = -ENAMETOOLONG;
	else if (mkdir(dir, 0777) < 0 && errno != EEXIST)
		r = -errno;
	if (r < 0)
		fail("%s: %s", dir, strerror(-r));
	return r < 0 ? r : check_files_differ(ram, dir);
}

int guest_ram_write(const struct guest_ram *ram, const char *dir)
{
	char path[PATH_MAX];
	int r = guest_ram_make_dir(ram, dir);

	for (size_t i = 0; r == 0 && i < ram->count; i++) {
		file_name(path, dir, ram->blocks[i].name);
		r = write_block(&ram->blocks[i], path);
		if (r < 0)
			fail("%s: %s", TEXT_QUOTE(path, strlen(path)), strerror(-r));
	}
	return r;
}
