#include "engine/channel/file.h"

#include "base/err.h"
#include "coroutine/io.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct file_chan {
	struct chan chan;
	struct reactor *reactor;
	int fd; /* owned */
	bool seekable;
	uint64_t off;
};

static ssize_t file_readv(struct chan *ch, struct iovec *iov, int iov_count, uint64_t deadline_ns, struct err *err)
{
	struct file_chan *fc = (struct file_chan *)ch;
	ssize_t n =
	        io_readv(fc->reactor, fc->fd, iov, iov_count, fc->seekable ? fc->off : RING_OFF_CURRENT, deadline_ns);

	if (n < 0)
		return chan_failed(ch, "reading from", (int)n, err);
	fc->off += (uint64_t)n;
	return n;
}

static int file_write_all(struct chan *ch, const void *buf, size_t bytes, uint64_t deadline_ns, struct err *err)
{
	(void)buf;
	(void)bytes;
	(void)deadline_ns;
	return err_set(err, -ENOTCONN, "%s is read only: there is no return path", ch->name);
}

static void file_close(struct chan *ch)
{
	struct file_chan *fc = (struct file_chan *)ch;

	close(fc->fd);
	free(fc);
}

static const struct chan_ops file_ops = {
	.readv = file_readv,
	.write_all = file_write_all,
	.close = file_close,
};

int file_chan_new(struct chan **ret_chan, struct reactor *r, int fd, uint64_t off, const char *name)
{
	struct file_chan *fc = calloc(1, sizeof(*fc));
	struct stat st;

	if (!fc) {
		close(fd);
		return -ENOMEM;
	}
	fc->chan.ops = &file_ops;
	snprintf(fc->chan.name, sizeof(fc->chan.name), "%s", name);
	fc->reactor = r;
	fc->fd = fd;
	fc->seekable = fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode));
	fc->off = off;
	*ret_chan = &fc->chan;
	return 0;
}
