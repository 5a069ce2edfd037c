/*
 * blocktime.h - how long each thread waited for pages
 *
 * From the moment a fault was read to the moment its page was placed; a thread's own clock sees the kernel's part, too.
 */
#ifndef POSTCOPY_BLOCKTIME_H
#define POSTCOPY_BLOCKTIME_H

#include "base/histogram.h"
#include "postcopy/prefetch.h"

#include <stddef.h>
#include <stdint.h>

#define BLOCKTIME_BUCKETS HISTOGRAM_OCTAVES
#define BLOCKTIME_THREADS 1024 /* told apart; more are counted together */
/* Within a power of two so many parts: quantiles are right to 1/16. */
#define BLOCKTIME_PARTS 16

/* One thread of the guest. */
struct fault_thread {
	uint32_t tid; /* 0: the slot is free */
	uint32_t order;
	uint64_t faults, blocked_ns;
	struct walk walk;
};

struct blocktime {
	struct fault_thread threads[BLOCKTIME_THREADS]; /* open addressing by tid */
	size_t thread_count;
	uint64_t count, sum_ns, max_ns;
	size_t blocked_now;    /* threads */
	uint64_t all_since_ns; /* all of them are blocked since then; 0: they are not */
	uint64_t all_ns;       /* so long they were */
	uint64_t parts[BLOCKTIME_BUCKETS * BLOCKTIME_PARTS];
};

/** blocktime_thread - the slot of @tid, made when it is new; NULL when all are taken, or the kernel does not say (0) */
struct fault_thread *blocktime_thread(struct blocktime *bt, uint32_t tid);

/** blocktime_page - a page that was waited for has come after @ns */
void blocktime_page(struct blocktime *bt, uint64_t ns);

/* A thread begins to wait, and goes on after @waited_ns; @t may be NULL. */
void blocktime_blocks(struct blocktime *bt, uint64_t now_ns);
void blocktime_goes_on(struct blocktime *bt, struct fault_thread *t, uint64_t now_ns, uint64_t waited_ns);

/** blocktime_quantile - so long or less had @permille of all pages to be waited for */
uint64_t blocktime_quantile(const struct blocktime *bt, unsigned permille);

/** blocktime_bucket - how many took 2^i up to 2^(i+1) ns */
uint64_t blocktime_bucket(const struct blocktime *bt, unsigned i);

#endif
