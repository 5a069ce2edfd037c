#include "engine/owner.h"

#include "tests/support/check_main.h"

#define P OWNER_PLEDGING
#define S OWNER_SOURCE
#define H OWNER_SPLIT
#define O OWNER_OURS
#define G OWNER_GIVEN_UP

/* Each edge of owner.h, and no other. */
static const struct edge {
	enum owner_state from, to;
} edges[] = {
	{ S, P }, { P, S }, { P, H }, { P, O }, { S, H }, { S, O }, { H, O }, { H, G },
};

#define EDGES (sizeof(edges) / sizeof(edges[0]))

static bool is_edge(enum owner_state from, enum owner_state to)
{
	for (size_t i = 0; i < EDGES; i++)
		if (edges[i].from == from && edges[i].to == to)
			return true;
	return false;
}

TEST_CASE("owner", 4);

TEST(test_owner_changes_along_the_edges_and_no_others)
{
	for (unsigned from = 0; from < OWNER_STATE_COUNT; from++)
		for (unsigned to = 0; to < OWNER_STATE_COUNT; to++)
			ck_assert_msg(owner_may_change(from, to) == is_edge(from, to), "%s -> %s", owner_name(from),
			              owner_name(to));
}

TEST_ABORTS(test_owner_set_stops_at_a_change_that_is_none)
{
	struct owner o = { .state = OWNER_OURS };

	owner_set(&o, OWNER_SOURCE);
}

/* What may be done in each state, before and after the vCPUs have started. */
static const struct row {
	enum owner_state state;
	bool runs, may_pause, may_end, may_cancel, may_return;
} rows[] = {
	{ .state = S, .may_end = true, .may_cancel = true, .may_return = true },
	{ .state = P, .may_return = true },
	{ .state = H, .may_pause = true, .may_cancel = true, .may_return = true },
	{ .state = H, .runs = true, .may_pause = true, .may_cancel = true },
	{ .state = O },
	{ .state = O, .runs = true },
	{ .state = G, .may_end = true, .may_cancel = true, .may_return = true },
	{ .state = G, .runs = true, .may_end = true, .may_cancel = true },
};

TEST_ROWS(test_owner_answers_what_may_be_done, rows)
{
	const struct row *row = &rows[_i];
	const struct owner o = { .state = row->state, .runs = row->runs };
	const char *name = owner_name(row->state);

	ck_assert_msg(owner_may_pause(&o) == row->may_pause, "%s: pause", name);
	ck_assert_msg(owner_may_end(&o) == row->may_end, "%s: end", name);
	ck_assert_msg(owner_may_cancel(&o) == row->may_cancel, "%s: cancel", name);
	ck_assert_msg(owner_may_return(&o) == row->may_return, "%s: return", name);
}

TEST_RANGE(test_owner_runs_where_the_guest_is_not_the_sources, OWNER_SPLIT, OWNER_OURS + 1)
{
	struct owner o = { .state = _i };

	owner_runs(&o, 7);
	ck_assert(o.runs);
	ck_assert_uint_eq(o.runs_ns, 7);
}

TEST_AGAIN_ABORTS(test_owner_runs_where_the_guest_is_not_the_sources, OWNER_SOURCE, OWNER_PLEDGING + 1);

TEST_ABORTS(test_owner_runs_once)
{
	struct owner o = { .state = OWNER_SPLIT, .runs = true };

	owner_runs(&o, 7);
}
