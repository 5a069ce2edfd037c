/* base/coverage.h, against a plain array. */
#include "base/coverage.h"
#include "tests/support/check_main.h"

#include <stdlib.h>
#include <string.h>

#define NBITS_MAX (3u * 64 * 64 + 65)

static const size_t sizes[] = { 1, 63, 64, 65, 4095, 4096, 4097, NBITS_MAX };

static struct coverage cov;
static uint8_t plain[NBITS_MAX + 1];

static size_t plain_find_clear(size_t from, size_t nbits)
{
	while (from < nbits && plain[from])
		from++;
	return from < nbits ? from : nbits;
}

/* Sets what is clear of [first, end), as expect_range does. */
static void cover(size_t first, size_t end)
{
	size_t at, n;

	for (at = coverage_find_clear(&cov, first); at < end; at = coverage_find_clear(&cov, at)) {
		n = coverage_clear_end(&cov, at, end) - at;
		coverage_set(&cov, at, n);
	}
	memset(plain + first, 1, end - first);
}

TEST_CASE("coverage", 30);

TEST_ROWS(test_coverage_finds_what_a_plain_array_finds, sizes)
{
	size_t nbits = sizes[_i], set = 0;

	srand(1);
	memset(plain, 0, sizeof(plain));
	ck_assert_int_eq(coverage_init(&cov, nbits), 0);
	for (unsigned i = 0; i < 300; i++) {
		size_t first = (size_t)rand() % nbits, count = 1 + (size_t)rand() % (i % 3 ? 70 : nbits);
		size_t end = count < nbits - first ? first + count : nbits, from = (size_t)rand() % nbits;

		cover(first, end);
		if (coverage_find_clear(&cov, from) != plain_find_clear(from, nbits))
			ck_abort_msg("%zu bits, after %zu to %zu: from %zu", nbits, first, end, from);
	}
	for (size_t i = 0; i < nbits; i++) {
		set += plain[i];
		if (coverage_test(&cov, i) != plain[i])
			ck_abort_msg("%zu bits: bit %zu", nbits, i);
	}
	ck_assert_uint_eq(cov.set, set);
	cover(0, nbits);
	ck_assert_uint_eq(coverage_find_clear(&cov, 0), nbits);
	ck_assert_uint_eq(cov.set, nbits);
	coverage_fini(&cov);
}

TEST(test_coverage_clear_end_looks_no_further_than_it_is_told)
{
	ck_assert_int_eq(coverage_init(&cov, NBITS_MAX), 0);
	ck_assert_uint_eq(coverage_clear_end(&cov, 3, 77), 77);
	coverage_set(&cov, 70, 1);
	ck_assert_uint_eq(coverage_clear_end(&cov, 3, 77), 70);
	coverage_fini(&cov);
}
