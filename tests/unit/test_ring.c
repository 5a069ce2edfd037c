/* ring_uring.c at its limits: a full submission queue, a full completion queue, cancels that come at bad moments. */
#include "base/clock.h"
#include "config.h"
#include "coroutine/group.h"
#include "coroutine/io.h"
#include "coroutine/reactor.h"
#include "tests/support/check_main.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#if HAVE_VALGRIND
#include <valgrind/valgrind.h>
#else
#define RUNNING_ON_VALGRIND 0
#endif

#define QUEUE 256 /* ring_uring.c's submission queue */

static struct reactor *r;
static struct group g, wanted;
static int sv[2];
static int done, cancelled;

static void setup(void)
{
	int ret = reactor_new(&r, &ring_uring, 0);

	if (ret == -EPERM || ret == -ENOSYS)
		test_skip("the kernel permits no io_uring");
	ck_assert_int_eq(ret, 0);
	group_init(&g, &r->sched, "all");
	group_init(&wanted, &r->sched, "wanted");
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
}

static void teardown(void)
{
	ck_assert_uint_eq(r->ring->in_flight, 0);
	reactor_free(r);
	close(sv[0]);
	close(sv[1]);
}

static uint64_t soon(uint64_t ms)
{
	return deadline_after_ns(ms * NS_PER_MS);
}

static void run(struct group *until)
{
	int ret = reactor_run(r, until, soon(10000));

	ck_assert_msg(ret == 0, "%s, with %zu operations under way, %d done, %d cancelled", strerror(-ret),
	              r->ring->in_flight, done, cancelled);
}

static int nop(void *arg)
{
	struct ring_op op = { .kind = RING_NOP, .fd = -1 };

	(void)arg;
	ck_assert_int_eq(io_run(r, &op, DEADLINE_NEVER), 0);
	done++;
	return 0;
}

/* For what never comes. */
static int waits(void *arg)
{
	char c;
	ssize_t n = io_recv(r, sv[0], &c, 1, arg ? IO_ASYNC : 0, DEADLINE_NEVER);

	ck_assert_int_eq(n, -ECANCELED);
	cancelled++;
	return 0;
}

static void spawn(struct group *group, co_fn *fn, int n)
{
	for (int i = 0; i < n; i++)
		ck_assert_int_eq(group_spawn(group, "child", fn, NULL), 0);
}

TEST_CASE("ring", 110, .checked = { setup, teardown });

TEST(test_ring_takes_more_than_its_queue_in_one_turn)
{
	spawn(&g, nop, 5 * QUEUE + 1);
	run(&g);
	ck_assert_int_eq(done, 5 * QUEUE + 1);
}

TEST(test_ring_survives_more_completions_than_its_queue_holds)
{
	spawn(&g, nop, 6000);
	run(&g);
	ck_assert_int_eq(done, 6000);
	spawn(&g, waits, 3000);
	ck_assert_int_eq(reactor_run(r, &g, soon(300)), -ETIMEDOUT);
	group_cancel(&g); /* 3000 cancels and 3000 ends: 6000 completions */
	run(&g);
	ck_assert_int_eq(cancelled, 3000);
}

TEST(test_ring_operation_beyond_the_queue_does_not_wait_for_an_unrelated_one)
{
	spawn(&g, waits, QUEUE);
	spawn(&wanted, nop, 1);
	run(&wanted);
	ck_assert_int_eq(done, 1);
	group_cancel(&g);
	run(&g);
	ck_assert_int_eq(cancelled, QUEUE);
}

TEST(test_ring_dispatch_leaves_no_operation_unsent)
{
	struct pollfd p = { .fd = reactor_fd(r), .events = POLLIN };

	spawn(&g, waits, 3 * QUEUE);
	spawn(&wanted, nop, 1);
	ck_assert_int_eq(reactor_dispatch(r), 0);
	/* On a slow machine a dispatch ends before all is done, and says so. An unsent operation could not. */
	while (done == 0 && poll(&p, 1, 1000) > 0)
		ck_assert_int_eq(reactor_dispatch(r), 0);
	ck_assert_int_eq(done, 1);
	group_cancel(&g);
	run(&g);
}

static int cancels_all(void *arg)
{
	group_cancel(arg);
	return 0;
}

TEST(test_ring_cancel_before_the_first_turn_of_a_full_queue)
{
	/* The ring is not even enabled; the queue is full, and what is cancelled is in it and in the backlog. */
	spawn(&g, waits, 2 * QUEUE);
	ck_assert_int_eq(group_spawn(&wanted, "canceller", cancels_all, &g), 0);
	run(&g);
	ck_assert_int_eq(cancelled, 2 * QUEUE);
}

TEST(test_ring_cancel_while_another_hundred_are_submitted)
{
	spawn(&g, waits, QUEUE);
	ck_assert_int_eq(reactor_run(r, &g, soon(20)), -ETIMEDOUT);
	spawn(&wanted, nop, QUEUE + 100); /* fills the queue before the cancels get to it */
	ck_assert_int_eq(group_spawn(&wanted, "canceller", cancels_all, &g), 0);
	run(&wanted);
	run(&g);
	ck_assert_int_eq(done, QUEUE + 100);
	ck_assert_int_eq(cancelled, QUEUE);
}

/* ---- a large receive on a worker of the kernel, cancelled while it copies ---- */

#define WHOLE (1u << 20)

struct transfer {
	char *buf;
	int fd;
	long result;
	int after;
};

static int receives_whole(void *arg)
{
	struct transfer *t = arg;
	struct iovec iov = { t->buf, WHOLE };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	t->result = io_recvmsg(r, t->fd, &msg, MSG_WAITALL | IO_ASYNC, DEADLINE_NEVER);
	t->after = co_yield(&r->sched);
	return 0;
}

static void spin(uint64_t ns)
{
	uint64_t end = clock_now_ns() + ns;

	while (clock_now_ns() < end)
		;
}

/* One whole life: some bytes are there, the receive is cancelled at a random moment. @ret_ns: how long that took. */
static void cancel_one(struct transfer *t, const char *bytes, size_t sent, uint64_t after_ns, uint64_t *ret_ns)
{
	uint64_t began;
	ssize_t rest;

	ck_assert_int_eq(group_spawn(&g, "receiver", receives_whole, t), 0);
	ck_assert_int_eq(reactor_dispatch(r), 0);
	spin(after_ns);
	co_cancel(container_of(g.children.prev, struct co, sibling));
	began = clock_now_ns();
	run(&g);
	*ret_ns = clock_now_ns() - began;

	/* What came is returned, what is not returned is still there, and nobody writes afterwards. */
	if (t->result == -ECANCELED) {
		ck_assert_int_eq(t->after, 0);
		t->result = 0;
	} else {
		ck_assert_int_gt(t->result, 0);
		ck_assert_int_eq(t->after, -ECANCELED);
	}
	ck_assert(memcmp(t->buf, bytes, (size_t)t->result) == 0);
	memset(t->buf, 0xaa, WHOLE);
	for (size_t left = sent - (size_t)t->result; left > 0; left -= (size_t)rest) {
		static char scratch[1 << 16];

		rest = recv(t->fd, scratch, sizeof(scratch), MSG_DONTWAIT);
		ck_assert_msg(rest > 0, "%zu bytes are lost", left);
	}
	for (size_t i = 0; i < WHOLE; i += 1024)
		ck_assert_int_eq((unsigned char)t->buf[i], 0xaa);
}

TEST(test_ring_cancelled_worker_receive_ends_soon_and_loses_nothing)
{
	static char buf[WHOLE], bytes[512 << 10];
	struct transfer t = { .buf = buf };
	uint64_t took_ns, longest_ns = 0;
	int space = 8 << 20;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (char)(i * 7 + (i >> 9));
	srandom(1);
	for (int i = 0; i < (RUNNING_ON_VALGRIND ? 50 : 1500); i++) {
		int pair[2];
		ssize_t sent;

		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
		setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &space, sizeof(space));
		sent = send(pair[1], bytes, sizeof(bytes), MSG_DONTWAIT);
		ck_assert_int_gt(sent, 0);
		t.fd = pair[0];
		cancel_one(&t, bytes, (size_t)sent, (uint64_t)random() % 300000, &took_ns);
		if (took_ns > longest_ns)
			longest_ns = took_ns;
		close(pair[0]);
		close(pair[1]);
	}
	ck_assert_msg(longest_ns < NS_PER_S, "a cancel took %.1f ms", (double)longest_ns / 1e6);
}
