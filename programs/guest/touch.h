/*
 * touch.h - threads that touch the memory of a guest as its vCPUs would, and notice when it is not what it was
 *
 * In postcopy they run while pages are missing: an access waits until the page has come. What they can tell:
 * (1) The part of a page that they do not write reads the same every time, to all of them.
 * (2) A stamp that one has written stays: nobody else writes to that place, so who overwrites it is a page that came
 *     late. All stamps are checked at each write and at the end.
 * Each toucher has one place of 8 bytes in each page, at 8 times its number.
 *
 * Bounds: what is remembered of pages takes TOUCH_MEMORY_MAX bytes at most, all touchers together. Pages after that
 * are read, and neither written nor compared.
 *
 * The threads block all signals. They call nothing of the library.
 */
#ifndef PROGRAMS_GUEST_TOUCH_H
#define PROGRAMS_GUEST_TOUCH_H

#include "base/histogram.h"
#include "programs/cli/out_file.h"
#include "programs/guest/ram.h"

#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define TOUCH_THREADS_MAX 256 /* their places are half a page */
#define TOUCH_MEMORY_MAX (256u << 20)
#define TOUCH_PAGE_BYTES 4096u
#define TOUCH_SLOW_NS 2000u

enum touch_pattern { TOUCH_SEQ, TOUCH_STRIDE, TOUCH_RANDOM, TOUCH_HOT };
enum touch_access { TOUCH_READ, TOUCH_WRITE, TOUCH_MIXED };

struct touch_options {
	unsigned threads; /* 0: nothing is touched */
	enum touch_pattern pattern;
	enum touch_access access;
	uint64_t stride_bytes;
	char block[256];      /* empty: the largest one */
	uint64_t duration_ns; /* 0: no limit */
	uint64_t seed;
	uint64_t span_bytes; /* of the block, from its beginning; 0: all of it */
	uint64_t passes;     /* 0: until the guest has landed, and then to the end of the pass */
};

#define TOUCH_OCTAVES HISTOGRAM_OCTAVES
#define TOUCH_STEPS 8 /* of an octave, so that a percentile is right to an eighth */

/* First accesses to a page that took longer than TOUCH_SLOW_NS, by the toucher's own clock. A page that was there
 * before makes nobody wait for it: a thread that waited there waited for a CPU. */
struct touch_latency {
	uint64_t count, total_ns, max_ns;
	uint64_t steps[TOUCH_OCTAVES * TOUCH_STEPS];
};

enum touch_wrong { TOUCH_FINE, TOUCH_STAMP_LOST, TOUCH_CONTENT_CHANGED };

struct touch_violation {
	enum touch_wrong wrong;
	uint64_t off; /* in the block */
	uint64_t expected, found;
};

struct toucher;

struct touch {
	struct touch_options opts;
	const struct guest_block *block; /* not owned */
	uint64_t pages;                  /* that are walked */
	uint64_t tracked_pages;          /* of those, that are remembered */
	_Atomic uint64_t *sums;          /* owned; of each tracked page, 0: not seen yet */
	struct toucher *touchers;        /* owned; opts.threads of them */
	unsigned made;                   /* threads */
	sem_t gate;
	bool gate_made, running;
	atomic_bool landed, stop;
	struct touch_violation first; /* wrong: TOUCH_FINE when there is none */
	uint64_t violations;
	uint64_t intact; /* stamps that were there at the end */
};

/**
 * touch_parse - what stands after "touch=" in --guest: N[,pattern=...][,access=...]...
 * @ret_opts: written on success. @ret_why: one line on failure. Return: 0 or -EINVAL.
 */
int touch_parse(struct touch_options *ret_opts, const char *text, char ret_why[static 160]);

/** touch_init - @t: zeroed. Return: 0 or the errno. */
int touch_init(struct touch *t, const struct touch_options *opts);

/**
 * touch_prepare - choose the block and make the threads, which wait. Touches no guest memory
 * Return: 0, or a negative errno after saying why.
 */
int touch_prepare(struct touch *t, const struct guest_ram *ram);

/* The guest may run. */
void touch_run(struct touch *t);

/* All of the guest is there: the last pass begins to end. */
void touch_landed(struct touch *t);

/* From any thread and from a signal handler. One that waits for a page ends when that has come, or never will. Before
 * inm_cancel: what a toucher sees afterwards may be zeros, and is then not looked at. */
void touch_ask_stop(struct touch *t);

/**
 * touch_join - wait until all have ended
 * Return: 0; -ETIMEDOUT when one of them has not come further for @stall_ns, *ret_off is where.
 */
int touch_join(struct touch *t, uint64_t stall_ns, uint64_t *ret_off);

/* After touch_join, when the guest is complete: are all stamps there? Fills in violations, first and intact. */
void touch_check(struct touch *t);

/**
 * touch_write_log - a JSON object a line for each place that holds a stamp: block, offset, value, original (the bytes
 * that are there and those that were, in hexadecimal)
 * Return: 0, or a negative errno after saying why.
 */
int touch_write_log(const struct touch *t, struct out_file *file);

/* Joins; the touchers must be free to go on. */
void touch_fini(struct touch *t);

/* ---- numbers ---- */

struct touch_count {
	uint32_t tid;
	uint64_t accesses, writes, passes, blocked_ns;
};

struct touch_totals {
	uint64_t accesses, writes, passes, stamps, blocked_ns, elapsed_ns;
	struct touch_latency latency;
};

/* After touch_join. @index below opts.threads. */
struct touch_count touch_count(const struct touch *t, unsigned index);
void touch_totals(const struct touch *t, struct touch_totals *ret);

/* @per_mille: 500 for the median. Return: an upper bound, right to an eighth; 0 when there is nothing. */
uint64_t touch_latency_ns(const struct touch_latency *l, unsigned per_mille);

const char *touch_pattern_name(enum touch_pattern pattern);
const char *touch_access_name(enum touch_access access);

#endif
