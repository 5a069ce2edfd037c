/*
 * ring_uring.c - ring.h on io_uring(7)
 *
 * SINGLE_ISSUER and DEFER_TASKRUN where the kernel has them (6.1): completions are then produced only when we ask, on
 * our thread, and never interrupt a system call or a coroutine. The ring is made disabled and enabled in its first
 * turn, so that the thread which runs it, not the one which made it, is the single issuer.
 *
 * With that, the kernel sets a flag in shared memory when there is something for us: a turn that submits nothing and
 * does not wait costs no system call where there is not.
 *
 * The price: nothing produces completions while we do not ask, so the ring's own descriptor does not wake a poll(2) or
 * epoll_wait(2) (measured on 6.18; tests/platform/uring_poll.c). An eventfd registered with the ring does. It is silent
 * until somebody asks for it, and then each turn empties it before it asks the kernel: what is signalled later stays.
 */
#include "coroutine/ring.h"

#include "base/assert.h"
#include "base/clock.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define SQ_ENTRIES 256
#define CQ_ENTRIES 4096

/* How long after a cancel that missed it is tried again. */
#define CANCEL_RETRY_NS NS_PER_MS

struct uring {
	struct ring ring;
	struct io_uring uring;
	/* An operation is in at most one of these. */
	struct list backlog; /* not sent yet: the submission queue had no room */
	struct list cancels; /* sent; its cancel is to be sent */
	struct list asked;   /* its cancel was sent too, and it has not completed yet */
	struct __kernel_timespec retry_delay;
	int eventfd;
	bool eventfd_on;    /* somebody polls it */
	bool cancel_missed; /* of one in asked, perhaps */
	bool retry_in_flight;
	bool enabled;
	bool flagged; /* the kernel says in shared memory when it has something for us */
};

static struct uring *of(struct ring *ring)
{
	return container_of(ring, struct uring, ring);
}

static int open_eventfd(struct uring *u)
{
	int r;

	u->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (u->eventfd < 0)
		return -errno;
	r = io_uring_register_eventfd(&u->uring, u->eventfd);
	if (r == 0)
		r = io_uring_cq_eventfd_toggle(&u->uring, false);
	if (r < 0)
		close(u->eventfd);
	return r;
}

/*
 * The kernel counts the queues as locked memory of the user, who may have 64 KiB of it for all processes together.
 * Small queues are enough: what the submission queue has no room for waits in the backlog, and the kernel keeps
 * completions.
 */
static int init_queues(struct io_uring *uring, unsigned flags)
{
	static const struct {
		unsigned sq, cq;
	} sizes[] = { { SQ_ENTRIES, CQ_ENTRIES }, { 64, 512 }, { 16, 64 } };
	int r = -ENOMEM;

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]) && r == -ENOMEM; i++) {
		struct io_uring_params p = {
			.flags = flags | IORING_SETUP_CQSIZE | IORING_SETUP_R_DISABLED | IORING_SETUP_CLAMP,
			.cq_entries = sizes[i].cq,
		};

		r = io_uring_queue_init_params(sizes[i].sq, uring, &p);
	}
	return r;
}

static int uring_open(struct ring **ret_ring, ring_done_fn *done)
{
	static const unsigned flag_sets[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG, 0, /* before 6.1 */
	};
	struct uring *u = calloc(1, sizeof(*u));
	int r = -EINVAL;

	if (!u)
		return -ENOMEM;
	list_init(&u->backlog);
	list_init(&u->cancels);
	list_init(&u->asked);
	u->ring = (struct ring){ .class = &ring_uring, .done = done };
	for (size_t i = 0; i < 2 && r == -EINVAL; i++)
		r = init_queues(&u->uring, flag_sets[i]);
	/* Without it (before 5.11) a wait with a deadline would put timeouts of liburing's own into the ring. */
	if (r == 0 && !(u->uring.features & IORING_FEAT_EXT_ARG)) {
		io_uring_queue_exit(&u->uring);
		r = -ENOSYS;
	}
	if (r < 0) {
		free(u);
		return r;
	}
	u->flagged = u->uring.flags & IORING_SETUP_TASKRUN_FLAG;
	r = open_eventfd(u);
	if (r < 0) {
		io_uring_queue_exit(&u->uring);
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
	if (u->eventfd >= 0)
		close(u->eventfd);
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
	list_unlink(&op->node);
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

	ASSERT(op->in_flight);
	if (op->cancel_sent)
		return;
	op->cancel_sent = true;
	/* By (2) of ring.h it completes now, whatever it waited for. */
	ring->background_in_flight -= op->background;
	op->background = false;
	/* One that is still in the backlog stays there: the turn completes it unsent. */
	if (!list_linked(&op->node))
		list_push_tail(&u->cancels, &op->node);
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

/* Into the submission queue with what waits, as far as there is room. Return: number of completions. */
static int fill(struct uring *u)
{
	struct io_uring_sqe *sqe;
	struct ring_op *op;
	int n = 0;

	while (!list_empty(&u->backlog)) {
		op = container_of(u->backlog.next, struct ring_op, node);
		if (op->cancel_sent) {
			complete(u, op, -ECANCELED);
			n++;
			continue;
		}
		if (!enqueue(u, op))
			return n;
		list_unlink(&op->node);
	}
	while (!list_empty(&u->cancels) && (sqe = io_uring_get_sqe(&u->uring))) {
		op = container_of(list_pop_head(&u->cancels), struct ring_op, node);
		list_push_tail(&u->asked, &op->node);
		io_uring_prep_cancel(sqe, op, 0);
		/* Not the operation: it may be gone when the cancel's own completion is read. */
		io_uring_sqe_set_data(sqe, &u->asked);
	}
	return n;
}

static bool waiting(const struct uring *u)
{
	return !list_empty(&u->backlog) || !list_empty(&u->cancels);
}

/* Completions must be reaped, or a signal handled, before the kernel takes more. */
static bool is_transient(int r)
{
	return r == -EBUSY || r == -EAGAIN || r == -EINTR;
}

/*
 * As fill, but with a system call for each time the queue fills up: an operation left in the backlog while we sleep
 * would wait for a completion that has nothing to do with it.
 */
static int push(struct uring *u)
{
	int n = fill(u), r;

	while (waiting(u)) {
		r = io_uring_submit(&u->uring);
		if (r == 0 || is_transient(r))
			break;
		if (r < 0)
			return r;
		n += fill(u);
	}
	return n;
}

static int reap(struct uring *u)
{
	struct io_uring_cqe *cqe;
	unsigned head, seen = 0;
	int n = 0;

	io_uring_for_each_cqe(&u->uring, head, cqe) {
		void *data = io_uring_cqe_get_data(cqe);

		seen++;
		if (data == &u->asked) {
			u->cancel_missed |= cqe->res < 0;
		} else if (data == &u->cancels) {
			u->retry_in_flight = false;
			while (!list_empty(&u->asked))
				list_push_tail(&u->cancels, list_pop_head(&u->asked));
		} else {
			complete(u, data, cqe->res);
			n++;
		}
	}
	io_uring_cq_advance(&u->uring, seen);
	return n;
}

/*
 * A cancel can miss. While a worker of the kernel executes an operation, the cancel only interrupts it (-EALREADY); if
 * it is between two waits just then, it goes on to wait as if nothing had happened: measured, one large MSG_WAITALL
 * receive in a hundred (tests/platform/uring_cancel_worker.c). So what was asked to end and has not is asked again.
 */
static void retry_missed(struct uring *u)
{
	struct io_uring_sqe *sqe;

	if (!u->cancel_missed || u->retry_in_flight)
		return;
	if (list_empty(&u->asked)) {
		u->cancel_missed = false;
		return;
	}
	sqe = io_uring_get_sqe(&u->uring);
	if (!sqe)
		return; /* the next turn finds room */
	u->cancel_missed = false;
	u->retry_in_flight = true;
	u->retry_delay.tv_nsec = CANCEL_RETRY_NS;
	io_uring_prep_timeout(sqe, &u->retry_delay, 0, 0);
	io_uring_sqe_set_data(sqe, &u->cancels);
}

/* Nothing to submit, and nothing that the kernel would do if asked. What is in the completion queue is read anyway. */
static bool is_idle(const struct uring *u)
{
	return u->flagged && io_uring_sq_ready(&u->uring) == 0 &&
	       !(__atomic_load_n(u->uring.sq.kflags, __ATOMIC_ACQUIRE) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW));
}

/* Submit and, until @deadline_ns, wait for a completion; in one system call. */
static int enter(struct uring *u, uint64_t deadline_ns)
{
	struct io_uring_cqe *cqe;
	struct __kernel_timespec ts;
	uint64_t now;

	if (deadline_ns == 0)
		return is_idle(u) ? 0 : io_uring_submit_and_get_events(&u->uring);
	if (deadline_ns == DEADLINE_NEVER)
		return io_uring_submit_and_wait(&u->uring, 1);
	now = clock_now_ns();
	if (deadline_ns <= now)
		return io_uring_submit_and_get_events(&u->uring);
	ts.tv_sec = (int64_t)((deadline_ns - now) / NS_PER_S);
	ts.tv_nsec = (long long)((deadline_ns - now) % NS_PER_S);
	return io_uring_submit_and_wait_timeout(&u->uring, &cqe, 1, &ts, NULL);
}

/* Return: 0; -EBADF, once: the embedder, who knows its number, has closed it. It will not wake the embedder again. */
static int empty_eventfd(struct uring *u)
{
	uint64_t count;

	/* Not blocking; that it was empty is no news. */
	if (!u->eventfd_on || read(u->eventfd, &count, sizeof(count)) >= 0 || errno == EAGAIN || errno == EINTR)
		return 0;
	u->eventfd_on = false;
	u->eventfd = -1;
	return -EBADF;
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
	r = empty_eventfd(u);
	if (r < 0)
		return r;
	n = push(u);
	if (n < 0)
		return n;
	r = enter(u, n > 0 || waiting(u) ? 0 : deadline_ns);
	/* -ETIME: the deadline. */
	if (r < 0 && r != -ETIME && !is_transient(r))
		return r;
	n += reap(u);
	retry_missed(u);
	/* Nothing may be left behind for a next turn that only comes when the kernel has something to tell. */
	if (waiting(u) || io_uring_sq_ready(&u->uring) > 0) {
		r = push(u);
		if (r < 0)
			return r;
		n += r;
		r = io_uring_submit(&u->uring);
		if (r < 0 && !is_transient(r))
			return r;
	}
	return n;
}

static int uring_fd(struct ring *ring)
{
	struct uring *u = of(ring);

	if (!u->eventfd_on && u->eventfd >= 0) {
		u->eventfd_on = true;
		io_uring_cq_eventfd_toggle(&u->uring, true);
		/* What came before was not signalled: the first poll finds it readable in any case. */
		if (eventfd_write(u->eventfd, 1) < 0)
			ASSERT(errno == EAGAIN);
	}
	return u->eventfd;
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
