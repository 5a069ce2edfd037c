#include "programs/guest/file.h"

#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

/* O_NONBLOCK: a FIFO would wait for somebody. */
#define OPEN_FLAGS (O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)

static const char *kind_of(mode_t mode)
{
	return S_ISFIFO(mode) ? "a FIFO" :
	       S_ISDIR(mode)  ? "a directory" :
	       S_ISSOCK(mode) ? "a socket" :
	       S_ISBLK(mode)  ? "a block device" :
	       S_ISCHR(mode)  ? "a character device" :
	                        "no file";
}

/* Where PATH begins in NAME=PATH; NULL: nowhere. */
static const char *find_path(const char *value)
{
	const char *first = NULL, *at = value;
	struct stat st;

	while ((at = strchr(at, '='))) {
		at++;
		if (at - 1 == value || !*at)
			continue;
		if (stat(at, &st) == 0)
			return at;
		first = first ? first : at;
	}
	return first; /* there is none: the error is about this one */
}

static int look_at(struct guest_file *f, char ret_why[static 320])
{
	struct statfs fs;

	if (fstat(f->fd, &f->st) < 0 || fstatfs(f->fd, &fs) < 0) {
		snprintf(ret_why, 320, "%.200s: %s", f->path, strerror(errno));
		return -EINVAL;
	}
	if (!S_ISREG(f->st.st_mode)) {
		snprintf(ret_why, 320, "%.200s: %s, and not a file that memory can be mapped from", f->path,
		         kind_of(f->st.st_mode));
		return -EINVAL;
	}
	f->huge = (unsigned long)fs.f_type == HUGETLBFS_MAGIC;
	f->shm = f->huge || (unsigned long)fs.f_type == TMPFS_MAGIC;
	f->page_bytes = f->huge ? (size_t)fs.f_bsize : (size_t)sysconf(_SC_PAGESIZE);
	return 0;
}

static int open_file(struct guest_file *f, const struct guest_files *others, char ret_why[static 320])
{
	struct stat st;
	int r;

	/* Said by what it is, where opening it would only say that it cannot be. */
	if (stat(f->path, &st) == 0 && !S_ISREG(st.st_mode)) {
		snprintf(ret_why, 320, "%.200s: %s, and not a file that memory can be mapped from", f->path,
		         kind_of(st.st_mode));
		return -EINVAL;
	}
	f->fd = open(f->path, OPEN_FLAGS);
	if (f->fd < 0) {
		r = -errno;
		snprintf(ret_why, 320, "%.200s: %s; it must be there, readable and writable", f->path, strerror(-r));
		return r;
	}
	r = look_at(f, ret_why);
	if (r == 0 && guest_files_have(others, &f->st)) {
		snprintf(ret_why, 320, "%.200s: the memory of another block, too", f->path);
		r = -EINVAL;
	}
	return r;
}

int guest_files_add(struct guest_files *fs, const char *value, char ret_why[static 320])
{
	struct guest_file *files = realloc(fs->files, (fs->count + 1) * sizeof(*files)), *f;
	const char *path = find_path(value);
	int r;

	if (!files)
		return -ENOMEM;
	fs->files = files;
	if (!path) {
		snprintf(ret_why, 320, "NAME=PATH is expected");
		return -EINVAL;
	}
	f = &files[fs->count];
	*f = (struct guest_file){ .path = path, .fd = -1 };
	f->name = strndup(value, (size_t)(path - 1 - value));
	if (!f->name) {
		snprintf(ret_why, 320, "no memory");
		return -ENOMEM;
	}
	r = 0;
	if (guest_files_find(fs, f->name)) {
		snprintf(ret_why, 320, "block %.100s is given twice", TEXT_QUOTE(f->name, strlen(f->name)));
		r = -EINVAL;
	}
	if (r == 0)
		r = open_file(f, fs, ret_why);
	if (r < 0) {
		if (f->fd >= 0)
			close(f->fd);
		free(f->name);
		return r;
	}
	fs->count++;
	return 0;
}

int guest_files_check_postcopy(const struct guest_files *fs, char ret_why[static 320])
{
	for (size_t i = 0; i < fs->count; i++) {
		if (fs->files[i].shm)
			continue;
		snprintf(ret_why, 320,
		         "%.200s: with postcopy-ram it must be on tmpfs or hugetlbfs, because a page of it "
		         "must be able to be missing",
		         fs->files[i].path);
		return -EINVAL;
	}
	return 0;
}

struct guest_file *guest_files_find(const struct guest_files *fs, const char *name)
{
	for (size_t i = 0; i < fs->count; i++)
		if (strcmp(fs->files[i].name, name) == 0)
			return &fs->files[i];
	return NULL;
}

const struct guest_file *guest_files_unused(const struct guest_files *fs)
{
	for (size_t i = 0; i < fs->count; i++)
		if (!fs->files[i].used)
			return &fs->files[i];
	return NULL;
}

bool guest_files_have(const struct guest_files *fs, const struct stat *st)
{
	for (size_t i = 0; i < fs->count; i++)
		if (fs->files[i].st.st_dev == st->st_dev && fs->files[i].st.st_ino == st->st_ino)
			return true;
	return false;
}

void guest_files_fini(struct guest_files *fs)
{
	for (size_t i = 0; i < fs->count; i++) {
		free(fs->files[i].name);
		if (fs->files[i].fd >= 0)
			close(fs->files[i].fd);
	}
	free(fs->files);
	*fs = (struct guest_files){ 0 };
}
