#include "base/clock.h"
#include "coroutine/group.h"
#include "coroutine/wait.h"
#include "tests/support/check_main.h"
#include "tests/unit/co_world.h"

#include <errno.h>

static struct co_world w;
static struct event never, go;

static void setup(void)
{
	world_init(&w);
	event_init(&never, &w.sched, "never");
	event_init(&go, &w.sched, "go");
}

static void teardown(void)
{
	world_fini(&w);
}

/* A child: waits for `go`, cleans up slowly if cancelled, and ends with what it was told to. */
struct child {
	int result; /* when `go` came */
	int result_cancelled;
	bool go_first; /* does not wait */
	bool ended;
};

static int child(void *arg)
{
	struct child *c = arg;
	int r = c->go_first ? 0 : event_wait(&go, DEADLINE_NEVER);

	for (int i = 0; r == -ECANCELED && i < 3; i++)
		ck_assert_int_eq(co_yield(&w.sched), 0); /* clean-up parks, undisturbed */
	c->ended = true;
	return r == -ECANCELED ? c->result_cancelled : c->result;
}

/* A parent: opens a group with children, joins it, and then parks once more. */
struct parent {
	struct group group;
	struct child children[3];
	int children_count;
	int joined, after;
	bool cancel_group;
	struct child late;
	int late_spawned;
};

static int parent(void *arg)
{
	struct parent *p = arg;

	group_init(&p->group, &w.sched, "inner");
	for (int i = 0; i < p->children_count; i++)
		ck_assert_int_eq(group_spawn(&p->group, "inner child", child, &p->children[i]), 0);
	if (p->cancel_group)
		group_cancel(&p->group);
	p->joined = group_join(&p->group);
	for (int i = 0; i < p->children_count; i++)
		ck_assert(p->children[i].ended);
	ck_assert(group_empty(&p->group));
	p->late_spawned = group_spawn(&p->group, "late", child, &p->late);
	p->after = p->late_spawned == 0 ? group_join(&p->group) : 0;
	if (p->after == 0)
		p->after = co_yield(&w.sched);
	return 0;
}

static struct parent with_children(int n)
{
	struct parent p = { .children_count = n, .joined = 99, .after = 99, .late = { .go_first = true } };

	for (int i = 0; i < n; i++)
		p.children[i].result_cancelled = -ECANCELED;
	return p;
}

TEST_CASE("group", 60, .checked = { setup, teardown });

TEST(test_group_join_of_none_does_not_park)
{
	struct parent p = with_children(0);

	world_spawn(&w, parent, &p);
	world_settle(&w);
	ck_assert_int_eq(p.joined, 0);
	ck_assert_int_eq(p.late_spawned, 0); /* and the group can be used again */
}

TEST(test_group_join_waits_for_every_child)
{
	struct parent p = with_children(3);

	p.children[0].go_first = true;
	world_spawn(&w, parent, &p);
	world_settle(&w);
	ck_assert_int_eq(p.joined, 99);
	event_set(&go);
	world_settle(&w);
	ck_assert_int_eq(p.joined, 0);
}

TEST(test_group_first_error_is_kept_and_cancels_the_siblings)
{
	struct parent p = with_children(3);

	p.children[1].go_first = true;
	p.children[1].result = -EIO;
	p.children[2].result_cancelled = -EPIPE;
	world_spawn(&w, parent, &p);
	world_settle(&w);
	ck_assert_int_eq(p.joined, -EIO);
	ck_assert_int_eq(p.late_spawned, -ECANCELED); /* nothing starts in a group that is cancelled */
	ck_assert_int_eq(p.after, 0);
}

TEST(test_group_cancelled_on_purpose_is_no_error)
{
	struct parent p = with_children(2);

	p.cancel_group = true;
	world_spawn(&w, parent, &p);
	world_settle(&w);
	ck_assert_int_eq(p.joined, 0);
	ck_assert_int_eq(p.late_spawned, -ECANCELED);
}

TEST(test_group_error_displaces_a_cancel_that_nobody_asked_for)
{
	struct parent p = with_children(2);

	p.children[0].go_first = true;
	p.children[0].result = -ECANCELED; /* of something below it; the group was not cancelled */
	p.children[1].result_cancelled = -EIO;
	world_spawn(&w, parent, &p);
	world_settle(&w);
	ck_assert_int_eq(p.joined, -EIO);
}

TEST(test_group_cancel_that_nobody_asked_for_is_an_error_when_alone)
{
	struct parent p = with_children(2);

	p.children[0].go_first = true;
	p.children[0].result = -ECANCELED;
	world_spawn(&w, parent, &p);
	world_settle(&w);
	ck_assert_int_eq(p.joined, -ECANCELED);
}

TEST(test_group_cancel_of_the_joiner_reaches_the_children_and_joins_them)
{
	struct parent p = with_children(3);
	struct co *co = world_spawn(&w, parent, &p);

	world_settle(&w);
	co_cancel(co);
	world_settle(&w);
	ck_assert_int_eq(p.joined, -ECANCELED);
	ck_assert_int_eq(p.after, 0); /* delivered, so not pending */
}

TEST(test_group_cancel_pending_before_the_join_is_passed_on)
{
	struct parent p = with_children(2);
	struct co *co = world_spawn(&w, parent, &p);

	co_cancel(co);
	world_settle(&w);
	ck_assert_int_eq(p.joined, -ECANCELED);
}

TEST(test_group_cancel_of_the_joiner_is_not_lost_behind_a_childs_error)
{
	struct parent p = with_children(2);
	struct co *co = world_spawn(&w, parent, &p);

	p.children[0].result_cancelled = -EIO;
	world_settle(&w);
	co_cancel(co);
	world_settle(&w);
	ck_assert_int_eq(p.joined, -EIO);
	ck_assert_int_eq(p.after, -ECANCELED);
}

TEST(test_group_child_fails_in_the_turn_in_which_the_joiner_is_cancelled)
{
	struct parent p = with_children(2);
	struct co *co = world_spawn(&w, parent, &p);

	p.children[0].result = -EIO;
	world_settle(&w);
	event_set(&go);
	co_cancel(co);
	world_settle(&w);
	ck_assert_int_eq(p.joined, -EIO);
	ck_assert_int_eq(p.after, -ECANCELED);
}

TEST(test_group_cancel_after_the_last_end_is_delivered_later)
{
	struct parent p = with_children(1);
	struct co *co = world_spawn(&w, parent, &p);

	world_settle(&w);
	event_set(&go);
	sched_run_ready(&w.sched); /* the child ends and makes the joiner ready */
	ck_assert_int_eq(p.joined, 99);
	co_cancel(co);
	world_settle(&w);
	ck_assert_int_eq(p.joined, 0);
	ck_assert_int_eq(p.after, -ECANCELED);
}

/* ---- children of children, and children that grow ---- */

static int nests(void *arg)
{
	struct parent *p = arg;

	return parent(p) < 0 ? -EIO : p->joined;
}

TEST(test_group_cancel_goes_down_through_nested_groups)
{
	struct parent p = with_children(3);
	struct group outer;

	group_init(&outer, &w.sched, "outer");
	ck_assert_int_eq(group_spawn(&outer, "nests", nests, &p), 0);
	world_settle(&w);
	group_cancel(&outer);
	group_cancel(&outer); /* once is all */
	world_settle(&w);
	ck_assert(group_empty(&outer));
	ck_assert_int_eq(p.joined, -ECANCELED);
	ck_assert_int_eq(p.after, 0);
	ck_assert_int_eq(outer.first_error, 0);
}

static struct group growing;
static int grown;

static int grows(void *arg)
{
	int depth = *(int *)arg;

	grown++;
	if (depth > 0) {
		--*(int *)arg;
		ck_assert_int_eq(group_spawn(&growing, "next", grows, arg), 0);
	}
	return 0;
}

static int joins_growing(void *arg)
{
	group_init(&growing, &w.sched, "growing");
	ck_assert_int_eq(group_spawn(&growing, "first", grows, arg), 0);
	ck_assert_int_eq(group_join(&growing), 0);
	return grown == 51 ? 0 : -EIO;
}

TEST(test_group_child_may_spawn_a_sibling_as_its_last_act)
{
	int depth = 50;

	world_spawn(&w, joins_growing, &depth);
	world_settle(&w);
	ck_assert_int_eq(grown, 51);
	ck_assert_int_eq(w.group.first_error, 0);
}

static int cancels_own_group(void *arg)
{
	struct group *g = arg;

	group_cancel(g);
	ck_assert_int_eq(group_spawn(g, "no", cancels_own_group, g), -ECANCELED);
	ck_assert_int_eq(co_yield(&w.sched), -ECANCELED);
	return 0;
}

TEST(test_group_cancelled_by_a_child_reaches_that_child_too)
{
	struct group g;
	struct child c = { .result_cancelled = -ECANCELED };

	group_init(&g, &w.sched, "own");
	ck_assert_int_eq(group_spawn(&g, "child", child, &c), 0);
	ck_assert_int_eq(group_spawn(&g, "canceller", cancels_own_group, &g), 0);
	world_settle(&w);
	ck_assert(group_empty(&g));
	ck_assert(c.ended);
	ck_assert_int_eq(g.first_error, 0);
}
