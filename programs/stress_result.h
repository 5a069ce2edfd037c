/*
 * stress_result.h - what is asked of a run of `inmigrate stress`, and what it found: plain values, without pointers of
 * the run, so that a child process can write them into a pipe
 */
#ifndef PROGRAMS_STRESS_RESULT_H
#define PROGRAMS_STRESS_RESULT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum stress_memory { MEMORY_ANON, MEMORY_MEMFD, MEMORY_THP, MEMORY_HUGE_2M, MEMORY_HUGE_1G, MEMORY_COUNT };
enum stress_place { PLACE_COPY, PLACE_CONTINUE, PLACE_MOVE, PLACE_ZERO, PLACE_COUNT };
enum stress_pattern { PATTERN_SEQ, PATTERN_STRIDE, PATTERN_RANDOM, PATTERN_HOT, PATTERN_RACING, PATTERN_COUNT };
enum stress_event { EVENT_REMOVE, EVENT_UNMAP, EVENT_REMAP, EVENT_FORK, EVENT_COUNT };
enum delay_kind { DELAY_NONE, DELAY_CONSTANT, DELAY_UNIFORM, DELAY_HEAVY, DELAY_COUNT };

/* Names, by the enums. */
extern const char *const memory_names[MEMORY_COUNT];
extern const char *const place_names[PLACE_COUNT];
extern const char *const stress_pattern_names[PATTERN_COUNT];
extern const char *const event_names[EVENT_COUNT];

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

#define LATENCY_OCTAVES 40u
#define LATENCY_STEPS 16u

/* Counted by one, and looked at by others while it counts. */
struct stress_latency {
	_Atomic uint64_t count, sum_ns, max_ns;
	_Atomic uint64_t steps[LATENCY_OCTAVES * LATENCY_STEPS];
};

/* ---- stress_latency.c ---- */

void latency_add(struct stress_latency *l, uint64_t ns);
void latency_merge(struct stress_latency *sum, const struct stress_latency *l);

/* sum -= before: what came since. The longest is that of the highest step. */
void latency_subtract(struct stress_latency *sum, const struct stress_latency *before);

/** latency_quantile - so long or less took @permille of them, to a sixteenth */
uint64_t latency_quantile(const struct stress_latency *l, unsigned permille);
uint64_t latency_bucket(const struct stress_latency *l, unsigned octave);

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

/* ---- stress_run.c ---- */

/** stress_run - one run. @ret: with the limits filled in. Return: 0, what was found is in @ret; why there was none */
int stress_run(const struct stress_options *opts, struct stress_result *ret);

/* ---- stress_report.c ---- */

void stress_print(const struct stress_options *opts, const struct stress_result *r);

struct json_t;

/* The whole as a value of jansson; and written to a file, which takes @root away. Return: 0, or -1 after saying why. */
struct json_t *stress_json(const struct stress_options *opts, const struct stress_result *r);
int stress_dump(struct json_t *root, const char *path);
int stress_write_json(const struct stress_options *opts, const struct stress_result *r, const char *path);

/* ---- stress_plot.c ---- */

/** stress_plot - an SVG, by gnuplot. Return: 0, or -1 after saying why: gnuplot is not installed, it failed. */
int stress_plot(const struct stress_options *opts, const struct stress_result *r, const char *path);

/* "memfd+anon, continue, 4 touchers, random, remove"; @buf of 200 bytes. Return: @buf. */
const char *stress_words(char buf[static 200], const struct stress_options *opts);

/* ---- stress_can.c ---- */

/** stress_can - may this be tried here? Return: true; or false, and why not, with what would change that */
bool stress_can(const struct stress_options *opts, char ret_why[static 200]);

/* ---- stress_limit.c ---- */

/**
 * limit_measure - faults a second of the kernel alone: a loop that reads faults and resolves them, as many touchers
 * Return: 0, or the errno of what this kernel does not do
 */
int limit_measure(const struct stress_options *opts, enum stress_memory memory, enum stress_place place,
                  struct stress_limit *ret);

/* ---- stress_matrix.c ---- */

/** stress_matrix - all combinations this kernel has, in @base->duration_ns altogether. Return: the exit status. */
int stress_matrix(const struct stress_options *base);

#endif
