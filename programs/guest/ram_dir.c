#include "programs/guest/ram_dir.h"

#include "base/assert.h"
#include "base/text.h"
#include "programs/cli/complain.h"
#include "programs/cli/process.h"
#include "programs/guest/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* A block's name has at most 255 bytes. */
#define FILE_NAME_BYTES 264

int ram_dir_open(struct ram_dir *d, const char *path)
{
	bool made = mkdir(path, 0777) == 0;
	int r = made || errno == EEXIST ? 0 : -errno;

	*d = (struct ram_dir){ .path = path, .fd = -1, .made = made };
	if (r == 0) {
		d->fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
		r = d->fd < 0 || faccessat(d->fd, ".", W_OK | X_OK, AT_EACCESS) < 0 ? -errno : 0;
	}
	if (r < 0) {
		fail("%s: %s", path, strerror(-r));
		ram_dir_close(d);
	}
	return r;
}

static void file_name(char name[static FILE_NAME_BYTES], const char *block)
{
	snprintf(name, FILE_NAME_BYTES, "%s.raw", block);
	for (char *p = name; *p; p++) {
		if (*p == '/')
			*p = '_';
	}
}

void ram_dir_say(const struct ram_dir *d, const char *block, int error)
{
	char name[FILE_NAME_BYTES], hint[160];

	file_name(name, block);
	fail("%s/%s: %s%s", d->path, TEXT_QUOTE(name, strlen(name)),
	     error == -ELOOP  ? "a symbolic link, which is not followed" :
	     error == -EMLINK ? "not a plain file" :
	     error == -EBUSY  ? "it holds memory of the guest (--ram)" :
	     error == -ESTALE ? "it is the stream, or the file of another option" :
	                        strerror(-error),
	     process_limit_hint(hint, error));
}

/* Where @name is, or belongs. */
static size_t place_of(const struct ram_dir *d, const char *name, bool *ret_there)
{
	size_t low = 0, high = d->count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (strcmp(d->names[middle], name) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	*ret_there = low < d->count && strcmp(d->names[low], name) == 0;
	return low;
}

/* "a/b" and "a_b" would be one file, and one block lost. */
static int remember(struct ram_dir *d, const char *name)
{
	bool there;
	size_t at = place_of(d, name, &there);
	char *copy;

	if (there)
		return -EEXIST;
	if (d->count == d->room) {
		size_t room = d->room ? 2 * d->room : 16;
		char **names = realloc(d->names, room * sizeof(*names));

		if (!names)
			return -ENOMEM;
		d->names = names;
		d->room = room;
	}
	copy = strdup(name);
	if (!copy)
		return -ENOMEM;
	memmove(d->names + at + 1, d->names + at, (d->count - at) * sizeof(*d->names));
	d->names[at] = copy;
	d->count++;
	return 0;
}

void ram_dir_keep(struct ram_dir *d, const struct stat *st)
{
	ASSERT(d->kept_count < RAM_DIR_KEPT_MAX);
	d->kept[d->kept_count].dev = st->st_dev;
	d->kept[d->kept_count++].ino = st->st_ino;
}

static bool is_kept(const struct ram_dir *d, const struct stat *st)
{
	for (size_t i = 0; i < d->kept_count; i++) {
		if (d->kept[i].dev == st->st_dev && d->kept[i].ino == st->st_ino)
			return true;
	}
	return false;
}

static int check_there(const struct ram_dir *d, const char *name, const struct guest_files *files)
{
	struct stat st;

	if (fstatat(d->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno; /* among others ENAMETOOLONG */
	if (S_ISLNK(st.st_mode))
		return -ELOOP;
	if (!S_ISREG(st.st_mode))
		return -EMLINK;
	if (guest_files_have(files, &st))
		return -EBUSY;
	if (is_kept(d, &st))
		return -ESTALE;
	return faccessat(d->fd, name, W_OK, AT_EACCESS) < 0 ? -errno : 0;
}

static int check_length(uint64_t bytes)
{
	struct rlimit r;

	return getrlimit(RLIMIT_FSIZE, &r) == 0 && r.rlim_cur != RLIM_INFINITY && bytes > r.rlim_cur ? -EFBIG : 0;
}

int ram_dir_add(struct ram_dir *d, const char *block, uint64_t bytes, const struct guest_files *files)
{
	char name[FILE_NAME_BYTES];
	int r;

	if (!d->path)
		return 0;
	file_name(name, block);
	r = strlen(name) > NAME_MAX ? -ENAMETOOLONG : check_there(d, name, files);
	if (r == 0)
		r = check_length(bytes);
	if (r == 0)
		r = remember(d, name);
	if (r < 0)
		ram_dir_say(d, block, r);
	return r;
}

int ram_dir_create(const struct ram_dir *d, const char *block)
{
	char name[FILE_NAME_BYTES];
	struct stat st;
	int fd;

	file_name(name, block);
	/* O_NONBLOCK: by now it may have become a FIFO. Nothing of it is lost before it is known to be a file. */
	fd = openat(d->fd, name, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
	if (fd < 0)
		return errno == ENXIO ? -EMLINK : -errno;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || ftruncate(fd, 0) < 0) {
		int r = S_ISREG(st.st_mode) ? -errno : -EMLINK;

		close(fd);
		return r;
	}
	return fd;
}

void ram_dir_close(struct ram_dir *d)
{
	if (!d->path)
		return;
	if (d->fd >= 0)
		close(d->fd);
	if (d->made)
		rmdir(d->path); /* fails where there is something in it */
	for (size_t i = 0; i < d->count; i++)
		free(d->names[i]);
	free(d->names);
	*d = (struct ram_dir){ 0 };
}
