#include "base/clock.h"
#include "coroutine/group.h"
#include "coroutine/io.h"
#include "coroutine/reactor.h"
#include "tests/support/check_main.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static struct reactor *r;
static struct group g;
static int sv[2];

static void setup(void)
{
	int ret = reactor_new(&r, &ring_uring, 0);

	if (ret == -EPERM || ret == -ENOSYS)
		test_skip("the kernel permits no io_uring");
	ck_assert_int_eq(ret, 0);
	group_init(&g, &r->sched, "test");
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

static struct co *spawn(co_fn *fn, void *arg)
{
	ck_assert_int_eq(group_spawn(&g, "child", fn, arg), 0);
	return container_of(g.children.prev, struct co, sibling);
}

static void run(void)
{
	int ret = reactor_run(r, &g, soon(20000));

	ck_assert_msg(ret == 0, "%s, with %zu operations under way", strerror(-ret), r->ring->in_flight);
}

static void run_for(uint64_t ms)
{
	ck_assert_int_eq(reactor_run(r, &g, soon(ms)), -ETIMEDOUT);
}

/* One operation and what became of it; then a park, to see whether a cancel is still to come. */
struct
try {
	enum { RECV, RECV_ALL, ACCEPT, CONNECT, READ, POLL, NOP, SLEEP } what;
	int fd;
	void *buf;
	size_t len;
	unsigned flags;
	uint64_t deadline_ns;
	const struct sockaddr *addr;
	socklen_t addr_bytes;
	long result;
	int after;
};

static int tries(void *arg)
{
	struct try *t = arg;
	struct ring_op nop = { .kind = RING_NOP, .fd = -1 };

	switch (t->what) {
	case RECV:
		t->result = io_recv(r, t->fd, t->buf, t->len, t->flags, t->deadline_ns);
		break;
	case RECV_ALL: {
		struct iovec iov = { t->buf, t->len };
		struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

		t->result = io_recvmsg(r, t->fd, &msg, t->flags | MSG_WAITALL, t->deadline_ns);
		break;
	}
	case ACCEPT:
		t->result = io_accept(r, t->fd, NULL, NULL, SOCK_CLOEXEC, t->deadline_ns);
		break;
	case CONNECT:
		t->result = io_connect(r, t->fd, t->addr, t->addr_bytes, t->deadline_ns);
		break;
	case READ:
		t->result = io_read(r, t->fd, t->buf, t->len, RING_OFF_CURRENT, t->deadline_ns);
		break;
	case POLL:
		t->result = io_poll(r, t->fd, POLLIN, t->deadline_ns);
		break;
	case NOP:
		t->result = io_run(r, &nop, t->deadline_ns);
		break;
	case SLEEP:
		t->result = io_sleep_until(r, t->deadline_ns);
		break;
	}
	t->after = co_yield(&r->sched);
	return 0;
}

static struct try try_recv(int fd, void *buf, size_t len)
{
	return (struct try){ .what = RECV, .fd = fd, .buf = buf, .len = len, .deadline_ns = DEADLINE_NEVER };
}

/* ---- results ---- */

TEST_CASE("io", 60, .checked = { setup, teardown });

TEST(test_io_recv_gets_what_was_sent_before_and_after)
{
	char buf[8] = "";
	struct try t = try_recv(sv[0], buf, sizeof(buf));

	ck_assert_int_eq(send(sv[1], "abc", 3, 0), 3);
	spawn(tries, &t);
	run();
	ck_assert_int_eq(t.result, 3);
	t = try_recv(sv[0], buf, sizeof(buf));
	spawn(tries, &t);
	run_for(10);
	ck_assert_int_eq(send(sv[1], "defg", 4, 0), 4);
	run();
	ck_assert_int_eq(t.result, 4);
	ck_assert_mem_eq(buf, "defg", 4);
}

TEST(test_io_error_is_the_system_calls)
{
	char c;
	struct try t = try_recv(-1, &c, 1);

	spawn(tries, &t);
	run();
	ck_assert_int_eq(t.result, -EBADF);
}

static int sends_to_nobody(void *arg)
{
	*(long *)arg = io_send(r, sv[0], "x", 1, 0, DEADLINE_NEVER);
	return 0;
}

TEST(test_io_send_to_a_closed_peer_is_an_error_and_no_signal)
{
	long result = 0;

	close(sv[1]);
	sv[1] = -1;
	spawn(sends_to_nobody, &result);
	run();
	ck_assert_int_eq(result, -EPIPE);
}

static int advises(void *arg)
{
	size_t bytes = 4u << 20;

	ck_assert_int_eq(io_madvise(r, arg, bytes, MADV_DONTNEED, DEADLINE_NEVER), 0);
	return 0;
}

TEST(test_io_madvise_does_it)
{
	size_t bytes = 4u << 20;
	char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ck_assert(p != MAP_FAILED);
	memset(p, 1, bytes);
	spawn(advises, p);
	run();
	ck_assert_int_eq(p[0] + p[bytes - 1], 0);
	munmap(p, bytes);
}

/* ---- deadlines and cancels, for everything that can wait ---- */

enum { WAITS = 6 };

/* All the ways to wait for what does not come. Return: descriptors to close, in @fds. */
static void waits(struct try t[static WAITS], int fds[static 5], char *buf)
{
	static struct sockaddr_in addr;
	socklen_t addr_bytes = sizeof(addr);

	memset(t, 0, WAITS * sizeof(*t));
	ck_assert_int_eq(pipe(fds), 0);
	fds[2] = eventfd(0, 0);
	fds[3] = socket(AF_INET, SOCK_STREAM, 0);
	addr = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	ck_assert_int_eq(bind(fds[3], (struct sockaddr *)&addr, sizeof(addr)), 0);
	ck_assert_int_eq(listen(fds[3], 1), 0);
	ck_assert_int_eq(getsockname(fds[3], (struct sockaddr *)&addr, &addr_bytes), 0);
	fds[4] = -1;
	t[0] = try_recv(sv[0], buf, 8);
	t[1] = (struct try){ .what = RECV_ALL, .fd = sv[1], .buf = buf, .len = 8, .flags = IO_ASYNC };
	t[2] = (struct try){ .what = ACCEPT, .fd = fds[3] };
	t[3] = (struct try){ .what = READ, .fd = fds[0], .buf = buf, .len = 8 };
	t[4] = (struct try){ .what = READ, .fd = fds[2], .buf = buf, .len = 8 };
	t[5] = (struct try){ .what = POLL, .fd = fds[2] };
}

TEST(test_io_cancel_ends_every_kind_of_wait_once)
{
	struct try t[WAITS];
	struct co *co[WAITS];
	int fds[5];
	char buf[8];

	waits(t, fds, buf);
	for (int i = 0; i < WAITS; i++) {
		t[i].deadline_ns = DEADLINE_NEVER;
		co[i] = spawn(tries, &t[i]);
	}
	run_for(20);
	for (int i = 0; i < WAITS; i++)
		co_cancel(co[i]);
	run();
	for (int i = 0; i < WAITS; i++) {
		ck_assert_msg(t[i].result == -ECANCELED, "wait %d ended with %ld", i, t[i].result);
		ck_assert_int_eq(t[i].after, 0);
	}
	for (int i = 0; i < 4; i++)
		close(fds[i]);
}

TEST(test_io_deadline_ends_every_kind_of_wait)
{
	struct try t[WAITS];
	int fds[5];
	char buf[8];

	waits(t, fds, buf);
	for (int i = 0; i < WAITS; i++) {
		t[i].deadline_ns = soon(20);
		spawn(tries, &t[i]);
	}
	run();
	for (int i = 0; i < WAITS; i++)
		ck_assert_msg(t[i].result == -ETIMEDOUT, "wait %d ended with %ld", i, t[i].result);
	for (int i = 0; i < 4; i++)
		close(fds[i]);
}

/* Nobody reads at the other end, and all that fits has been sent: the kernel gives up after @user_timeout_ms. */
static void connect_to_one_that_stalls(int fds[2], unsigned user_timeout_ms)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t addr_bytes = sizeof(addr);
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	static char much[64 << 10];

	fds[0] = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(bind(listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
	ck_assert_int_eq(listen(listener, 1), 0);
	ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&addr, &addr_bytes), 0);
	ck_assert_int_eq(connect(fds[0], (struct sockaddr *)&addr, addr_bytes), 0);
	fds[1] = accept(listener, NULL, NULL);
	ck_assert_int_ge(fds[1], 0);
	close(listener);
	ck_assert_int_eq(setsockopt(fds[0], IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms, sizeof(user_timeout_ms)),
	                 0);
	while (send(fds[0], much, sizeof(much), MSG_DONTWAIT) > 0)
		;
	ck_assert_int_eq(errno, EAGAIN);
}

TEST_EACH(test_io_a_connection_that_the_kernel_gives_up_has_not_come_to_the_deadline, 2)
{
	struct try t = { .what = _i ? RECV_ALL : RECV, .deadline_ns = soon(19000) };
	char buf[8];
	int fds[2];

	connect_to_one_that_stalls(fds, 300);
	t.fd = fds[0];
	t.buf = buf;
	t.len = sizeof(buf);
	spawn(tries, &t);
	run();
	ck_assert_int_eq(t.result, -ECONNABORTED);
	close(fds[0]);
	close(fds[1]);
}

TEST(test_io_connect_that_waits_is_cancelled)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t addr_bytes = sizeof(addr);
	int listener = socket(AF_INET, SOCK_STREAM, 0), fds[4];
	struct try t[4];
	struct co *co[4];
	int waiting = 0;

	/* A backlog of none: the first connections fill it, a later one waits for an answer. */
	ck_assert_int_eq(bind(listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
	ck_assert_int_eq(listen(listener, 0), 0);
	ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&addr, &addr_bytes), 0);
	for (int i = 0; i < 4; i++) {
		fds[i] = socket(AF_INET, SOCK_STREAM, 0);
		t[i] = (struct try){ .what = CONNECT,
			             .fd = fds[i],
			             .deadline_ns = DEADLINE_NEVER,
			             .result = 99,
			             .addr = (struct sockaddr *)&addr,
			             .addr_bytes = addr_bytes };
		co[i] = spawn(tries, &t[i]);
	}
	run_for(50);
	for (int i = 0; i < 4; i++) {
		if (t[i].result == 99) {
			waiting++;
			co_cancel(co[i]);
		}
	}
	run();
	ck_assert_int_gt(waiting, 0);
	for (int i = 0; i < 4; i++) {
		ck_assert(t[i].result == 0 || t[i].result == -ECANCELED);
		close(fds[i]);
	}
	close(listener);
}

TEST(test_io_cancel_pending_begins_nothing)
{
	char buf[8];
	struct try t = try_recv(sv[0], buf, sizeof(buf));

	ck_assert_int_eq(send(sv[1], "abc", 3, 0), 3);
	co_cancel(spawn(tries, &t));
	run();
	ck_assert_int_eq(t.result, -ECANCELED);
	ck_assert_int_eq(t.after, 0);
	ck_assert_int_eq(recv(sv[0], buf, sizeof(buf), MSG_DONTWAIT), 3); /* nothing read, nothing lost */
}

TEST(test_io_completed_and_cancelled_in_one_turn_keeps_the_bytes)
{
	char buf[8];
	struct try t = try_recv(sv[0], buf, sizeof(buf));
	struct co *co = spawn(tries, &t);

	run_for(5);
	ck_assert_int_eq(send(sv[1], "abc", 3, 0), 3);
	co_cancel(co); /* the data is in the kernel, the completion not read */
	run();
	ck_assert(t.result == 3 || t.result == -ECANCELED);
	if (t.result == 3) {
		ck_assert_int_eq(t.after, -ECANCELED);
	} else {
		ck_assert_int_eq(t.after, 0);
		ck_assert_int_eq(recv(sv[0], buf, sizeof(buf), MSG_DONTWAIT), 3);
	}
}

static int sends_and_cancels(void *arg)
{
	ck_assert_int_eq(send(sv[1], "abc", 3, 0), 3);
	co_cancel(arg);
	return 0;
}

TEST(test_io_completion_read_between_the_cancel_and_the_turn_is_kept)
{
	char buf[8];
	struct try t = try_recv(sv[0], buf, sizeof(buf));
	struct co *co = spawn(tries, &t);

	run_for(5);
	/* Cancelled by a coroutine, it has its turn only after the ring's. */
	spawn(sends_and_cancels, co);
	run();
	ck_assert_int_eq(t.result, 3);
	ck_assert_int_eq(t.after, -ECANCELED);
}

TEST(test_io_deadline_that_passed_while_bytes_came_gives_the_bytes)
{
	char buf[8];
	struct try t = try_recv(sv[0], buf, sizeof(buf));

	t.deadline_ns = soon(20);
	spawn(tries, &t);
	run_for(5);
	ck_assert_int_eq(send(sv[1], "abc", 3, 0), 3);
	usleep(30000); /* now both are true */
	run();
	ck_assert_int_eq(t.result, 3);
	ck_assert_int_eq(t.after, 0);
}

static void check_partial(unsigned flags, bool cancel)
{
	char buf[64];
	struct try t = try_recv(sv[0], buf, sizeof(buf));
	struct co *co;

	t.what = RECV_ALL;
	t.flags = flags;
	t.deadline_ns = cancel ? DEADLINE_NEVER : soon(60);
	co = spawn(tries, &t);
	run_for(10);
	ck_assert_int_eq(send(sv[1], "0123456789", 10, 0), 10);
	run_for(10);
	ck_assert_int_eq(send(sv[1], "abcdefghij", 10, 0), 10);
	run_for(10);
	if (cancel)
		co_cancel(co);
	run();
	ck_assert_int_eq(t.result, 20);
	ck_assert_mem_eq(buf, "0123456789abcdefghij", 20);
	ck_assert_int_eq(t.after, cancel ? -ECANCELED : 0);
}

TEST_EACH(test_io_waitall_cancelled_half_way_returns_what_came, 2)
{
	check_partial(_i ? IO_ASYNC : 0, true);
}

TEST_EACH(test_io_waitall_timed_out_half_way_returns_what_came, 2)
{
	check_partial(_i ? IO_ASYNC : 0, false);
}

struct late {
	uint64_t deadline_ns;
	long result[2];
};

/* Its own deadline has passed when it sends, and the reader's has, too, whose turn is after this one's. */
static int sends_late(void *arg)
{
	struct late *late = arg;

	io_sleep_until(r, late->deadline_ns - 1);
	ck_assert_int_eq(write(sv[1], "xy", 2), 2);
	return 0;
}

static int reads_late(void *arg)
{
	struct late *late = arg;
	char buf[4];

	late->result[0] = io_recv(r, sv[0], buf, 1, 0, late->deadline_ns);
	late->result[1] = io_recv(r, sv[0], buf, 4, MSG_WAITALL, late->deadline_ns);
	return 0;
}

TEST(test_io_what_came_before_the_reader_noticed_its_deadline_is_read)
{
	for (int i = 0; i < 20; i++) {
		struct late late = { .deadline_ns = soon(2) };

		spawn(sends_late, &late);
		spawn(reads_late, &late);
		run();
		ck_assert_int_eq(late.result[0], 1);
		ck_assert_int_eq(late.result[1], 1);
	}
}
