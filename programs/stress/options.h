/*
 * options.h - what is asked of a run: values without pointers of the run, and the command line that gives them
 */
#ifndef PROGRAMS_STRESS_OPTIONS_H
#define PROGRAMS_STRESS_OPTIONS_H

#include "programs/stress/kinds.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define TOUCHERS_MAX 256u /* their places are a quarter of a page */

#define STRESS_DELAY_MAX_NS 2000000000ull
#define DELAY_HEAVY_MAX 1000u /* so many times the least, and no more */

struct stress_delay {
	enum delay_kind kind;
	uint64_t low_ns, high_ns; /* constant and heavy: low_ns */
};

struct stress_result;

struct stress_options {
	unsigned memories, places; /* bits of the enums; places 0: what the memory's own is, and some zeros */
	unsigned touchers;
	uint64_t bytes;
	enum stress_pattern pattern;
	double event_rate[EVENT_COUNT]; /* a second */
	double own_faults;              /* a second */
	double duplicates;              /* of the answers */
	struct stress_delay delay;
	uint64_t duration_ns;
	uint64_t faults; /* 0: for the duration */
	uint64_t seed;
	bool prefetch_off, kvm;
	bool quiet_limit; /* the kernel's limit is not measured */
	int progress;     /* enum progress_mode */
	const char *json, *plot;
	const atomic_int *interrupted; /* becomes not 0: it ends early */
	/* For a run that cannot end in order, because a thread is stranded. May be NULL. */
	void (*report_and_exit)(const struct stress_options *opts, struct stress_result *r);
};

struct stress_arguments {
	struct stress_options opts;
	bool matrix, seconds_given;
};

/** options_parse - the command line. Return: 0; EXIT_USAGE after saying why; -1: help was given. */
int options_parse(struct stress_arguments *a, int argc, char **argv);

#endif
