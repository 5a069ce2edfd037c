/*
 * Faults without end: no byte is wrong, and no thread waits for a page that is here. One migration has only so many
 * pages, so it runs many; each is another mix of memory, walks, channels, duplicates and removals. FAULTS=N in the
 * environment: run until N faults have been served.
 */
#include "tests/support/check_main.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "tests/support/huge_pool.h"
#include "tests/support/postcopy_scene.h"

#define SHORT_NS (2 * NS_PER_S)
#define ROUND_MS 120000
/* A sanitizer needs its time for each of them. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define PAGES 600
#else
#define PAGES 6000
#endif

static const struct pc_block memories[][3] = {
	{ { "pc.ram", PAGES, EMB_MEMFD }, { "vga.vram", PAGES / 4, EMB_MEMFD }, { "rom", 1, EMB_MEMFD } },
	{ { "pc.ram", PAGES, EMB_ANON }, { "vga.vram", PAGES / 4, EMB_ANON }, { "rom", 1, EMB_ANON } },
	{ { "pc.ram", 2 * 512 + 37, EMB_HUGETLB }, { "vga.vram", PAGES, EMB_MEMFD }, { "rom", PAGES / 4, EMB_ANON } },
};
#define MEMORIES 3u

struct sums {
	unsigned rounds;
	uint64_t faults, served, local, duplicates, retries, removals, preempt_bytes, worst_ns;
};

/* Each round differs from the one before it in more than one thing, and all of it comes back in time. */
static struct pc_opts opts_of(unsigned round)
{
	static const unsigned threads[] = { 4, 16, 2, 8 };
	unsigned lap = round / MEMORIES;

	return (struct pc_opts){ .blocks = memories[round % MEMORIES],
		                 .block_count = 3,
		                 .precopied = lap % 5 == 4 ? 30 : 0,
		                 .preempt = lap % 4 == 3 ? PC_NO_PREEMPT :
		                            lap % 2      ? PC_LATE :
		                                           PC_EARLY,
		                 .modern = lap % 2,
		                 .quiet = lap % 7 != 6,
		                 .main_percent = 30,
		                 .twice_percent = lap % 3 == 2 ? 30 : 3,
		                 .split = lap % 2,
		                 .prefetch = lap % 6 == 5,
		                 .look = pc_check_books,
		                 .touch = { .threads = threads[lap % 4],
		                            .order = (enum pc_order)((lap + round % MEMORIES) % PC_ORDERS),
		                            .write = lap % 2 == 0 },
		                 .balloon = { .threads = lap % 3 == 1, .percent = 5, .pause_us = 300 } };
}

static void add(struct sums *sums, const struct pc *s)
{
	const struct inm_stats *stats = &s->e.stats;
	uint64_t worst_ns = pc_worst_touch_ns(s);

	sums->rounds++;
	sums->faults += stats->faults;
	sums->served += stats->fault_count;
	sums->local += stats->faults_local;
	sums->duplicates += stats->duplicate_pages;
	sums->retries += stats->place_retries;
	sums->preempt_bytes += stats->preempt_bytes;
	sums->removals += atomic_load(&s->removals);
	if (worst_ns > sums->worst_ns)
		sums->worst_ns = worst_ns;
}

/* pc_check_landed compares every byte, and finds who is stranded. */
static void one_round(struct sums *sums)
{
	const struct pc_opts o = opts_of(sums->rounds);
	struct pc s;

	pc_begin(&s, &o);
	if (sums->rounds % 2)
		pc_run_threaded(&s, ROUND_MS);
	else
		pc_finish(&s);
	pc_check_landed(&s);
	add(sums, &s);
	pc_end(&s);
}

static void report(const struct sums *sums, uint64_t took_ns)
{
	printf("%u migrations, %.0f s: %llu faults, of them %llu asked for and %llu local; %llu duplicates, "
	       "%llu removals, %llu retries, %llu MiB by preempt; the longest touch %.0f ms; no wrong byte, nobody "
	       "stranded\n",
	       sums->rounds, (double)took_ns / 1e9, (unsigned long long)sums->faults, (unsigned long long)sums->served,
	       (unsigned long long)sums->local, (unsigned long long)sums->duplicates,
	       (unsigned long long)sums->removals, (unsigned long long)sums->retries,
	       (unsigned long long)sums->preempt_bytes >> 20, (double)sums->worst_ns / 1e6);
	fflush(stdout);
}

TEST_CASE("long", getenv("FAULTS") ? 0 : 60, HUGE_POOL);

TEST(test_no_fault_is_lost_and_no_byte_is_wrong)
{
	const char *text = getenv("FAULTS");
	uint64_t wanted = text ? strtoull(text, NULL, 10) : 0, began_ns = clock_now_ns(), told_ns = began_ns;
	struct sums sums = { 0 };

	huge_pool_need(4);
	while (sums.rounds < MEMORIES || (wanted ? sums.faults < wanted : clock_now_ns() < began_ns + SHORT_NS)) {
		one_round(&sums);
		if (wanted && clock_now_ns() > told_ns + 60 * NS_PER_S) {
			told_ns = clock_now_ns();
			report(&sums, told_ns - began_ns);
		}
	}
	ck_assert_uint_gt(sums.faults, 0);
	ck_assert_uint_gt(sums.duplicates, 0);
	if (wanted)
		report(&sums, clock_now_ns() - began_ns);
}
