#include "programs/guest_ram.h"

#include "programs/program.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

int guest_ram_block(struct guest_ram *ram, struct inm_ram_block *block)
{
	struct guest_block *blocks = realloc(ram->blocks, (ram->count + 1) * sizeof(*blocks)), *b;

	if (!blocks)
		return -ENOMEM;
	ram->blocks = blocks;
	b = &blocks[ram->count];
	*b = (struct guest_block){ .name = strdup(block->name), .bytes = block->bytes };
	b->fd = memfd_create("guest-ram", MFD_CLOEXEC);
	if (!b->name || b->fd < 0 || ftruncate(b->fd, (off_t)block->bytes) < 0) {
		int r = b->name ? -errno : -ENOMEM;

		free(b->name);
		if (b->fd >= 0)
			close(b->fd);
		return r;
	}
	ram->count++;
	block->fd = b->fd;
	return 0;
}

void guest_ram_fini(struct guest_ram *ram)
{
	for (size_t i = 0; i < ram->count; i++) {
		free(ram->blocks[i].name);
		close(ram->blocks[i].fd);
	}
	free(ram->blocks);
	*ram = (struct guest_ram){ 0 };
}

static int copy_range(int from, int to, off_t begin, off_t end)
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
static int copy_sparse(const struct guest_block *b, int to)
{
	off_t begin = 0, end;
	int r = 0;

	if (ftruncate(to, (off_t)b->bytes) < 0)
		return -errno;
	while (r == 0) {
		begin = lseek(b->fd, begin, SEEK_DATA);
		if (begin < 0)
			return errno == ENXIO ? 0 : -errno;
		end = lseek(b->fd, begin, SEEK_HOLE);
		if (end < 0)
			return -errno;
		r = copy_range(b->fd, to, begin, end);
		begin = end;
	}
	return r;
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

int guest_ram_write(const struct guest_ram *ram, const char *dir)
{
	char path[PATH_MAX];
	int fd, r;

	if (strlen(dir) > PATH_MAX - 300)
		return fail("--ram-dir: the name is too long");
	if (mkdir(dir, 0777) < 0 && errno != EEXIST)
		return fail("%s: %s", dir, strerror(errno));
	for (size_t i = 0; i < ram->count; i++) {
		file_name(path, dir, ram->blocks[i].name);
		fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
		r = fd < 0 ? -errno : copy_sparse(&ram->blocks[i], fd);
		if (fd >= 0 && close(fd) < 0 && r == 0)
			r = -errno;
		if (r < 0)
			return fail("%s: %s", path, strerror(-r));
	}
	return 0;
}
