/*
 * ring_uring.c - ring.h on io_uring(7)
 *
 * SINGLE_ISSUER and DEFER_TASKRUN where the kernel has them (6.1): completions are then produced only when we ask, on
 * our thread, and never interrupt a system call or a coroutine. The ring is made disabled and enabled in its first
 * turn, so that the thread which runs it, not the one which made it, is the single issuer.
 */
#include "coroutine/ring.h"

#include "base/assert.h"
#include "base/clock.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>

#define SQ_ENTRIES 256
#define CQ_ENTRIES 4096

struct uring {
	struct ring ring;
	struct io_uring uring;
	struct list backlog; /* ops for which the submission queue had no room */
	bool enabled;
};

static struct uring *of(struct ring *ring)
{
	return container_of(ring, struct uring, ring);
}

static int uring_open(struct ring **ret_ring, ring_done_fn *done)
{
	static const unsigned flag_sets[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
		0, /* before 6.1 */
	};
	struct uring *u = calloc(1, sizeof(*u));
	int r = -EINVAL;

	if (!u)
		return -ENOMEM;
	list_init(&u->backlog);
	u->ring = (struct ring){ .class = &ring_uring, .done = done };
	for (size_t i = 0; i < 2 && r == -EINVAL; i++) {
		struct io_uring_params p = {
			.flags = flag_sets[i] | IORING_SETUP_CQSIZE | IORING_SETUP_R_DISABLED | IORING_SETUP_CLAMP,
			.cq_entries = CQ_ENTRIES,
		};

		r = io_uring_queue_init_params(SQ_ENTRIES, &u->uring, &p);
	}
	if (r < 0) {
		free(u);
		return r;
	}
	*ret_ring = &u->ring;
	return 0;
}

static void uring_close(struct ring *ring)
{
	struct uring *u = of(ring);

	ASSERT(ring->in_flight == 0);
	io_uring_queue_exit(&u->uring);
	free(u);
}

static void prepare(struct io_uring_sqe *sqe, struct ring_op *op)
{
	switch (op->kind) {
	case RING_NOP:
		io_uring_prep_nop(sqe);
		break;
	case RING_ACCEPT:
		io_uring_prep_accept(sqe, op->fd, op->buf, op->addr_bytes, (int)op->flags);
		break;
	case RING_CONNECT:
		io_uring_prep_connect(sqe, op->fd, op->buf, (socklen_t)op->len);
		break;
	case RING_RECV:
		io_uring_prep_recv(sqe, op->fd, op->buf, op->len, (int)op->flags);
		break;
	case RING_RECVMSG:
		io_uring_prep_recvmsg(sqe, op->fd, op->buf, op->flags);
		break;
	case RING_SEND:
		io_uring_prep_send(sqe, op->fd, op->buf, op->len, (int)op->flags);
		break;
	case RING_SENDMSG:
		io_uring_prep_sendmsg(sqe, op->fd, op->buf, op->flags);
		break;
	case RING_POLL:
		io_uring_prep_poll_add(sqe, op->fd, op->flags);
		break;
	case RING_READ:
		io_uring_prep_read(sqe, op->fd, op->buf, (unsigned)op->len, op->off);
		break;
	case RING_READV:
		io_uring_prep_readv(sqe, op->fd, op->buf, (unsigned)op->len, op->off);
		break;
	case RING_WRITE:
		io_uring_prep_write(sqe, op->fd, op->buf, (unsigned)op->len, op->off);
		break;
	case RING_MADVISE:
		/* The length of this operation is 32 bits wide; io_madvise (io.h) cuts longer ranges. */
		io_uring_prep_madvise(sqe, op->buf, (off_t)op->len, (int)op->flags);
		break;
	case RING_TIMEOUT: {
		struct __kernel_timespec *ts = (struct __kernel_timespec *)op->timeout;

		_Static_assert(sizeof(op->timeout) >= sizeof(*ts), "room for a timespec");
		ts->tv_sec = (int64_t)(op->off / NS_PER_S);
		ts->tv_nsec = (long long)(op->off % NS_PER_S);
		io_uring_prep_timeout(sqe, ts, 0, IORING_TIMEOUT_ABS);
		break;
	}
	}
	if (op->async)
		sqe->flags |= IOSQE_ASYNC;
	io_uring_sqe_set_data(sqe, op);
}

/* False when the submission queue is full. */
static bool enqueue(struct uring *u, struct ring_op *op)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&u->uring);

	if (!sqe)
		return false;
	prepare(sqe, op);
	return true;
}

static void uring_submit(struct ring *ring, struct ring_op *op)
{
	struct uring *u = of(ring);

	ASSERT(!op->in_flight);
	op->in_flight = true;
	op->cancel_sent = false;
	list_init(&op->node);
	ring->in_flight++;
	ring->background_in_flight += op->background;
	if (!list_empty(&u->backlog) || !enqueue(u, op))
		list_push_tail(&u->backlog, &op->node);
}

static void complete(struct uring *u, struct ring_op *op, int32_t res)
{
	op->res = res;
	op->in_flight = false;
	u->ring.in_flight--;
	u->ring.background_in_flight -= op->background;
	u->ring.completions++;
	u->ring.done(op);
}

static void uring_cancel(struct ring *ring, struct ring_op *op)
{
	struct uring *u = of(ring);
	struct io_uring_sqe *sqe;

	ASSERT(op->in_flight);
	if (op->cancel_sent)
		return;
	op->cancel_sent = true;
	if (list_linked(&op->node))
		return; /* still in the backlog: the turn completes it unsent */
	sqe = io_uring_get_sqe(&u->uring);
	while (!sqe) {
		/* Full: push out what is there. Nothing is reaped, so nobody is woken inside this call. */
		if (io_uring_submit(&u->uring) < 0)
			return; /* the ring is broken; the next turn says so */
		sqe = io_uring_get_sqe(&u->uring);
	}
	io_uring_prep_cancel(sqe, op, 0);
	/* Its own completion says nothing that the operation's does not. */
	io_uring_sqe_set_data(sqe, NULL);
}

static int first_turn(struct uring *u)
{
	/* io_uring_enable_rings(3) is in liburing's header, but 2.3 does not export it. */
	int r = io_uring_register((unsigned)u->uring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);

	if (r < 0)
		return r;
	u->enabled = true;
	/* Saves a descriptor look-up in each system call. Advice: a kernel before 5.18 has none. */
	io_uring_register_ring_fd(&u->uring);
	return 0;
}

static int drain_backlog(struct uring *u)
{
	int n = 0;

	while (!list_empty(&u->backlog)) {
		struct ring_op *op = container_of(u->backlog.next, struct ring_op, node);

		if (!op->cancel_sent && !enqueue(u, op))
			break;
		list_unlink(&op->node);
		if (op->cancel_sent) {
			complete(u, op, -ECANCELED);
			n++;
		}
	}
	return n;
}

static int reap(struct uring *u)
{
	struct io_uring_cqe *cqe;
	unsigned head, seen = 0;
	int n = 0;

	io_uring_for_each_cqe(&u->uring, head, cqe) {
		struct ring_op *op = io_uring_cqe_get_data(cqe);

		seen++;
		if (op) {
			complete(u, op, cqe->res);
			n++;
		}
	}
	io_uring_cq_advance(&u->uring, seen);
	return n;
}

/* Submit and, until @deadline_ns, wait for a completion; in one system call. */
static int enter(struct uring *u, uint64_t deadline_ns)
{
	struct io_uring_cqe *cqe;
	struct __kernel_timespec ts;
	uint64_t now;

	if (deadline_ns == 0)
		return io_uring_submit_and_get_events(&u->uring);
	if (deadline_ns == DEADLINE_NEVER)
		return io_uring_submit_and_wait(&u->uring, 1);
	now = clock_now_ns();
	if (deadline_ns <= now)
		return io_uring_submit_and_get_events(&u->uring);
	ts.tv_sec = (int64_t)((deadline_ns - now) / NS_PER_S);
	ts.tv_nsec = (long long)((deadline_ns - now) % NS_PER_S);
	return io_uring_submit_and_wait_timeout(&u->uring, &cqe, 1, &ts, NULL);
}

static int uring_turn(struct ring *ring, uint64_t deadline_ns)
{
	struct uring *u = of(ring);
	int r, n;

	if (!u->enabled) {
		r = first_turn(u);
		if (r < 0)
			return r;
	}
	ring->turns++;
	n = drain_backlog(u);
	r = enter(u, n > 0 ? 0 : deadline_ns);
	/* -ETIME: the deadline; -EINTR: a signal of the embedder's; -EBUSY, -EAGAIN: completions must be reaped first. */
	if (r < 0 && r != -ETIME && r != -EINTR && r != -EBUSY && r != -EAGAIN)
		return r;
	n += reap(u);
	n += drain_backlog(u);
	return n;
}

static int uring_fd(const struct ring *ring)
{
	return container_of(ring, const struct uring, ring)->uring.ring_fd;
}

const struct ring_class ring_uring = {
	.name = "uring",
	.open = uring_open,
	.close = uring_close,
	.submit = uring_submit,
	.cancel = uring_cancel,
	.turn = uring_turn,
	.fd = uring_fd,
};
