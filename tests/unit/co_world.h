/*
 * co_world.h - what the tests of coroutine/ share
 *
 * A world without a ring: one scheduler, one group, and a clock that the test moves by hand, so that "the deadline and
 * the wake-up in the same turn" is a line of code and not a race.
 */
#ifndef TESTS_UNIT_CO_WORLD_H
#define TESTS_UNIT_CO_WORLD_H

#include "base/clock.h"
#include "coroutine/co.h"
#include "coroutine/group.h"

#include <check.h>
#include <stdint.h>

struct co_world {
	struct sched sched;
	struct group group;
	uint64_t now_ns;
};

static inline void world_init(struct co_world *w)
{
	sched_init(&w->sched, STACK_BYTES_DEFAULT, 16);
	group_init(&w->group, &w->sched, "test");
	w->now_ns = 1;
}

static inline void world_fini(struct co_world *w)
{
	ck_assert_uint_eq(w->sched.count, 0);
	sched_fini(&w->sched);
}

/* The child spawned last is the last in the group's list. */
static inline struct co *world_spawn(struct co_world *w, co_fn *fn, void *arg)
{
	ck_assert_int_eq(group_spawn(&w->group, "child", fn, arg), 0);
	return container_of(w->group.children.prev, struct co, sibling);
}

/* Until nobody is ready. */
static inline void world_settle(struct co_world *w)
{
	while (sched_has_ready(&w->sched))
		sched_run_ready(&w->sched);
}

static inline void world_advance(struct co_world *w, uint64_t now_ns)
{
	w->now_ns = now_ns;
	sched_fire_timers(&w->sched, now_ns);
}

#endif
