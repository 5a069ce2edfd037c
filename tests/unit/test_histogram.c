/* Quantiles of counted values: base/histogram.h */
#include "base/histogram.h"
#include "tests/support/check_main.h"

#define PARTS_MAX 16u

static const unsigned parts_tried[] = { 1, 8, PARTS_MAX };

/* Each value in the neighbourhood of a border: of an octave, or of a part of one. */
static void test_value(uint64_t value, unsigned parts)
{
	unsigned step = histogram_step(value, parts);
	uint64_t end = histogram_end(step, parts), begin = step ? histogram_end(step - 1, parts) : 1;

	if (step >= HISTOGRAM_OCTAVES * parts || value > end || (value > 0 && value < begin))
		ck_abort_msg("%llu of %u parts: step %u, %llu to %llu", (unsigned long long)value, parts, step,
		             (unsigned long long)begin, (unsigned long long)end);
	/* The whole numbers around it may make it one more. */
	if (end - begin > value / parts + 1)
		ck_abort_msg("%llu of %u parts: a step from %llu to %llu", (unsigned long long)value, parts,
		             (unsigned long long)begin, (unsigned long long)end);
}

TEST_CASE("histogram", 4);

TEST_EACH(test_histogram_step_is_around_its_values_and_narrow, 3)
{
	unsigned parts = parts_tried[_i];

	for (uint64_t value = 0; value < 4096; value++)
		test_value(value, parts);
	for (unsigned octave = 12; octave < HISTOGRAM_OCTAVES; octave++)
		for (unsigned part = 0; part < PARTS_MAX; part++) {
			uint64_t border = (1ull << octave) + ((uint64_t)part << octave) / PARTS_MAX;

			test_value(border - 1, parts);
			test_value(border, parts);
			test_value(border + 1, parts);
		}
}

TEST_EACH(test_histogram_what_is_beyond_the_octaves_counts_in_the_last_step, 3)
{
	unsigned parts = parts_tried[_i], last = HISTOGRAM_OCTAVES * parts - 1;

	ck_assert_uint_eq(histogram_step((1ull << HISTOGRAM_OCTAVES) - 1, parts), last);
	ck_assert_uint_eq(histogram_step(1ull << HISTOGRAM_OCTAVES, parts), last);
	ck_assert_uint_eq(histogram_step((1ull << HISTOGRAM_OCTAVES) + 1, parts), last);
	ck_assert_uint_eq(histogram_step(UINT64_MAX, parts), last);
	ck_assert_uint_eq(histogram_step(0, parts), 0);
}

/* 1000 to 1999, each once: as many are below as the value says. */
TEST_EACH(test_histogram_quantile_is_right_to_a_part, 3)
{
	unsigned parts = parts_tried[_i];
	uint64_t counts[HISTOGRAM_OCTAVES * PARTS_MAX] = { 0 };

	for (uint64_t value = 1000; value < 2000; value++)
		counts[histogram_step(value, parts)]++;
	for (unsigned permille = 1; permille <= 1000; permille++) {
		uint64_t exact = 999 + permille, told = histogram_quantile(counts, parts, 1999, permille);

		if (told < exact || told > exact + exact / parts + 1 || told > 1999)
			ck_abort_msg("%u permille, %u parts: %llu", permille, parts, (unsigned long long)told);
	}
}

TEST(test_histogram_quantile_of_nothing_and_of_one)
{
	uint64_t counts[HISTOGRAM_OCTAVES * PARTS_MAX] = { 0 };

	ck_assert_uint_eq(histogram_quantile(counts, PARTS_MAX, 0, 500), 0);
	counts[histogram_step(777, PARTS_MAX)]++;
	ck_assert_uint_eq(histogram_quantile(counts, PARTS_MAX, 777, 1), 777);
	ck_assert_uint_eq(histogram_quantile(counts, PARTS_MAX, 777, 1000), 777);
}

/* One of a thousand is seen at 1000 permille, and not at 999. */
TEST(test_histogram_quantile_sees_the_slowest)
{
	uint64_t counts[HISTOGRAM_OCTAVES * PARTS_MAX] = { 0 };

	counts[histogram_step(100, PARTS_MAX)] = 999;
	counts[histogram_step(1000000, PARTS_MAX)] = 1;
	ck_assert_uint_le(histogram_quantile(counts, PARTS_MAX, 1000000, 999), 107);
	ck_assert_uint_eq(histogram_quantile(counts, PARTS_MAX, 1000000, 1000), 1000000);
}
