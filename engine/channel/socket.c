#include "engine/channel/socket.h"

#include "base/err.h"
#include "coroutine/io.h"
#include "engine/channel/address.h"
#include "engine/options/options.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

struct socket_chan {
	struct chan chan;
	struct reactor *reactor;
	int fd;       /* owned */
	bool workers; /* large receives run on workers of the kernel */
	bool tcp;
};

/* At the end of a burst, or where single pages come, a read finds less than this. */
#define ACK_BYTES_MAX (64u << 10)

/*
 * A source does not turn off Nagle's algorithm: while something it sent is not acknowledged, it holds back what does
 * not fill a segment, and on loopback or with jumbo frames a page does not. The kernel delays an acknowledgment by 40
 * ms if the reader leaves something in the socket. Together that stalls pages that were asked for (measured: 12 to 16
 * stalls of 42 ms in a strided walk through 64 MiB, which then waits 0.12 as long). The option does not last: tcp(7).
 */
static void acknowledge(const struct socket_chan *sc, ssize_t read_bytes)
{
	const int on = 1;

	if (sc->tcp && read_bytes > 0 && (size_t)read_bytes < ACK_BYTES_MAX)
		setsockopt(sc->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on));
}

static ssize_t socket_readv(struct chan *ch, struct iovec *iov, int iov_count, uint64_t deadline_ns, struct err *err)
{
	struct socket_chan *sc = (struct socket_chan *)ch;
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = (size_t)iov_count };
	ssize_t n = io_recvmsg(sc->reactor, sc->fd, &msg, 0, deadline_ns);

	if (n < 0)
		return chan_failed(ch, "reading from", (int)n, err);
	acknowledge(sc, n);
	return n;
}

/* Below this a hand-over to a worker costs more than the copy. */
#define WORKER_BYTES_MIN (64u << 10)

/*
 * Copies of several channels run beside each other on workers of the kernel, if there are processors for them. With
 * two, which the source of a local test shares, they do not: measured on four multifd channels into huge pages, medians
 * of 30 rounds, 2.25 GB/s at 0.35 CPU-seconds a GB inline against 2.10 at 0.38 on workers.
 */
#define WORKER_CPUS_MIN 4

static ssize_t socket_read_full(struct chan *ch, struct iovec *iov, int iov_count, uint64_t deadline_ns,
                                struct err *err)
{
	struct socket_chan *sc = (struct socket_chan *)ch;
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = (size_t)iov_count };
	unsigned flags = MSG_WAITALL;
	size_t bytes = 0;
	ssize_t n;

	for (int i = 0; i < iov_count; i++)
		bytes += iov[i].iov_len;
	if (bytes >= WORKER_BYTES_MIN && sc->workers)
		flags |= IO_ASYNC;
	n = io_recvmsg(sc->reactor, sc->fd, &msg, flags, deadline_ns);
	if (n < 0)
		return chan_failed(ch, "reading from", (int)n, err);
	return n;
}

static int socket_write_all(struct chan *ch, const void *buf, size_t bytes, uint64_t deadline_ns, struct err *err)
{
	struct socket_chan *sc = (struct socket_chan *)ch;
	const char *p = buf;

	while (bytes > 0) {
		/*
		 * What is written here is small and urgent (a page request), and there is room for it nearly always: at
		 * once, and not with the reactor's next turn, after all that is ready now.
		 */
		ssize_t n = send(sc->fd, p, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0)
			n = io_send(sc->reactor, sc->fd, p, bytes, 0, deadline_ns);
		if (n < 0)
			return chan_failed(ch, "writing to", (int)n, err);
		p += n;
		bytes -= (size_t)n;
	}
	return 0;
}

static bool socket_hung_up(const struct chan *ch)
{
	struct pollfd p = { ((const struct socket_chan *)ch)->fd, POLLRDHUP, 0 };

	return poll(&p, 1, 0) > 0 && p.revents & (POLLRDHUP | POLLHUP | POLLERR);
}

static size_t socket_pending(const struct chan *ch)
{
	int bytes = 0;

	return ioctl(((const struct socket_chan *)ch)->fd, FIONREAD, &bytes) == 0 ? (size_t)bytes : SIZE_MAX;
}

static void socket_shut_down(struct chan *ch)
{
	shutdown(((struct socket_chan *)ch)->fd, SHUT_RDWR);
}

static void socket_close(struct chan *ch)
{
	struct socket_chan *sc = (struct socket_chan *)ch;

	close(sc->fd);
	free(sc);
}

static void set_number(int fd, int level, int name, uint64_t value)
{
	int v = value > INT32_MAX ? INT32_MAX : (int)value;

	if (v > 0)
		setsockopt(fd, level, name, &v, sizeof(v));
}

static uint64_t get_number(int fd, int level, int name)
{
	int v = 0;
	socklen_t bytes = sizeof(v);

	return getsockopt(fd, level, name, &v, &bytes) == 0 && v > 0 ? (uint64_t)v : 0;
}

static bool is_tcp(int fd)
{
	int protocol = 0;
	socklen_t bytes = sizeof(protocol);

	return getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &bytes) == 0 &&
	       (protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP);
}

static void set_keepalive(int fd, const struct options *opts, const struct address_keepalive *k)
{
	uint64_t idle_s = k->idle_s ? k->idle_s : opts->keepalive_idle_s;
	int on = k->on == ADDRESS_UNSET ? idle_s > 0 : k->on == ADDRESS_ON;

	/* Also off: a socket that was passed on may have had it on. */
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	set_number(fd, IPPROTO_TCP, TCP_KEEPIDLE, idle_s);
	set_number(fd, IPPROTO_TCP, TCP_KEEPINTVL, k->interval_s ? k->interval_s : opts->keepalive_interval_s);
	set_number(fd, IPPROTO_TCP, TCP_KEEPCNT, k->count ? k->count : opts->keepalive_count);
}

/*
 * With a user timeout the kernel does not count probes: the timeout alone ends a silent connection, tcp(7). So where an
 * address has numbers of its own, the timeout is what they come to, or they would change nothing.
 */
static uint64_t user_timeout_ms(int fd, const struct options *opts, const struct address_keepalive *k)
{
	bool has_numbers = k->count || k->idle_s || k->interval_s;

	if (!has_numbers || k->on == ADDRESS_OFF || opts->tcp_user_timeout_ms == 0)
		return opts->tcp_user_timeout_ms;
	return 1000 * (get_number(fd, IPPROTO_TCP, TCP_KEEPIDLE) +
	               get_number(fd, IPPROTO_TCP, TCP_KEEPINTVL) * get_number(fd, IPPROTO_TCP, TCP_KEEPCNT));
}

void socket_set_options(int fd, const struct options *opts, const struct address_keepalive *keepalive)
{
	if (!is_tcp(fd))
		return;
	/* Replies are small and wanted at once. */
	set_number(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set_keepalive(fd, opts, keepalive);
	set_number(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, user_timeout_ms(fd, opts, keepalive));
}

static const struct chan_ops socket_ops = {
	.readv = socket_readv,
	.read_full = socket_read_full,
	.write_all = socket_write_all,
	.hung_up = socket_hung_up,
	.pending = socket_pending,
	.shut_down = socket_shut_down,
	.close = socket_close,
};

int socket_chan_new(struct chan **ret_chan, struct reactor *r, int fd, const char *name)
{
	struct socket_chan *sc = calloc(1, sizeof(*sc));

	if (!sc) {
		close(fd);
		return -ENOMEM;
	}
	sc->chan.ops = &socket_ops;
	sc->chan.can_write = true;
	snprintf(sc->chan.name, sizeof(sc->chan.name), "%s", name);
	sc->reactor = r;
	sc->fd = fd;
	sc->tcp = is_tcp(fd);
	sc->workers = sysconf(_SC_NPROCESSORS_ONLN) >= WORKER_CPUS_MIN;
	*ret_chan = &sc->chan;
	return 0;
}
