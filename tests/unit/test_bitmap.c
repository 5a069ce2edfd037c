/* base/bitmap.h, with three words and a bit, which has every kind of border. */
#include "base/bitmap.h"
#include "tests/support/check_main.h"

#include <errno.h>
#include <stdlib.h>

enum { NBITS = 3 * 64 + 1 };

static struct bitmap bm;

static void bitmap_setup(void)
{
	ck_assert_int_eq(bitmap_init(&bm, NBITS), 0);
}

static void bitmap_teardown(void)
{
	bitmap_fini(&bm);
}

/* Exactly [first, first + count) is @value, all else is not. */
static void assert_only(size_t first, size_t count, bool value)
{
	for (size_t i = 0; i < NBITS; i++) {
		bool inside = i >= first && i - first < count;

		/* Not an assertion for each bit: Check does some work for every one it sees. */
		if (bitmap_test(&bm, i) != (inside ? value : !value))
			ck_abort_msg("bit %zu after range %zu+%zu", i, first, count);
	}
}

/* Also of bits in the last word that are nobody's. */
static size_t count_set(void)
{
	size_t n = 0;

	for (size_t i = 0; i <= NBITS / 64; i++)
		n += (size_t)__builtin_popcountll(bm.words[i]);
	return n;
}

TEST_CASE("bitmap", 4, .checked = { bitmap_setup, bitmap_teardown });

TEST(test_bitmap_begins_clear)
{
	ck_assert_uint_eq(count_set(), 0);
	ck_assert_uint_eq(bitmap_find_set(&bm, 0), NBITS);
	ck_assert_uint_eq(bitmap_find_clear(&bm, 0), 0);
}

TEST(test_bitmap_set_and_clear_touch_one_bit)
{
	for (size_t i = 0; i < NBITS; i++) {
		bitmap_set(&bm, i);
		assert_only(i, 1, true);
		bitmap_clear(&bm, i);
		ck_assert_uint_eq(count_set(), 0);
	}
}

TEST(test_bitmap_set_range_sets_these_and_no_others)
{
	for (size_t first = 0; first <= NBITS; first++) {
		for (size_t count = 0; count <= NBITS - first; count += count < 3 ? 1 : 13) {
			bitmap_set_range(&bm, first, count);
			assert_only(first, count, true);
			ck_assert_uint_eq(count_set(), count);
			ck_assert_uint_eq(bitmap_empty(&bm, 0, NBITS), count);
			ck_assert_uint_eq(count_set(), 0);
		}
	}
}

TEST(test_bitmap_empty_clears_these_and_no_others)
{
	for (size_t first = 0; first <= NBITS; first++) {
		for (size_t count = 0; count <= NBITS - first; count += count < 3 ? 1 : 13) {
			bitmap_set_range(&bm, 0, NBITS);
			ck_assert_uint_eq(bitmap_empty(&bm, first, count), count);
			assert_only(first, count, false);
		}
	}
}

/* Every third bit is so already. */
TEST(test_bitmap_fill_and_empty_count_what_has_changed)
{
	for (size_t first = 0; first <= NBITS; first += 5) {
		for (size_t count = 0; count <= NBITS - first; count += count < 3 ? 1 : 13) {
			size_t there = 0;

			for (size_t i = 0; i < NBITS; i += 3) {
				bitmap_set(&bm, i);
				there += i >= first && i - first < count;
			}
			ck_assert_uint_eq(bitmap_fill(&bm, first, count), count - there);
			ck_assert_uint_eq(bitmap_fill(&bm, first, count), 0);
			ck_assert_uint_eq(bitmap_empty(&bm, first, count), count);
			ck_assert_uint_eq(bitmap_empty(&bm, first, count), 0);
			ck_assert_uint_eq(count_set(), (NBITS + 2) / 3 - there);
			ck_assert_uint_eq(bitmap_empty(&bm, 0, NBITS), (NBITS + 2) / 3 - there);
		}
	}
}

TEST(test_bitmap_ranges_meet_word_borders_exactly)
{
	static const size_t ranges[][2] = { { 0, 64 },  { 64, 64 }, { 63, 1 },    { 63, 2 },   { 64, 1 },
		                            { 0, 65 },  { 1, 63 },  { 1, 127 },   { 127, 66 }, { 128, 65 },
		                            { 192, 1 }, { 191, 2 }, { 0, NBITS }, { 0, 192 } };

	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
		ck_assert_uint_eq(bitmap_fill(&bm, ranges[i][0], ranges[i][1]), ranges[i][1]);
		assert_only(ranges[i][0], ranges[i][1], true);
		ck_assert_uint_eq(bitmap_empty(&bm, ranges[i][0], ranges[i][1]), ranges[i][1]);
		ck_assert_uint_eq(count_set(), 0);
	}
}

TEST(test_bitmap_find_set_at_the_last_bit)
{
	bitmap_set(&bm, NBITS - 1);
	ck_assert_uint_eq(bitmap_find_set(&bm, 0), NBITS - 1);
	ck_assert_uint_eq(bitmap_find_set(&bm, NBITS - 1), NBITS - 1);
	ck_assert_uint_eq(bitmap_find_set(&bm, NBITS), NBITS);
}

TEST(test_bitmap_find_clear_at_the_last_bit)
{
	bitmap_set_range(&bm, 0, NBITS - 1);
	ck_assert_uint_eq(bitmap_find_clear(&bm, 0), NBITS - 1);
	ck_assert_uint_eq(bitmap_find_clear(&bm, NBITS - 1), NBITS - 1);
}

TEST(test_bitmap_find_clear_does_not_see_past_the_end)
{
	/* The last word has 63 bits that are nobody's, and clear. */
	bitmap_set_range(&bm, 0, NBITS);
	ck_assert_uint_eq(bitmap_find_clear(&bm, 0), NBITS);
	ck_assert_uint_eq(bitmap_find_clear(&bm, NBITS - 1), NBITS);
}

TEST(test_bitmap_find_starts_at_from_inclusive)
{
	bitmap_set(&bm, 10);
	bitmap_set(&bm, 64);
	bitmap_set(&bm, 130);
	ck_assert_uint_eq(bitmap_find_set(&bm, 10), 10);
	ck_assert_uint_eq(bitmap_find_set(&bm, 11), 64);
	ck_assert_uint_eq(bitmap_find_set(&bm, 64), 64);
	ck_assert_uint_eq(bitmap_find_set(&bm, 65), 130);
	ck_assert_uint_eq(bitmap_find_clear(&bm, 10), 11);
	ck_assert_uint_eq(bitmap_find_clear(&bm, 63), 63);
	ck_assert_uint_eq(bitmap_find_clear(&bm, 64), 65);
}

TEST(test_bitmap_next_looks_no_further_than_its_end)
{
	static const size_t bits[] = { 0, 1, 63, 64, 127, 128, 191, 192 };

	for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
		bitmap_empty(&bm, 0, NBITS);
		bitmap_set(&bm, bits[i]);
		for (size_t from = 0; from <= NBITS; from++)
			for (size_t end = from; end <= NBITS; end++)
				if (bitmap_next_set(&bm, from, end) !=
				    (bits[i] >= from && bits[i] < end ? bits[i] : end))
					ck_abort_msg("bit %zu from %zu to %zu", bits[i], from, end);
		bitmap_fill(&bm, 0, NBITS);
		bitmap_clear(&bm, bits[i]);
		for (size_t from = 0; from <= NBITS; from++)
			for (size_t end = from; end <= NBITS; end++)
				if (bitmap_next_clear(&bm, from, end) !=
				    (bits[i] >= from && bits[i] < end ? bits[i] : end))
					ck_abort_msg("clear bit %zu from %zu to %zu", bits[i], from, end);
	}
}

TEST(test_bitmap_of_nothing_finds_nothing)
{
	struct bitmap none;

	ck_assert_int_eq(bitmap_init(&none, 0), 0);
	ck_assert_uint_eq(bitmap_find_set(&none, 0), 0);
	ck_assert_uint_eq(bitmap_find_clear(&none, 0), 0);
	bitmap_fini(&none);
}

TEST(test_bitmap_find_clear_stops_at_the_end_of_a_full_last_word)
{
	struct bitmap whole;

	ck_assert_int_eq(bitmap_init(&whole, 128), 0);
	bitmap_set_range(&whole, 0, 128);
	ck_assert_uint_eq(bitmap_find_clear(&whole, 0), 128);
	bitmap_fini(&whole);
}

TEST(test_bitmap_fini_twice_is_harmless)
{
	struct bitmap b;

	ck_assert_int_eq(bitmap_init(&b, 100), 0);
	bitmap_fini(&b);
	ck_assert_ptr_null(b.words);
	bitmap_fini(&b);
}

TEST(test_bitmap_that_fits_no_address_space_is_enomem)
{
	struct bitmap b;

	ck_assert_int_eq(bitmap_init(&b, SIZE_MAX / 2), -ENOMEM);
	ck_assert_ptr_null(b.words);
	bitmap_fini(&b);
}
