/* Finding a guest's blocks by name. */
#include "tests/support/check_main.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memory/block.h"

#define MANY 4096u

static struct block *block_named(const char *name, size_t bytes)
{
	struct block *b = calloc(1, sizeof(*b));

	ck_assert_ptr_nonnull(b);
	memcpy(b->name, name, bytes);
	b->name_bytes = bytes;
	return b;
}

TEST_CASE("names", 10);

TEST(test_every_one_of_many_names_is_found_in_whatever_order_they_came)
{
	static struct block *blocks[MANY];
	struct names n = { 0 };
	char name[16];

	for (unsigned i = 0; i < MANY; i++) {
		int bytes = snprintf(name, sizeof(name), "%u", i * 2654435761u % MANY);

		blocks[i] = block_named(name, (size_t)bytes);
		ck_assert_int_eq(names_add(&n, blocks[i]), 0);
	}
	for (unsigned i = 0; i < MANY; i++)
		ck_assert_ptr_eq(names_find(&n, blocks[i]->name, blocks[i]->name_bytes), blocks[i]);
	ck_assert_ptr_null(names_find(&n, "4096", 4));
	ck_assert_ptr_null(names_find(&n, "", 0));
	names_fini(&n);
	for (unsigned i = 0; i < MANY; i++)
		free(blocks[i]);
}

TEST(test_a_name_is_told_from_its_own_beginning)
{
	struct block *ab = block_named("ab", 2), *abc = block_named("abc", 3), *again = block_named("ab", 2);
	struct names n = { 0 };

	ck_assert_int_eq(names_add(&n, abc), 0);
	ck_assert_ptr_null(names_find(&n, "ab", 2));
	ck_assert_int_eq(names_add(&n, ab), 0);
	ck_assert_ptr_eq(names_find(&n, "ab", 2), ab);
	ck_assert_ptr_eq(names_find(&n, "abc", 3), abc);
	ck_assert_int_eq(names_add(&n, again), -EEXIST);
	ck_assert_uint_eq(n.count, 2);
	names_fini(&n);
	free(ab);
	free(abc);
	free(again);
}
