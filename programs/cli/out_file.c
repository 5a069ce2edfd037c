#include "programs/cli/out_file.h"

#include "programs/cli/complain.h"
#include "programs/cli/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATIENCE_MS 5000

static int say(const struct out_file *f, int r)
{
	char hint[160];

	fail("%s: %s%s", f->path,
	     r == -ENXIO     ? "a FIFO that nobody reads" :
	     r == -ETIMEDOUT ? "nobody reads it" :
	                       strerror(-r),
	     process_limit_hint(hint, r));
	return r;
}

int out_file_open(struct out_file *f, const char *path)
{
	/* O_NONBLOCK: a FIFO would wait for its reader, now and later. */
	const int flags = O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;

	*f = (struct out_file){ .path = path };
	f->fd = open(path, flags | O_CREAT | O_EXCL, 0666);
	f->made = f->fd >= 0;
	if (f->fd < 0 && errno == EEXIST)
		f->fd = open(path, flags | O_CREAT, 0666);
	if (f->fd < 0) {
		int r = say(f, -errno);

		*f = (struct out_file){ 0 };
		return r;
	}
	return 0;
}

static ssize_t put(void *cookie, const char *text, size_t bytes)
{
	struct out_file *f = cookie;
	struct pollfd p = { .fd = f->fd, .events = POLLOUT };
	ssize_t n;

	if (f->error)
		return 0;
	for (size_t done = 0; done<bytes; done += n> 0 ? (size_t)n : 0) {
		n = write(f->fd, text + done, bytes - done);
		if (n >= 0 || errno == EINTR)
			continue;
		if (errno != EAGAIN)
			f->error = -errno;
		else if (poll(&p, 1, PATIENCE_MS) == 0)
			f->error = -ETIMEDOUT;
		if (f->error)
			return 0;
	}
	return (ssize_t)bytes;
}

FILE *out_file_stream(struct out_file *f)
{
	cookie_io_functions_t io = { .write = put };
	struct stat st;
	FILE *stream;

	f->written = true;
	if (fstat(f->fd, &st) == 0 && S_ISREG(st.st_mode) && (ftruncate(f->fd, 0) < 0 || lseek(f->fd, 0, SEEK_SET))) {
		say(f, -errno);
		return NULL;
	}
	stream = fopencookie(f, "w", io);
	if (!stream)
		say(f, -ENOMEM);
	return stream;
}

int out_file_done(struct out_file *f, FILE *stream)
{
	int bad = ferror(stream);

	if (fclose(stream) != 0 || bad)
		f->error = f->error ? f->error : -EIO;
	return f->error ? say(f, f->error) : 0;
}

/* Is it still what was opened? Somebody may have put another file there. */
static bool is_there(const struct out_file *f)
{
	struct stat here, there;

	return fstat(f->fd, &here) == 0 && lstat(f->path, &there) == 0 && here.st_dev == there.st_dev &&
	       here.st_ino == there.st_ino;
}

void out_file_close(struct out_file *f)
{
	if (!f->path)
		return;
	if (f->made && !f->written && is_there(f))
		unlink(f->path);
	close(f->fd);
	*f = (struct out_file){ 0 };
}

bool out_file_same(const struct out_file *a, const struct out_file *b)
{
	struct stat sa, sb;

	return a->path && b->path && fstat(a->fd, &sa) == 0 && fstat(b->fd, &sb) == 0 && S_ISREG(sa.st_mode) &&
	       sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}
