/* postcopy/blocktime.h: who waited how long, and when all did. */
#include "postcopy/blocktime.h"
#include "tests/support/check_main.h"

#include <stdlib.h>
#include <string.h>

static struct blocktime bt;

static void begin(void)
{
	memset(&bt, 0, sizeof(bt));
}

TEST_CASE("threads", 10, .checked = { begin, NULL });

TEST(test_a_thread_is_known_again_and_numbered_by_its_first_fault)
{
	static const uint32_t tids[] = { 77, 5, 4000000000u, 1 };

	for (unsigned round = 0; round < 2; round++)
		for (uint32_t i = 0; i < 4; i++) {
			struct fault_thread *t = blocktime_thread(&bt, tids[i]);

			ck_assert_ptr_nonnull(t);
			ck_assert_uint_eq(t->tid, tids[i]);
			ck_assert_uint_eq(t->order, i);
		}
	ck_assert_uint_eq(bt.thread_count, 4);
}

TEST(test_the_kernel_did_not_say_which_thread)
{
	ck_assert_ptr_null(blocktime_thread(&bt, 0));
	ck_assert_uint_eq(bt.thread_count, 0);
}

/* Whatever the numbers: in a row, or such that all begin their search at the same place. */
static const uint32_t distances[] = { 1, 2, BLOCKTIME_THREADS, 65536 };

TEST_ROWS(test_so_many_threads_are_told_apart_and_no_more, distances)
{
	uint32_t d = distances[_i], n = BLOCKTIME_THREADS;

	for (uint32_t i = 0; i < n; i++)
		ck_assert_uint_eq(blocktime_thread(&bt, 1000 + i * d)->order, i);
	ck_assert_ptr_null(blocktime_thread(&bt, 1000 + n * d));
	for (uint32_t i = 0; i < n; i++)
		ck_assert_uint_eq(blocktime_thread(&bt, 1000 + i * d)->order, i);
	ck_assert_uint_eq(bt.thread_count, n);
}

TEST_CASE("waiting", 20, .checked = { begin, NULL });

#define THREADS_MAX 8

static const struct timeline {
	const char *what;
	unsigned threads;
	const char *events; /* a thread's letter: it waits, or goes on, in turns; '.': a tick passes */
	uint64_t waited[THREADS_MAX];
	uint64_t all;
} timelines[] = {
	{ "nobody waits", 2, "....", { 0 }, 0 },
	{ "one of one", 1, ".A...A..", { 3 }, 3 },
	{ "one of two", 2, ".A...A..", { 3 }, 0 },
	{ "one after the other", 2, "A..A.B...B", { 2, 3 }, 0 },
	{ "they meet: the first one is not done yet", 2, "A..A B...B", { 2, 3 }, 0 },
	{ "overlapping", 2, "A..B...A.B", { 5, 4 }, 3 },
	{ "one inside the other", 2, "A..B.B..A", { 5, 1 }, 1 },
	{ "twice inside", 2, "A.B.B.B..B.A", { 6, 3 }, 3 },
	{ "three, of which all wait for a moment", 3, "A.B.C.A.B.C", { 3, 3, 3 }, 1 },
	{ "three, of which two overlap", 3, "A.B...A.B", { 4, 4 }, 0 },
	{ "all go on in the tick in which they began", 2, "ABAB....", { 0, 0 }, 0 },
};

TEST_ROWS(test_what_each_thread_and_all_of_them_waited, timelines)
{
	const struct timeline *line = &timelines[_i];
	struct fault_thread *t[THREADS_MAX];
	uint64_t since[THREADS_MAX] = { 0 }, now = 1000;

	for (uint32_t i = 0; i < line->threads; i++)
		t[i] = blocktime_thread(&bt, 500 + i);
	for (const char *e = line->events; *e; e++) {
		unsigned i = (unsigned)(*e - 'A');

		if (*e == '.')
			now++;
		if (*e < 'A')
			continue;
		if (since[i] == 0) {
			blocktime_blocks(&bt, now);
			since[i] = now;
		} else {
			blocktime_goes_on(&bt, t[i], now, now - since[i]);
			since[i] = 0;
		}
	}
	for (uint32_t i = 0; i < line->threads; i++)
		ck_assert_msg(t[i]->blocked_ns == line->waited[i], "%s: thread %c waited %llu", line->what,
		              (char)('A' + i), (unsigned long long)t[i]->blocked_ns);
	ck_assert_msg(bt.all_ns == line->all, "%s: all waited %llu", line->what, (unsigned long long)bt.all_ns);
	ck_assert_uint_eq(bt.blocked_now, 0);
}

/* Any threads at any time, against what a look at each tick says. */
TEST_EACH(test_sums_are_those_of_looking_at_each_tick, THREADS_MAX)
{
	unsigned threads = (unsigned)_i + 1, seed = threads;
	uint64_t since[THREADS_MAX] = { 0 }, waited[THREADS_MAX] = { 0 }, all = 0, now;
	struct fault_thread *t[THREADS_MAX];

	for (uint32_t i = 0; i < threads; i++)
		t[i] = blocktime_thread(&bt, 500 + i);
	for (now = 1; now < 100000; now++) {
		unsigned i = (unsigned)rand_r(&seed) % (2 * threads), blocked = 0;

		if (i < threads && since[i] == 0) {
			blocktime_blocks(&bt, now);
			since[i] = now;
		} else if (i < threads && rand_r(&seed) % 4 == 0) {
			blocktime_goes_on(&bt, t[i], now, now - since[i]);
			since[i] = 0;
		}
		for (unsigned k = 0; k < threads; k++) {
			waited[k] += since[k] > 0;
			blocked += since[k] > 0;
		}
		all += blocked == threads;
		ck_assert_uint_eq(bt.blocked_now, blocked);
	}
	for (unsigned i = 0; i < threads; i++)
		if (since[i])
			blocktime_goes_on(&bt, t[i], now, now - since[i]);
	for (unsigned i = 0; i < threads; i++)
		ck_assert_uint_eq(t[i]->blocked_ns, waited[i]);
	ck_assert_uint_eq(bt.all_ns, all);
	ck_assert_uint_gt(all, 0);
}

TEST(test_a_thread_that_is_not_told_apart_is_counted_among_those_that_wait)
{
	struct fault_thread *t = blocktime_thread(&bt, 500);

	blocktime_blocks(&bt, 10);
	blocktime_goes_on(&bt, NULL, 15, 5);
	ck_assert_uint_eq(bt.blocked_now, 0);
	ck_assert_uint_eq(bt.all_ns, 5);
	ck_assert_uint_eq(t->blocked_ns, 0);
}

TEST_CASE("pages", 10, .checked = { begin, NULL });

TEST(test_a_wait_counts_in_the_power_of_two_below_it)
{
	for (unsigned i = 0; i < BLOCKTIME_BUCKETS; i++) {
		begin();
		blocktime_page(&bt, 1ull << i);
		blocktime_page(&bt, (2ull << i) - 1);
		for (unsigned k = 0; k < BLOCKTIME_BUCKETS; k++)
			if (blocktime_bucket(&bt, k) != (k == i ? 2 : 0))
				ck_abort_msg("2^%u ns: %llu in the bucket of 2^%u", i,
				             (unsigned long long)blocktime_bucket(&bt, k), k);
	}
}

TEST(test_count_sum_and_maximum_are_of_all_waits)
{
	static const uint64_t waits[] = { 3000, 0, 70000, 1, 500000000, 70000 };

	for (unsigned i = 0; i < 6; i++)
		blocktime_page(&bt, waits[i]);
	ck_assert_uint_eq(bt.count, 6);
	ck_assert_uint_eq(bt.sum_ns, 500143001);
	ck_assert_uint_eq(bt.max_ns, 500000000);
	blocktime_page(&bt, 5);
	ck_assert_uint_eq(bt.max_ns, 500000000);
}

/* 1 to 1000 us, each once. */
TEST(test_quantiles_are_right_to_a_sixteenth)
{
	for (uint64_t us = 1000; us > 0; us--)
		blocktime_page(&bt, us * 1000);
	for (unsigned permille = 1; permille <= 1000; permille++) {
		uint64_t exact = permille * 1000ull, told = blocktime_quantile(&bt, permille);

		if (told < exact || told > exact + exact / BLOCKTIME_PARTS + 1 || told > bt.max_ns)
			ck_abort_msg("%u permille: %llu", permille, (unsigned long long)told);
	}
}
