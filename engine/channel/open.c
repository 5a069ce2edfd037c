#include "engine/channel/open.h"

#include "base/err.h"
#include "engine/channel/address.h"
#include "engine/channel/channel.h"
#include "engine/channel/file.h"
#include "engine/channel/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* Nothing without a name in some folder (an epoll, an eventfd): the ring might wait there forever. */
static bool has_stream(mode_t mode)
{
	return S_ISSOCK(mode) || S_ISFIFO(mode) || S_ISREG(mode) || S_ISCHR(mode) || S_ISBLK(mode);
}

/* We would wait for others in vain: there are no datagrams in a stream, and a listening socket has no bytes. */
static int check_socket(int fd, struct err *err)
{
	int type = SOCK_STREAM, listens = 0;
	socklen_t bytes = sizeof(int);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &bytes) == 0 && type != SOCK_STREAM)
		return err_set(err, -EINVAL, "a socket of messages, and a stream (SOCK_STREAM) is expected");
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &bytes) == 0 && listens)
		return err_set(err, -EINVAL, "a socket that listens, and one that is connected is expected");
	return 0;
}

/* Can a stream be read from it? Said now, while the source has its guest. */
static int check_descriptor(const struct address *addr, int fd, mode_t mode, struct err *err)
{
	int flags = fcntl(fd, F_GETFL);

	if (addr->kind == ADDRESS_FILE && S_ISFIFO(mode))
		return err_set(err, -EINVAL, "a FIFO; 'exec:cat FILE' reads one");
	if (S_ISDIR(mode))
		return err_set(err, -EISDIR, "%s", strerror(EISDIR));
	if (!has_stream(mode))
		return err_set(err, -EINVAL, "neither a socket, a pipe, a file nor a device: there is no stream in it");
	if (flags >= 0 && (flags & O_PATH || (flags & O_ACCMODE) == O_WRONLY))
		return err_set(err, -EBADF, "not open for reading");
	return S_ISSOCK(mode) ? check_socket(fd, err) : 0;
}

/* It is read from where it stands, and is ours: nobody we start may inherit it. */
static int chan_of_descriptor(struct chan **ret_chan, const struct address *addr, int fd, bool socket,
                              struct reactor *r, const struct options *opts)
{
	char name[sizeof((*ret_chan)->name)];
	uint64_t off = addr->offset;
	off_t here;

	if (addr->kind == ADDRESS_FILE)
		snprintf(name, sizeof(name), "file:%.80s", addr->path);
	else
		snprintf(name, sizeof(name), "fd:%d", fd);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	if (socket) {
		socket_set_options(fd, opts, &addr->keepalive);
		return socket_chan_new(ret_chan, r, fd, name);
	}
	if (addr->kind == ADDRESS_FD && (here = lseek(fd, 0, SEEK_CUR)) > 0)
		off = (uint64_t)here;
	return file_chan_new(ret_chan, r, fd, off, name);
}

static int open_descriptor(struct chan **ret_chan, const struct address *addr, struct reactor *r,
                           const struct options *opts, struct err *err)
{
	int fd = addr->fd, e;
	struct stat st;

	/* O_NONBLOCK: opening a FIFO would wait for its writer. */
	if (addr->kind == ADDRESS_FILE)
		fd = open(addr->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(err, -errno, "%s", strerror(errno));
	e = check_descriptor(addr, fd, st.st_mode, err);
	if (e < 0) {
		close(fd);
		return e;
	}
	e = chan_of_descriptor(ret_chan, addr, fd, S_ISSOCK(st.st_mode), r, opts);
	return e < 0 ? err_set(err, e, "no memory for a channel") : 0;
}

int open_address(struct opened *ret, const struct address *addr, struct exec *exec, struct reactor *r,
                 const struct log *log, const struct options *opts, struct err *err)
{
	int e;

	*ret = (struct opened){ .ch = NULL };
	if (address_is_listening(addr))
		return listener_open(&ret->listener, addr, err);
	if (addr->kind != ADDRESS_EXEC)
		return open_descriptor(&ret->ch, addr, r, opts, err);
	e = exec_start(exec, r, log, addr->path, &ret->ch, err);
	if (e == 0)
		ret->exec = exec;
	return e;
}
