#include "base/clock.h"
#include "coroutine/group.h"
#include "coroutine/io.h"
#include "coroutine/reactor.h"
#include "coroutine/wait.h"
#include "tests/support/check_main.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static struct reactor *r;
static struct group g;

static void setup(void)
{
	int ret = reactor_new(&r, &ring_uring, 0);

	if (ret == -EPERM || ret == -ENOSYS)
		test_skip("the kernel permits no io_uring");
	ck_assert_int_eq(ret, 0);
	group_init(&g, &r->sched, "test");
}

static void teardown(void)
{
	reactor_free(r);
}

static void spawn(co_fn *fn, void *arg)
{
	ck_assert_int_eq(group_spawn(&g, "child", fn, arg), 0);
}

static uint64_t soon(uint64_t ms)
{
	return deadline_after_ns(ms * NS_PER_MS);
}

/* An embedder's loop: dispatches only when its poll says so. Return: how often it did. */
static int embed(uint64_t deadline_ns)
{
	struct epoll_event event = { .events = EPOLLIN };
	int ep = epoll_create1(EPOLL_CLOEXEC), dispatches = 1;

	ck_assert_int_ge(ep, 0);
	ck_assert_int_eq(epoll_ctl(ep, EPOLL_CTL_ADD, reactor_fd(r), &event), 0);
	ck_assert_int_eq(reactor_dispatch(r), 0);
	while (!group_empty(&g)) {
		int n = epoll_wait(ep, &event, 1, 5000);

		ck_assert_msg(n == 1, "slept through: nothing made the descriptor readable");
		ck_assert_msg(clock_now_ns() < deadline_ns, "no end after %d dispatches", dispatches);
		ck_assert_int_eq(reactor_dispatch(r), 0);
		dispatches++;
	}
	close(ep);
	return dispatches;
}

/* ---- run ---- */

static int sleeps(void *arg)
{
	return io_sleep_until(r, *(uint64_t *)arg);
}

TEST_CASE("reactor", 60, .checked = { setup, teardown });

TEST(test_reactor_run_waits_for_deadlines_in_order)
{
	uint64_t a = soon(30), b = soon(10), c = soon(20);

	spawn(sleeps, &a);
	spawn(sleeps, &b);
	spawn(sleeps, &c);
	ck_assert_int_eq(reactor_run(r, &g, soon(5000)), 0);
	ck_assert(clock_now_ns() >= a);
	ck_assert_uint_lt(r->ring->turns, 20); /* it slept, it did not spin */
}

TEST(test_reactor_run_ends_at_its_own_deadline)
{
	uint64_t never = soon(60000);

	spawn(sleeps, &never);
	ck_assert_int_eq(reactor_run(r, &g, soon(20)), -ETIMEDOUT);
	group_cancel(&g);
	ck_assert_int_eq(reactor_run(r, &g, soon(5000)), 0);
}

static int yields_for_ever(void *arg)
{
	(void)arg;
	while (co_yield(&r->sched) == 0)
		;
	return 0;
}

TEST(test_reactor_run_deadline_comes_also_when_somebody_yields_for_ever)
{
	uint64_t wake = soon(20);

	spawn(yields_for_ever, NULL);
	spawn(sleeps, &wake);
	ck_assert_int_eq(reactor_run(r, &g, soon(1000)), -ETIMEDOUT);
	ck_assert_uint_eq(g.count, 1); /* and the sleeper had its turn */
	group_cancel(&g);
	ck_assert_int_eq(reactor_run(r, &g, soon(5000)), 0);
}

static void on_alarm(int sig)
{
	(void)sig;
}

TEST(test_reactor_signals_neither_end_nor_stretch_a_sleep)
{
	struct itimerval often = { { 0, 1000 }, { 0, 1000 } }, off = { { 0, 0 }, { 0, 0 } };
	struct sigaction act = { .sa_handler = on_alarm }; /* no SA_RESTART */
	uint64_t until = soon(60);

	sigaction(SIGALRM, &act, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	spawn(sleeps, &until);
	ck_assert_int_eq(reactor_run(r, &g, soon(5000)), 0);
	ck_assert(clock_now_ns() >= until);
	ck_assert(clock_now_ns() < until + 2 * NS_PER_S);
	setitimer(ITIMER_REAL, &off, NULL);
}

/* ---- deadlock ---- */

static struct event never;
static int reports;

static int waits_never(void *arg)
{
	(void)arg;
	return event_wait(&never, DEADLINE_NEVER); /* the point of the test */
}

static void report(void *opaque, const struct co *co)
{
	ck_assert_ptr_eq(opaque, &reports);
	ck_assert_str_eq(co->name, "child");
	ck_assert_str_eq(co->wait_kind, "event");
	ck_assert_str_eq(co->wait_name, "never");
	reports++;
}

static int recv_background(void *arg)
{
	char c;

	return (int)io_recv(r, *(int *)arg, &c, 1, 0, DEADLINE_NEVER);
}

TEST(test_reactor_deadlock_names_who_waits_and_for_what)
{
	int sv[2];

	event_init(&never, &r->sched, "never");
	r->deadlock = report;
	r->deadlock_opaque = &reports;
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	/* Something that may never come does not count as "something will happen". */
	ck_assert_int_eq(group_spawn_background(&g, "background", recv_background, &sv[0]), 0);
	spawn(waits_never, NULL);
	spawn(waits_never, NULL);
	ck_assert_int_eq(reactor_run(r, &g, soon(5000)), -EDEADLK);
	ck_assert_int_eq(reports, 2);
	ck_assert_int_eq(reactor_dispatch(r), -EDEADLK);
	group_cancel(&g); /* and it can be left in good order */
	ck_assert_int_eq(reactor_run(r, &g, soon(5000)), 0);
	close(sv[0]);
	close(sv[1]);
}

TEST(test_reactor_deadline_is_no_deadlock)
{
	uint64_t until = soon(20);

	event_init(&never, &r->sched, "never");
	spawn(sleeps, &until);
	spawn(waits_never, NULL);
	ck_assert_int_eq(reactor_run(r, &g, soon(5000)), -EDEADLK);
	ck_assert(clock_now_ns() >= until);
	group_cancel(&g);
	ck_assert_int_eq(reactor_run(r, &g, soon(5000)), 0);
}

/* ---- dispatch ---- */

TEST(test_reactor_dispatch_makes_the_descriptor_readable_at_a_deadline)
{
	uint64_t until = soon(50);
	int dispatches;

	spawn(sleeps, &until);
	dispatches = embed(soon(5000));
	ck_assert(clock_now_ns() >= until);
	ck_assert(clock_now_ns() < until + NS_PER_S);
	ck_assert_msg(dispatches <= 4, "%d dispatches for one sleep: it spins", dispatches);
}

static int spawns_earlier_sleeper(void *arg)
{
	uint64_t *until = arg;

	/* Late is armed already when early comes. */
	ck_assert_int_eq(io_sleep_until(r, until[0]), 0);
	return io_sleep_until(r, until[1]);
}

TEST(test_reactor_dispatch_takes_an_earlier_deadline_that_comes_later)
{
	uint64_t late = soon(4000), early[2] = { soon(10), soon(40) };

	spawn(sleeps, &late);
	ck_assert_int_eq(reactor_dispatch(r), 0);
	spawn(spawns_earlier_sleeper, early);
	ck_assert_int_eq(reactor_dispatch(r), 0);
	while (g.count > 1) {
		struct pollfd p = { .fd = reactor_fd(r), .events = POLLIN };

		ck_assert_int_eq(poll(&p, 1, 2000), 1);
		ck_assert_int_eq(reactor_dispatch(r), 0);
	}
	ck_assert(clock_now_ns() < late);
	group_cancel(&g);
	ck_assert_int_eq(reactor_run(r, &g, soon(5000)), 0);
}

static int yields_often(void *arg)
{
	for (int n = *(int *)arg; n > 0; n--)
		ck_assert_int_eq(co_yield(&r->sched), 0);
	return 0;
}

TEST(test_reactor_dispatch_with_more_to_do_keeps_the_descriptor_readable)
{
	int n = 1000;

	spawn(yields_often, &n);
	ck_assert_int_gt(embed(soon(5000)), 5); /* in several parts: the embedder had its turns */
}

TEST(test_reactor_dispatch_with_more_to_do_does_not_wait_for_an_alarm)
{
	uint64_t late = soon(3000);
	int n = 1000;

	spawn(sleeps, &late);
	ck_assert_int_eq(reactor_dispatch(r), 0);
	spawn(yields_often, &n);
	ck_assert_int_eq(reactor_dispatch(r), 0);
	while (g.count > 1) {
		struct pollfd p = { .fd = reactor_fd(r), .events = POLLIN };

		ck_assert_int_eq(poll(&p, 1, 2000), 1);
		ck_assert_int_eq(reactor_dispatch(r), 0);
	}
	ck_assert(clock_now_ns() < late);
	group_cancel(&g);
	ck_assert_int_eq(reactor_run(r, &g, soon(5000)), 0);
}

static int yields_then_sleeps(void *arg)
{
	int n = 200;

	yields_often(&n);
	return sleeps(arg);
}

TEST(test_reactor_dispatch_sets_the_alarm_after_a_long_turn_too)
{
	uint64_t until = soon(100);

	spawn(yields_then_sleeps, &until);
	embed(soon(5000));
	ck_assert(clock_now_ns() < until + NS_PER_S);
}

struct echo {
	int fd, rounds;
};

static int echoes(void *arg)
{
	struct echo *e = arg;
	char c;

	for (int i = 0; i < e->rounds; i++) {
		ck_assert_int_eq(io_recv(r, e->fd, &c, 1, 0, soon(10000)), 1);
		ck_assert_int_eq(io_send(r, e->fd, &c, 1, 0, soon(10000)), 1);
	}
	return 0;
}

static void *echo_peer(void *arg)
{
	struct echo *e = arg;
	char c = 'x';

	for (int i = 0; i < e->rounds; i++) {
		ck_assert_int_eq(send(e->fd, &c, 1, 0), 1);
		ck_assert_int_eq(recv(e->fd, &c, 1, 0), 1);
		if (i % 8 == 0)
			usleep(300);
	}
	return NULL;
}

TEST(test_reactor_dispatch_is_woken_by_sockets_from_another_thread)
{
	int sv[2];
	struct echo here, there;
	pthread_t thread;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	here = (struct echo){ sv[0], 1000 };
	there = (struct echo){ sv[1], 1000 };
	ck_assert_int_eq(pthread_create(&thread, NULL, echo_peer, &there), 0);
	spawn(echoes, &here);
	/* Each round has a deadline of its own: alarms are replaced and cancelled all the time. */
	ck_assert_int_lt(embed(soon(20000)), 10000);
	pthread_join(thread, NULL);
	close(sv[0]);
	close(sv[1]);
}

TEST(test_reactor_with_nothing_to_do_is_silent)
{
	struct pollfd p = { .fd = reactor_fd(r), .events = POLLIN };
	uint64_t until = soon(5);

	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 2; i++) {
			ck_assert_int_eq(reactor_dispatch(r), 0);
			ck_assert_int_ge(poll(&p, 1, 0), 0);
		}
		ck_assert_int_eq(poll(&p, 1, 20), 0);
		spawn(sleeps, &until);
		embed(soon(5000));
	}
}

TEST(test_reactor_descriptor_asked_for_late_misses_nothing)
{
	uint64_t until = soon(5);
	struct pollfd p = { .events = POLLIN };

	spawn(sleeps, &until);
	ck_assert_int_eq(reactor_dispatch(r), 0);
	usleep(20000); /* the alarm rings while nobody has the descriptor */
	p.fd = reactor_fd(r);
	ck_assert_int_eq(poll(&p, 1, 2000), 1);
	/* On a busy machine that was longer, and an absence: it moves the deadline. */
	embed(soon(5000));
}

TEST(test_reactor_free_takes_an_alarm_back)
{
	uint64_t until = soon(3600 * 1000);

	spawn(sleeps, &until);
	ck_assert_int_eq(reactor_dispatch(r), 0);
	ck_assert(r->alarm.in_flight);
	group_cancel(&g);
	ck_assert_int_eq(reactor_dispatch(r), 0);
	ck_assert(group_empty(&g));
}

/* ---- threads ---- */

static void *run_elsewhere(void *arg)
{
	uint64_t until = soon(10);
	int *ret = arg;

	spawn(sleeps, &until);
	*ret = reactor_run(r, &g, soon(5000));
	reactor_free(r);
	return NULL;
}

TEST_CASE("own thread", 60);

TEST(test_reactor_made_here_may_run_on_another_thread)
{
	pthread_t thread;
	int ret = 99;

	setup();
	ck_assert_int_eq(pthread_create(&thread, NULL, run_elsewhere, &ret), 0);
	pthread_join(thread, NULL);
	ck_assert_int_eq(ret, 0);
}

TEST_CASE("reactor", 60, .checked = { setup, teardown });

TEST(test_reactor_two_in_one_thread_do_not_meet)
{
	struct reactor *first = r, *second;
	uint64_t a = soon(20), b = soon(10);
	struct group g2;

	ck_assert_int_eq(reactor_new(&second, &ring_uring, 0), 0);
	group_init(&g2, &second->sched, "second");
	spawn(sleeps, &a);
	ck_assert_int_eq(reactor_dispatch(first), 0);
	r = second;
	ck_assert_int_eq(group_spawn(&g2, "child", sleeps, &b), 0);
	ck_assert_int_eq(reactor_run(second, &g2, soon(5000)), 0);
	r = first;
	ck_assert_int_eq(reactor_run(first, &g, soon(5000)), 0);
	reactor_free(second);
}

/* ---- a thread that was stopped ---- */

#define STOPPED_MS 120

struct stopped {
	int pair[2];
	struct event said; /* set when the byte has been read */
	uint64_t deadline_ns;
	int waited, again, later;
};

static int reads_a_byte(void *arg)
{
	struct stopped *st = arg;
	char byte;

	ck_assert_int_eq(io_recv(r, st->pair[0], &byte, 1, 0, soon(60000)), 1);
	/* What it says next takes a few turns, as in a handshake. */
	for (int i = 0; i < 5; i++)
		co_yield(&r->sched);
	event_set(&st->said);
	return 0;
}

static int waits_by_one_deadline(void *arg)
{
	struct stopped *st = arg;

	st->deadline_ns = soon(STOPPED_MS / 4);
	st->waited = event_wait(&st->said, st->deadline_ns);
	event_clear(&st->said);
	st->again = event_wait(&st->said, st->deadline_ns); /* nobody says anything any more */
	return 0;
}

/* The byte comes before the deadline, and the thread runs only long after it. */
static int stops_the_thread(void *arg)
{
	struct stopped *st = arg;

	ck_assert_int_eq(io_sleep_until(r, soon(1)), 0);
	ck_assert_int_eq(write(st->pair[1], "x", 1), 1);
	usleep(STOPPED_MS * 1000);
	return 0;
}

TEST(test_reactor_what_came_while_the_thread_was_stopped_is_in_time)
{
	struct stopped st = { .waited = 1, .again = 1 };
	uint64_t began_ns = clock_now_ns();

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, st.pair), 0);
	event_init(&st.said, &r->sched, "said");
	spawn(waits_by_one_deadline, &st);
	spawn(reads_a_byte, &st);
	spawn(stops_the_thread, &st);
	ck_assert_int_eq(reactor_run(r, &g, soon(60000)), 0);
	ck_assert_int_eq(st.waited, 0);
	/* And the deadline comes all the same. */
	ck_assert_int_eq(st.again, -ETIMEDOUT);
	ck_assert_uint_gt(clock_now_ns() - began_ns, STOPPED_MS * NS_PER_MS);
	close(st.pair[0]);
	close(st.pair[1]);
}

static int waits(void *arg)
{
	struct stopped *st = arg;

	st->waited = event_wait(&st->said, soon(STOPPED_MS / 4));
	return 0;
}

static int is_away_until_it_is_over(void *arg)
{
	struct stopped *st = arg;

	while (st->waited == 1) {
		usleep(STOPPED_MS * 1000 / 2);
		co_yield(&r->sched);
		if (++st->later > 100)
			return 0;
	}
	return 0;
}

TEST(test_reactor_a_deadline_comes_also_when_the_thread_is_away_again_and_again)
{
	struct stopped st = { .waited = 1 };

	event_init(&st.said, &r->sched, "said");
	spawn(waits, &st);
	spawn(is_away_until_it_is_over, &st);
	ck_assert_int_eq(reactor_run(r, &g, soon(60000)), 0);
	ck_assert_int_eq(st.waited, -ETIMEDOUT);
	ck_assert_int_lt(st.later, 10);
}
