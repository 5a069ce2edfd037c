#include "base/clock.h"
#include "coroutine/co.h"
#include "tests/support/check_main.h"
#include "tests/unit/co_world.h"

#include <errno.h>
#include <string.h>

static struct co_world w;
static char trace[256];

static void setup(void)
{
	world_init(&w);
	trace[0] = '\0';
}

static void teardown(void)
{
	world_fini(&w);
}

static void note(const char *what)
{
	strncat(trace, what, sizeof(trace) - strlen(trace) - 1);
}

/* ---- turns ---- */

static int yields_twice(void *arg)
{
	const char *name = arg;

	for (int i = 0; i < 3; i++) {
		note(name);
		if (i < 2)
			ck_assert_int_eq(co_yield(&w.sched), 0);
	}
	return 0;
}

TEST_CASE("co", 60, .checked = { setup, teardown });

TEST(test_co_ready_queue_is_first_in_first_out)
{
	world_spawn(&w, yields_twice, "a");
	world_spawn(&w, yields_twice, "b");
	world_spawn(&w, yields_twice, "c");
	world_settle(&w);
	ck_assert_str_eq(trace, "abcabcabc");
}

TEST(test_co_one_turn_runs_each_ready_coroutine_once)
{
	world_spawn(&w, yields_twice, "a");
	world_spawn(&w, yields_twice, "b");
	sched_run_ready(&w.sched);
	ck_assert_str_eq(trace, "ab");
	sched_run_ready(&w.sched);
	ck_assert_str_eq(trace, "abab");
	world_settle(&w);
}

static int spawns(void *arg)
{
	note("p");
	world_spawn(&w, arg, "x");
	note("q");
	return 0;
}

TEST(test_co_spawned_by_a_coroutine_runs_in_the_next_turn)
{
	world_spawn(&w, spawns, yields_twice);
	sched_run_ready(&w.sched);
	ck_assert_str_eq(trace, "pq");
	world_settle(&w);
	ck_assert_str_eq(trace, "pqxxx");
}

/* ---- parking, waking, deadlines ---- */

struct parker {
	struct list list;
	uint64_t deadline_ns;
	int result[4];
	int parks;
	int uninterruptible_parks; /* after the first */
};

static int parks(void *arg)
{
	struct parker *p = arg;

	for (int i = 0; i < p->parks; i++) {
		if (i > 0 && i <= p->uninterruptible_parks)
			p->result[i] = co_park_uninterruptible(&w.sched, "test", "kernel");
		else
			p->result[i] = co_park(&w.sched, &p->list, p->deadline_ns, "test", "list");
	}
	return 0;
}

static struct co *spawn_parker(struct parker *p, int n)
{
	*p = (struct parker){ .parks = n, .deadline_ns = DEADLINE_NEVER, .result = { 99, 99, 99, 99 } };
	list_init(&p->list);
	return world_spawn(&w, parks, p);
}

TEST(test_co_park_returns_what_wake_gave_and_leaves_the_list)
{
	struct parker p;
	struct co *co = spawn_parker(&p, 1);

	world_settle(&w);
	ck_assert(!list_empty(&p.list));
	ck_assert_str_eq(co->wait_kind, "test");
	ck_assert_str_eq(co->wait_name, "list");
	co_wake(co, 7);
	ck_assert(list_empty(&p.list));
	ck_assert_int_eq(p.result[0], 99); /* waking only makes ready */
	world_settle(&w);
	ck_assert_int_eq(p.result[0], 7);
}

TEST(test_co_deadline_is_honoured_at_its_nanosecond_and_not_before)
{
	struct parker p;

	spawn_parker(&p, 1);
	p.deadline_ns = 1000;
	world_settle(&w);
	world_advance(&w, 999);
	ck_assert(!sched_has_ready(&w.sched));
	world_advance(&w, 1000);
	ck_assert(list_empty(&p.list));
	world_settle(&w);
	ck_assert_int_eq(p.result[0], -ETIMEDOUT);
}

TEST(test_co_a_wake_disarms_the_deadline)
{
	struct parker p;
	struct co *co = spawn_parker(&p, 2);

	p.deadline_ns = 1000;
	world_settle(&w);
	co_wake(co, 0);
	world_advance(&w, 2000); /* same turn: the wake came first */
	p.deadline_ns = DEADLINE_NEVER;
	world_settle(&w);
	ck_assert_int_eq(p.result[0], 0);
	ck_assert_int_eq(co->state, CO_PARKED); /* and the second park is not disturbed by the first one's deadline */
	world_advance(&w, 3000);
	ck_assert(!sched_has_ready(&w.sched));
	co_wake(co, 1);
	world_settle(&w);
	ck_assert_int_eq(p.result[1], 1);
}

/* ---- cancel: once, never lost ---- */

TEST(test_co_cancel_interrupts_a_park_once)
{
	struct parker p;
	struct co *co = spawn_parker(&p, 2);

	world_settle(&w);
	co_cancel(co);
	ck_assert(list_empty(&p.list));
	world_settle(&w);
	ck_assert_int_eq(p.result[0], -ECANCELED);
	ck_assert_int_eq(co->state, CO_PARKED);
	co_wake(co, 0);
	world_settle(&w);
	ck_assert_int_eq(p.result[1], 0);
}

TEST(test_co_cancel_before_the_first_turn_waits_for_the_first_park)
{
	struct parker p;
	struct co *co = spawn_parker(&p, 2);

	co_cancel(co);
	co_cancel(co); /* one that was not delivered is one */
	world_settle(&w);
	ck_assert_int_eq(p.result[0], -ECANCELED);
	co_wake(co, 0);
	world_settle(&w);
	ck_assert_int_eq(p.result[1], 0);
}

TEST(test_co_woken_then_cancelled_in_one_turn_gets_both)
{
	struct parker p;
	struct co *co = spawn_parker(&p, 3);

	world_settle(&w);
	co_wake(co, 5);
	co_cancel(co);
	world_settle(&w);
	ck_assert_int_eq(p.result[0], 5);
	ck_assert_int_eq(p.result[1], -ECANCELED);
	ck_assert_int_eq(co->state, CO_PARKED);
	co_wake(co, 0);
	world_settle(&w);
}

TEST(test_co_two_cancels_of_one_park_are_one)
{
	struct parker p;
	struct co *co = spawn_parker(&p, 2);

	world_settle(&w);
	co_cancel(co);
	co_cancel(co);
	world_settle(&w);
	ck_assert_int_eq(p.result[0], -ECANCELED);
	ck_assert_msg(co->state == CO_PARKED, "clean-up code was interrupted by the same cancel");
	/* Delivered, so the next one is a new one. */
	co_cancel(co);
	world_settle(&w);
	ck_assert_int_eq(p.result[1], -ECANCELED);
}

TEST(test_co_timed_out_then_cancelled_in_one_turn_gets_both)
{
	struct parker p;
	struct co *co = spawn_parker(&p, 2);

	p.deadline_ns = 10;
	world_settle(&w);
	world_advance(&w, 10);
	co_cancel(co);
	world_settle(&w);
	ck_assert_int_eq(p.result[0], -ETIMEDOUT);
	ck_assert_int_eq(p.result[1], -ECANCELED);
}

TEST(test_co_cancel_waits_for_the_end_of_an_uninterruptible_park)
{
	struct parker p;
	struct co *co = spawn_parker(&p, 4);

	p.uninterruptible_parks = 1;
	world_settle(&w);
	co_wake(co, 0);
	world_settle(&w);
	co_cancel(co);
	world_settle(&w);
	ck_assert_int_eq(p.result[1], 99);
	co_wake(co, 0);
	world_settle(&w);
	ck_assert_int_eq(p.result[1], 0);
	ck_assert_int_eq(p.result[2], -ECANCELED);
	co_wake(co, 0);
	world_settle(&w);
	ck_assert_int_eq(p.result[3], 0);
}

static int yields_until_cancelled(void *arg)
{
	int *yields = arg, r;

	while ((r = co_yield(&w.sched)) == 0)
		++*yields;
	ck_assert_int_eq(r, -ECANCELED);
	ck_assert_int_eq(co_yield(&w.sched), 0); /* consumed */
	co_cancel_again(&w.sched);
	ck_assert_int_eq(co_yield(&w.sched), -ECANCELED);
	ck_assert_int_eq(co_yield(&w.sched), 0);
	return 0;
}

TEST(test_co_cancel_reaches_one_that_only_yields)
{
	int yields = 0;
	struct co *co = world_spawn(&w, yields_until_cancelled, &yields);

	for (int i = 0; i < 10; i++)
		sched_run_ready(&w.sched);
	ck_assert_int_eq(yields, 9);
	co_cancel(co);
	world_settle(&w);
}

/* ---- life and death ---- */

static int ends(void *arg)
{
	++*(int *)arg;
	return 0;
}

TEST(test_co_stacks_are_used_again)
{
	int count = 0;

	for (int i = 0; i < 1000; i++) {
		world_spawn(&w, ends, &count);
		sched_run_ready(&w.sched);
	}
	ck_assert_int_eq(count, 1000);
	ck_assert_uint_le(w.sched.stacks.in_use_max, 2); /* the one that ended last is buried by the next one */
}

TEST(test_co_thousands_at_a_time)
{
	const int n = 5000; /* the thread sanitizer has room for 8000 */
	int count = 0;

	for (int i = 0; i < n; i++)
		world_spawn(&w, ends, &count);
	ck_assert_uint_eq(w.sched.count, (size_t)n);
	world_settle(&w);
	ck_assert_int_eq(count, n);
	ck_assert_uint_eq(w.sched.count, 0);
	ck_assert_uint_le(w.sched.stacks.idle_count, 16);
}
