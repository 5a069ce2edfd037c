#include "coroutine/io.h"

#include "base/assert.h"
#include "base/clock.h"
#include "config.h"
#include "coroutine/reactor.h"

#include <errno.h>
#include <poll.h>
#include <sys/mman.h>

#if HAVE_VALGRIND
#include <valgrind/memcheck.h>

static void vector_written(const struct iovec *iov, size_t count, size_t bytes)
{
	for (size_t i = 0; i < count && bytes > 0; i++) {
		size_t n = iov[i].iov_len < bytes ? iov[i].iov_len : bytes;

		VALGRIND_MAKE_MEM_DEFINED(iov[i].iov_base, n);
		bytes -= n;
	}
}

static void message_written(const struct msghdr *msg, size_t bytes)
{
	VALGRIND_MAKE_MEM_DEFINED(msg, sizeof(*msg));
	VALGRIND_MAKE_MEM_DEFINED(msg->msg_name, msg->msg_namelen);
	VALGRIND_MAKE_MEM_DEFINED(msg->msg_control, msg->msg_controllen);
	vector_written(msg->msg_iov, msg->msg_iovlen, bytes);
}

/* Valgrind sees system calls only: what the kernel writes for an operation of the ring stays "uninitialised" to it. */
static void kernel_wrote(const struct ring_op *op)
{
	size_t bytes = op->res > 0 ? (size_t)op->res : 0;

	if (!RUNNING_ON_VALGRIND || op->res < 0)
		return;
	if (op->kind == RING_RECV || op->kind == RING_READ) {
		VALGRIND_MAKE_MEM_DEFINED(op->buf, bytes);
	} else if (op->kind == RING_READV) {
		vector_written(op->buf, op->len, bytes);
	} else if (op->kind == RING_RECVMSG) {
		message_written(op->buf, bytes);
	} else if (op->kind == RING_ACCEPT && op->addr_bytes) {
		VALGRIND_MAKE_MEM_DEFINED(op->addr_bytes, sizeof(socklen_t));
		VALGRIND_MAKE_MEM_DEFINED(op->buf, *(socklen_t *)op->addr_bytes);
	}
}
#else
static inline void kernel_wrote(const struct ring_op *op)
{
	(void)op;
}
#endif

static const char *const kind_names[] = {
	[RING_NOP] = "nop",         [RING_ACCEPT] = "accept", [RING_CONNECT] = "connect", [RING_RECV] = "recv",
	[RING_RECVMSG] = "recvmsg", [RING_SEND] = "send",     [RING_SENDMSG] = "sendmsg", [RING_POLL] = "poll",
	[RING_READ] = "read",       [RING_READV] = "readv",   [RING_WRITE] = "write",     [RING_MADVISE] = "madvise",
	[RING_TIMEOUT] = "timeout",
};

/* Return: 0: op->res is the result. Else why there is none. */
static int run_until(struct reactor *r, struct ring_op *op, uint64_t deadline_ns)
{
	struct sched *s = &r->sched;
	const char *kind = kind_names[op->kind];
	int why;

	op->waiter = s->current;
	op->background = s->current->background;
	r->ring->class->submit(r->ring, op);
	why = co_park(s, NULL, deadline_ns, kind, "ring");
	if (why == 0)
		return 0;

	/* Withdrawn, but ours again only when the ring says so. No deadline: the kernel completes what is cancelled.
	 * It may have completed already, in a turn between the cancel and now. */
	if (op->in_flight) {
		r->ring->class->cancel(r->ring, op);
		co_park_uninterruptible(s, kind, "ring, cancelled");
	}
	if (op->res == -ECANCELED || op->res == -EINTR)
		return why;
	if (why == -ECANCELED)
		co_cancel_again(s);
	return 0;
}

/*
 * What is cancelled ends as cancelled even if its bytes came in the same moment, or before, while this process was
 * stopped. So who has waited too long looks once more: here, for all who wait for bytes. False: there is nothing.
 */
static bool look_once_more(struct ring_op *op)
{
	struct pollfd p = { .fd = op->fd, .events = POLLIN };

	if (op->kind == RING_RECV || op->kind == RING_RECVMSG) {
		op->flags = (op->flags & ~(uint32_t)MSG_WAITALL) | MSG_DONTWAIT;
		op->async = false;
		return true;
	}
	return (op->kind == RING_READ || op->kind == RING_READV) && op->off == RING_OFF_CURRENT && poll(&p, 1, 0) > 0;
}

int32_t io_run(struct reactor *r, struct ring_op *op, uint64_t deadline_ns)
{
	int why;

	/* Not even begun when a cancel is pending already: it is delivered here. */
	if (co_take_cancel(&r->sched))
		return -ECANCELED;
	why = run_until(r, op, deadline_ns);
	if (why == -ETIMEDOUT && look_once_more(op)) {
		why = run_until(r, op, DEADLINE_NEVER); /* no deadline: it ends at once */
		if (why == 0 && op->res == -EAGAIN)
			why = -ETIMEDOUT;
	}
	if (why < 0)
		return why;
	kernel_wrote(op);
	return op->res == -ETIMEDOUT ? -ECONNABORTED : op->res;
}

int io_accept(struct reactor *r, int fd, struct sockaddr *addr, socklen_t *addr_bytes, int flags, uint64_t deadline_ns)
{
	struct ring_op op = {
		.kind = RING_ACCEPT, .fd = fd, .buf = addr, .addr_bytes = addr_bytes, .flags = (uint32_t)flags
	};

	return io_run(r, &op, deadline_ns);
}

int io_connect(struct reactor *r, int fd, const struct sockaddr *addr, socklen_t addr_bytes, uint64_t deadline_ns)
{
	struct ring_op op = { .kind = RING_CONNECT, .fd = fd, .buf = (void *)addr, .len = addr_bytes };

	return io_run(r, &op, deadline_ns);
}

static ssize_t io_socket(struct reactor *r, enum ring_kind kind, int fd, void *buf, size_t len, unsigned flags,
                         uint64_t deadline_ns)
{
	struct ring_op op = { .kind = kind,
		              .fd = fd,
		              .buf = buf,
		              .len = len < INT32_MAX ? len : INT32_MAX, /* the result has 31 bits */
		              .flags = flags & ~IO_ASYNC,
		              .async = flags & IO_ASYNC };

	return io_run(r, &op, deadline_ns);
}

ssize_t io_recv(struct reactor *r, int fd, void *buf, size_t len, unsigned flags, uint64_t deadline_ns)
{
	return io_socket(r, RING_RECV, fd, buf, len, flags, deadline_ns);
}

ssize_t io_recvmsg(struct reactor *r, int fd, struct msghdr *msg, unsigned flags, uint64_t deadline_ns)
{
	return io_socket(r, RING_RECVMSG, fd, msg, 0, flags, deadline_ns);
}

ssize_t io_send(struct reactor *r, int fd, const void *buf, size_t len, unsigned flags, uint64_t deadline_ns)
{
	return io_socket(r, RING_SEND, fd, (void *)buf, len, flags | MSG_NOSIGNAL, deadline_ns);
}

ssize_t io_sendmsg(struct reactor *r, int fd, const struct msghdr *msg, unsigned flags, uint64_t deadline_ns)
{
	return io_socket(r, RING_SENDMSG, fd, (void *)msg, 0, flags | MSG_NOSIGNAL, deadline_ns);
}

ssize_t io_read(struct reactor *r, int fd, void *buf, size_t len, uint64_t off, uint64_t deadline_ns)
{
	struct ring_op op = {
		.kind = RING_READ, .fd = fd, .buf = buf, .len = len < INT32_MAX ? len : INT32_MAX, .off = off
	};

	return io_run(r, &op, deadline_ns);
}

ssize_t io_readv(struct reactor *r, int fd, const struct iovec *iov, int iov_count, uint64_t off, uint64_t deadline_ns)
{
	struct ring_op op = { .kind = RING_READV, .fd = fd, .buf = (void *)iov, .len = (size_t)iov_count, .off = off };

	return io_run(r, &op, deadline_ns);
}

ssize_t io_write(struct reactor *r, int fd, const void *buf, size_t len, uint64_t off, uint64_t deadline_ns)
{
	struct ring_op op = {
		.kind = RING_WRITE, .fd = fd, .buf = (void *)buf, .len = len < INT32_MAX ? len : INT32_MAX, .off = off
	};

	return io_run(r, &op, deadline_ns);
}

int io_poll(struct reactor *r, int fd, short events, uint64_t deadline_ns)
{
	struct ring_op op = { .kind = RING_POLL, .fd = fd, .flags = (uint16_t)events };

	return io_run(r, &op, deadline_ns);
}

int io_madvise(struct reactor *r, void *addr, size_t len, int advice, uint64_t deadline_ns)
{
	const size_t chunk_bytes_max = 1u << 30;
	int ret = 0;

	/* The ring's length is 32 bits wide. */
	for (size_t done = 0; ret == 0 && done < len; done += chunk_bytes_max) {
		struct ring_op op = { .kind = RING_MADVISE,
			              .fd = -1,
			              .buf = (char *)addr + done,
			              .len = len - done < chunk_bytes_max ? len - done : chunk_bytes_max,
			              .flags = (uint32_t)advice,
			              .async = true };

		ret = io_run(r, &op, deadline_ns);
	}
	return ret;
}

int io_sleep_until(struct reactor *r, uint64_t deadline_ns)
{
	int why = co_park(&r->sched, NULL, deadline_ns, "sleep", "clock");

	return why == -ETIMEDOUT ? 0 : why;
}
