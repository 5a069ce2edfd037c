/* Which block is at an address? */
#include "tests/support/check_main.h"

#include "postcopy/pblock.h"
#include "postcopy/watched.h"

#define MANY 4096u
#define STEP 0x10000u

TEST_CASE("watched", 10);

TEST(test_every_address_is_found_in_its_view_and_gaps_in_none)
{
	static struct pblock blocks[MANY];
	struct watched v = { 0 };
	uint64_t off = 0;

	/* From the last to the first; each with a gap after it. */
	for (unsigned i = MANY; i-- > 0;)
		ck_assert_int_eq(watched_add(&v, (void *)(uintptr_t)((i + 1) * STEP), STEP / 2, &blocks[i]), 0);
	watched_sort(&v);
	for (unsigned i = 0; i < MANY; i++) {
		uintptr_t begin = (i + 1) * STEP;

		ck_assert_ptr_eq(watched_find(&v, begin, &off), &blocks[i]);
		ck_assert_uint_eq(off, 0);
		ck_assert_ptr_eq(watched_find(&v, begin + STEP / 2 - 1, &off), &blocks[i]);
		ck_assert_uint_eq(off, STEP / 2 - 1);
		ck_assert_ptr_null(watched_find(&v, begin + STEP / 2, &off));
	}
	ck_assert_ptr_null(watched_find(&v, STEP - 1, &off));
	watched_fini(&v);
	ck_assert_ptr_null(watched_find(&v, STEP, &off));
}

TEST(test_a_view_that_was_moved_is_found_where_it_is_now)
{
	struct pblock a = { 0 }, b = { 0 };
	struct watched v = { 0 };
	uint64_t off;

	ck_assert_int_eq(watched_add(&v, (void *)(uintptr_t)STEP, STEP, &a), 0);
	ck_assert_int_eq(watched_add(&v, (void *)(uintptr_t)(4 * STEP), STEP, &b), 0);
	watched_sort(&v);
	watched_moved(&v, STEP, 9 * STEP);
	ck_assert_ptr_null(watched_find(&v, STEP + 5, &off));
	ck_assert_ptr_eq(watched_find(&v, 9 * STEP + 5, &off), &a);
	ck_assert_uint_eq(off, 5);
	ck_assert_ptr_eq(watched_find(&v, 4 * STEP, &off), &b);
	watched_fini(&v);
}
