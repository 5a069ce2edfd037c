#include "base/clock.h"
#include "coroutine/group.h"
#include "coroutine/io.h"
#include "coroutine/look.h"
#include "coroutine/reactor.h"
#include "tests/support/check_main.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
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

/* ---- look.h ---- */

TEST_CASE("policy", 4);

TEST(test_look_is_given_up_where_it_finds_nothing)
{
	struct look l = { .misses = 0 };
	unsigned tried = 0;

	for (unsigned i = 0; i < 100 * LOOK_TRIES; i++) {
		if (!look_worth(&l))
			continue;
		look_done(&l, false);
		tried++;
	}
	ck_assert_uint_ge(tried, 95);
	ck_assert_uint_le(tried, 100 + LOOK_MISSES);
}

TEST(test_look_that_finds_something_is_worth_it_again)
{
	struct look l = { .misses = 1000 };

	while (!look_worth(&l))
		;
	look_done(&l, true);
	for (unsigned i = 0; i < LOOK_MISSES; i++) {
		ck_assert(look_worth(&l));
		look_done(&l, false);
	}
	ck_assert(!look_worth(&l));
}

/* ---- the reactor ---- */

#define SLEEPS 160u

static int sleep_often(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < SLEEPS; i++)
		ck_assert_int_eq(io_sleep_until(r, deadline_after_ns(200 * NS_PER_US)), 0);
	return 0;
}

/* Turns of the ring for this many sleeps: many when it looks, one or two for each sleep when it does not. */
static uint64_t turns_of_sleeps(void)
{
	uint64_t before = r->ring->turns;

	ck_assert_int_eq(group_spawn(&g, "sleeper", sleep_often, NULL), 0);
	ck_assert_int_eq(reactor_run(r, &g, deadline_after_ns(20 * NS_PER_S)), 0);
	return r->ring->turns - before;
}

TEST_CASE("reactor", 4, .checked = { setup, teardown });

TEST(test_look_of_an_eager_reactor_is_given_up)
{
	uint64_t turns, looks = 0;

	r->eager = 1;
	/* One look alone, by the same clock; the best of some, because others may want the processor. */
	ck_assert_int_eq(group_spawn(&g, "sleeper", sleep_often, NULL), 0);
	for (unsigned i = 0; i < 20; i++) {
		r->look_eager.misses = 0;
		turns = r->ring->turns;
		ck_assert_int_eq(reactor_run(r, &g, deadline_after_ns(NS_PER_MS / 10)), -ETIMEDOUT);
		turns = r->ring->turns - turns;
		looks = turns > looks ? turns : looks;
	}
	ck_assert_int_eq(reactor_run(r, &g, deadline_after_ns(20 * NS_PER_S)), 0);
	ck_assert_uint_ge(r->look_eager.misses, LOOK_MISSES);
	turns = turns_of_sleeps();
	ck_assert_msg(turns < 3 * SLEEPS + SLEEPS / LOOK_TRIES * 3 * (looks + 10),
	              "%lu turns for %u sleeps, %lu for one look", (unsigned long)turns, SLEEPS, (unsigned long)looks);
	r->eager = 0;
}

TEST(test_look_soon_is_used_up)
{
	uint64_t begin_ns = clock_now_ns();

	r->soon_ns = 50 * NS_PER_US;
	ck_assert_uint_lt(turns_of_sleeps(), 3 * SLEEPS + (clock_now_ns() - begin_ns) / 10);
	ck_assert_uint_eq(r->soon_ns, 0);
	ck_assert_uint_eq(r->look_soon.misses, 1);
}

TEST(test_look_nobody_asked_for_is_not_made)
{
	ck_assert_uint_le(turns_of_sleeps(), 3 * SLEEPS);
}

/* ---- a turn that has nothing to do ---- */

static int wait_for_fd(void *arg)
{
	int n = io_poll(r, *(int *)arg, POLLIN, DEADLINE_NEVER);

	return n == POLLIN ? 0 : -EIO;
}

static int go_round(void *arg)
{
	int fd = *(int *)arg;

	for (unsigned i = 0; i < 1000; i++)
		ck_assert_int_eq(co_yield(&r->sched), 0);
	ck_assert_int_eq(eventfd_write(fd, 1), 0);
	/* The other one's is found by turns that submit nothing and do not wait. */
	for (unsigned i = 0; i < 100000 && g.count > 1; i++)
		ck_assert_int_eq(co_yield(&r->sched), 0);
	ck_assert_uint_eq(g.count, 1);
	return 0;
}

TEST(test_turn_that_does_not_wait_finds_what_has_come)
{
	int fd = eventfd(0, EFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(group_spawn(&g, "waiter", wait_for_fd, &fd), 0);
	ck_assert_int_eq(group_spawn(&g, "rounds", go_round, &fd), 0);
	ck_assert_int_eq(reactor_run(r, &g, deadline_after_ns(20 * NS_PER_S)), 0);
	ck_assert_int_eq(g.first_error, 0);
	close(fd);
}

/* ---- a background wait that is cancelled ---- */

static int cancel_and_join(void *arg)
{
	struct group *background = arg;

	ck_assert_int_eq(io_sleep_until(r, deadline_after_ns(NS_PER_MS)), 0);
	group_cancel(background);
	return group_join(background) == -ECANCELED ? 0 : group_join(background);
}

TEST(test_cancelled_background_wait_is_no_deadlock)
{
	struct group background;
	int fd = eventfd(0, EFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	group_init(&background, &r->sched, "background");
	ck_assert_int_eq(group_spawn_background(&background, "waiter", wait_for_fd, &fd), 0);
	ck_assert_int_eq(group_spawn(&g, "joiner", cancel_and_join, &background), 0);
	ck_assert_int_eq(reactor_run(r, &g, deadline_after_ns(20 * NS_PER_S)), 0);
	close(fd);
}
