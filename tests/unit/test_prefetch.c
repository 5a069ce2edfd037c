/* postcopy/prefetch.h: where a thread goes that has touched these units, one after the other. */
#include "postcopy/prefetch.h"
#include "tests/support/check_main.h"

#include <stdlib.h>

#define UNITS 100000u

/* What stands for a block. */
static const char here, there;

static struct prefetch p;
static struct walk w;
static size_t asked[64];
static size_t asked_count;

static void begin(void)
{
	p = (struct prefetch){ 0 };
	w = (struct walk){ 0 };
}

/* The thread touches @unit; all that may be asked for ahead is. */
static void touch_in(const char *block, size_t unit, size_t units)
{
	size_t next, again;

	prefetch_learn(&p, &w, block, unit);
	asked_count = 0;
	while (prefetch_next(&w, units, &next)) {
		ck_assert_uint_lt(asked_count, sizeof(asked) / sizeof(asked[0]));
		ck_assert(prefetch_next(&w, units, &again));
		ck_assert_uint_eq(again, next);
		asked[asked_count++] = next;
		prefetch_note(&w, next, true);
	}
}

static void touch(size_t unit)
{
	touch_in(&here, unit, UNITS);
}

static void assert_asked(size_t first, long stride, size_t count)
{
	ck_assert_uint_eq(asked_count, count);
	for (size_t i = 0; i < count; i++)
		ck_assert_uint_eq(asked[i], first + i * (size_t)stride);
}

TEST_CASE("prefetch", 10, .checked = { begin, NULL });

static const long strides[] = { 1, -1, 2, -2, 7, -100, 1024, -1024 };

TEST_ROWS(test_two_equal_distances_are_a_walk_up_or_down, strides)
{
	long s = strides[_i];
	size_t unit = UNITS / 2;

	touch(unit);
	ck_assert_uint_eq(asked_count, 0);
	touch(unit += (size_t)s);
	ck_assert_uint_eq(asked_count, 0);
	touch(unit += (size_t)s);
	assert_asked(unit + (size_t)s, s, 4);
}

/* Each time up to twice as far from where the thread is, and nothing twice. */
TEST_ROWS(test_each_right_guess_doubles_how_far_is_asked, strides)
{
	static const long depths[] = { 4, 8, 16, 32, 32, 32 };
	long s = strides[_i];
	size_t unit = UNITS / 2, next;

	touch(unit);
	touch(unit += (size_t)s);
	next = unit + 2 * (size_t)s;
	for (size_t i = 0; i < sizeof(depths) / sizeof(depths[0]); i++) {
		size_t end, count;

		touch(unit += (size_t)s);
		end = unit + (size_t)(depths[i] * s);
		count = (size_t)(((long)end - (long)next) / s + 1);
		assert_asked(next, s, count);
		next = end + (size_t)s;
	}
}

static const struct way {
	const char *what;
	size_t units[8];
	size_t count;
} no_walks[] = {
	{ "one touch", { 500 }, 1 },
	{ "two touches", { 500, 501 }, 2 },
	{ "different distances", { 500, 501, 503, 506, 510 }, 5 },
	{ "there and back", { 500, 501, 500, 501, 500, 501 }, 6 },
	{ "the same unit", { 500, 500, 500, 500 }, 4 },
	{ "too far apart", { 500, 1525, 2550, 3575, 4600 }, 5 },
	{ "too far apart, downward", { 9500, 8475, 7450, 6425 }, 4 },
};

TEST_ROWS(test_what_is_no_walk_asks_for_nothing, no_walks)
{
	const struct way *way = &no_walks[_i];

	for (size_t i = 0; i < way->count; i++) {
		touch(way->units[i]);
		ck_assert_msg(asked_count == 0, "%s: after %zu", way->what, way->units[i]);
	}
	ck_assert_uint_eq(p.hits + p.waste, 0);
}

static void walk_from(size_t unit, size_t steps)
{
	for (size_t i = 0; i < steps; i++)
		touch(unit + i);
}

/* 100 to 102, and 103 to 106 asked for. */
static const struct next_touch {
	const char *what;
	const char *block;
	size_t unit;
	bool right;
} next_touches[] = {
	{ "the next step", &here, 103, true },
	{ "a later step", &here, 105, true },
	{ "the last one asked for", &here, 106, true },
	{ "right after it", &here, 107, true },
	{ "beyond it", &here, 108, false },
	{ "back", &here, 101, false },
	{ "the same again", &here, 102, false },
	{ "far away", &here, 90000, false },
	{ "in another block", &there, 103, false },
};

TEST_ROWS(test_a_guess_is_right_up_to_one_step_after_what_was_asked, next_touches)
{
	const struct next_touch *t = &next_touches[_i];

	walk_from(100, 3);
	assert_asked(103, 1, 4);
	touch_in(t->block, t->unit, UNITS);
	ck_assert_msg(p.hits == (t->right ? 4 : 0) && p.waste == (t->right ? 0 : 4), "%s: %llu hits, %llu waste",
	              t->what, (unsigned long long)p.hits, (unsigned long long)p.waste);
	ck_assert_msg((asked_count > 0) == t->right, "%s: %zu asked for", t->what, asked_count);
}

TEST(test_after_a_wrong_guess_it_begins_anew)
{
	walk_from(100, 10);
	touch(5000);
	ck_assert_uint_eq(asked_count, 0);
	touch(5001);
	ck_assert_uint_eq(asked_count, 0);
	touch(5002);
	assert_asked(5003, 1, 4);
}

TEST(test_the_same_units_of_another_block_are_another_walk)
{
	walk_from(100, 2);
	touch_in(&there, 102, UNITS);
	touch_in(&there, 103, UNITS);
	ck_assert_uint_eq(asked_count, 0);
	touch_in(&there, 104, UNITS);
	assert_asked(105, 1, 4);
}

TEST(test_nothing_is_asked_after_the_last_unit_of_a_block)
{
	for (size_t unit = 10; unit < 16; unit++)
		touch_in(&here, unit, 16);
	ck_assert_uint_eq(asked_count, 0);
	begin();
	touch_in(&here, 10, 16);
	touch_in(&here, 11, 16);
	touch_in(&here, 12, 16);
	assert_asked(13, 1, 3);
}

TEST(test_nothing_is_asked_before_the_first_unit_of_a_block)
{
	touch(7);
	touch(5);
	touch(3);
	assert_asked(1, -2, 1);
	touch(1);
	ck_assert_uint_eq(asked_count, 0);
}

/* What is here already, or was asked for by somebody else, is no guess of ours. */
TEST(test_only_what_was_asked_for_is_a_hit_or_waste)
{
	size_t next;

	for (size_t unit = 100; unit < 103; unit++)
		prefetch_learn(&p, &w, &here, unit);
	for (unsigned i = 0; prefetch_next(&w, UNITS, &next); i++)
		prefetch_note(&w, next, i == 1);
	prefetch_learn(&p, &w, &here, 103);
	ck_assert_uint_eq(p.hits, 1);
	for (unsigned i = 0; prefetch_next(&w, UNITS, &next); i++)
		prefetch_note(&w, next, i < 3);
	prefetch_learn(&p, &w, &here, 50000);
	ck_assert_uint_eq(p.hits, 1);
	ck_assert_uint_eq(p.waste, 3);
}

/* So somebody may stop for want of room, and go on another time. */
TEST(test_what_was_not_dealt_with_comes_next_time)
{
	size_t next;

	for (size_t unit = 100; unit < 103; unit++)
		prefetch_learn(&p, &w, &here, unit);
	ck_assert(prefetch_next(&w, UNITS, &next));
	prefetch_note(&w, next, true);
	prefetch_learn(&p, &w, &here, 103);
	ck_assert(prefetch_next(&w, UNITS, &next));
	ck_assert_uint_eq(next, 104);
}

TEST(test_who_walks_upward_in_single_steps_goes_on_to_what_is_after)
{
	ck_assert(!prefetch_walks(&w, &here, 100));
	touch(100);
	touch(101);
	ck_assert(prefetch_walks(&w, &here, 102));
	ck_assert(!prefetch_walks(&w, &here, 104));
	ck_assert(!prefetch_walks(&w, &here, 100));
	ck_assert(!prefetch_walks(&w, &there, 102));
	begin();
	touch(100);
	touch(102);
	ck_assert(!prefetch_walks(&w, &here, 104));
	begin();
	touch(100);
	touch(99);
	ck_assert(!prefetch_walks(&w, &here, 98));
}

/* Whatever a thread does: no unit that the block does not have, and never more than the depth from where it is. */
TEST_EACH(test_no_way_leads_out_of_the_block_or_too_far, 8)
{
	unsigned seed = (unsigned)_i + 1;
	size_t unit = 50, units = 101;
	long s = 0;

	for (unsigned i = 0; i < 20000; i++) {
		if (rand_r(&seed) % 8 == 0)
			s = (long)(rand_r(&seed) % 11) - 5;
		if (s == 0 || (s < 0 && unit < (size_t)-s) || unit + (size_t)s >= units)
			unit = (size_t)rand_r(&seed) % units;
		else
			unit += (size_t)s;
		touch_in(rand_r(&seed) % 100 ? &here : &there, unit, units);
		ck_assert_uint_le(asked_count, PREFETCH_DEPTH_MAX);
		for (size_t k = 0; k < asked_count; k++)
			if (asked[k] >= units || asked[k] == unit)
				ck_abort_msg("from %zu on: %zu", unit, asked[k]);
	}
	ck_assert_uint_gt(p.hits, 0);
	ck_assert_uint_gt(p.waste, 0);
}
