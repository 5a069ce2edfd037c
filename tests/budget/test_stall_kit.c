/* The kit sees a coroutine that takes too long, and turn.h keeps its users from doing so. */
#include "tests/support/check_main.h"
#include "tests/support/stall.h"

#include <stdio.h>
#include <string.h>

#include "coroutine/group.h"
#include "coroutine/reactor.h"
#include "coroutine/ring.h"
#include "coroutine/turn.h"

#define WORKERS 5u

static struct reactor *reactor;
static struct group group;

static void burn(uint64_t ns)
{
	uint64_t end_ns = stall_cpu_ns() + ns;

	while (stall_cpu_ns() < end_ns)
		;
}

static int hog(void *arg)
{
	(void)arg;
	burn(15 * NS_PER_MS);
	return 0;
}

/* 30 ms of work in steps of 50 us. */
static int considerate(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 600; i++) {
		burn(50000);
		ck_assert_int_eq(turn_spend(&reactor->sched, TURN_LOOK), 0);
	}
	return 0;
}

static struct stall run(co_fn *fn, unsigned count)
{
	struct stall seen;

	ck_assert_int_eq(reactor_new(&reactor, &ring_uring, 0), 0);
	group_init(&group, &reactor->sched, "workers");
	for (unsigned i = 0; i < count; i++)
		ck_assert_int_eq(group_spawn(&group, i == 0 ? "the first" : "another", fn, NULL), 0);
	stall_begin();
	ck_assert_int_eq(reactor_run(reactor, &group, DEADLINE_NEVER), 0);
	stall_end(&seen);
	reactor_free(reactor);
	return seen;
}

TEST_CASE("kit", 60);

TEST(test_a_coroutine_that_does_not_yield_is_seen_and_named)
{
	struct stall seen = run(hog, 1);

	ck_assert_uint_ge(seen.turn_ns, 15 * NS_PER_MS);
	ck_assert_uint_ge(seen.round_ns, seen.turn_ns);
	ck_assert_str_eq(seen.turn_of, "the first");
	ck_assert_uint_ge(seen.cpu_ns, 15 * NS_PER_MS);
}

TEST(test_work_that_spends_its_turn_stays_inside_the_budget)
{
	struct stall seen;

	stall_need_figures();
	seen = run(considerate, 1);
	stall_check(&seen, "one that yields");
	seen = run(considerate, WORKERS);
	stall_check(&seen, "five that yield");
}

/* The embedder's own loop waits, too. */
TEST(test_a_dispatch_ends_although_there_is_more_to_do)
{
	uint64_t began_ns, took_ns, worst_ns = 0;
	unsigned dispatches = 0;

	stall_need_figures();
	ck_assert_int_eq(reactor_new(&reactor, &ring_uring, 0), 0);
	group_init(&group, &reactor->sched, "workers");
	for (unsigned i = 0; i < WORKERS; i++)
		ck_assert_int_eq(group_spawn(&group, "one of many", considerate, NULL), 0);
	while (!group_empty(&group)) {
		began_ns = stall_cpu_ns();
		ck_assert_int_eq(reactor_dispatch(reactor), 0);
		took_ns = stall_cpu_ns() - began_ns;
		worst_ns = took_ns > worst_ns ? took_ns : worst_ns;
		dispatches++;
	}
	reactor_free(reactor);
	printf("%u dispatches, the longest %.2f ms\n", dispatches, (double)worst_ns / 1e6);
	ck_assert_uint_gt(dispatches, 5);
	ck_assert_uint_le(worst_ns, 2 * STALL_BUDGET_NS);
}
