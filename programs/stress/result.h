/*
 * result.h - what a run found: plain values, without pointers of the run, so that a child process can write them
 * into a pipe
 */
#ifndef PROGRAMS_STRESS_RESULT_H
#define PROGRAMS_STRESS_RESULT_H

#include "programs/stress/kinds.h"
#include "programs/stress/latency.h"

#include <stdbool.h>
#include <stdint.h>

/* One stretch of the run. */
struct stress_interval {
	uint32_t at_ms, faults_rate;
	uint32_t count;
	uint32_t p50_ns, p99_ns, p999_ns, max_ns;
};

#define INTERVALS_MAX 1200u

struct stress_limit {
	double faults_rate;
	uint64_t mean_ns;
};

#define WRONG_TEXT_BYTES 3072u

struct stress_result {
	bool failed;                  /* a wrong byte, a stranded waiter, or it could not go on */
	char wrong[WRONG_TEXT_BYTES]; /* the first one, with its story */
	uint64_t wrong_bytes_pages, stranded;

	uint64_t elapsed_ns, touch_ns;
	uint64_t rounds, touches, waits, marks_checked, pages_walked;
	uint64_t faults, faults_local, engine_faults;
	uint64_t requests, requested_pages, guessed_pages, guess_hits, guess_waste;
	uint64_t placed, duplicates, removed, again; /* the library's counters */
	uint64_t placed_by[PLACE_COUNT];             /* pages sent, by kind */
	uint64_t sent_again, sent_stale, pushed, idle_pages;
	uint64_t rival_placed;
	uint64_t events[EVENT_COUNT];
	uint64_t own_touches;
	uint64_t switches; /* of coroutines */
	double engine_cpu_ms, cpu_ms;
	uint64_t context_switches;
	struct stress_latency latency;                         /* touchers, from before the access to after it */
	uint64_t placed_mean_ns, placed_p50_ns, placed_p99_ns; /* the library's, from fault read to page placed */
	struct stress_limit limit[MEMORY_COUNT][PLACE_COUNT];
	uint32_t interval_ms, interval_count;
	struct stress_interval intervals[INTERVALS_MAX];
};

#endif
