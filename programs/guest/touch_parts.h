/*
 * touch_parts.h - what the parts of touch.h share; not for others
 *
 *   touch.c          all touchers: from their making to their end, and their numbers
 *   touch_options.c  what was asked for
 *   touch_walk.c     one toucher: where it goes, what it does there, and what it notices
 *   touch_check.c    the stamps at the end, and their log
 */
#ifndef PROGRAMS_GUEST_TOUCH_PARTS_H
#define PROGRAMS_GUEST_TOUCH_PARTS_H

#include "programs/guest/touch.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* One place in one page. */
struct touch_stamp {
	uint64_t value;    /* 0: nothing was written */
	uint64_t original; /* what was there before the first one */
};

struct toucher {
	struct touch *t;
	pthread_t thread;
	unsigned index;
	bool joined;
	uint32_t tid;
	uint64_t random;
	uint64_t sequence;          /* number of writes */
	uint64_t stamps_count;      /* places that hold one */
	struct touch_stamp *stamps; /* owned, a mapping, of each tracked page; NULL when nothing is written */
	_Atomic uint64_t accesses;
	_Atomic uint64_t page_now;
	uint64_t passes;
	uint64_t begin_ns, end_ns;
	struct touch_latency latency;
	struct touch_violation violation;
};

static inline uint64_t touch_load(const char *at)
{
	return __atomic_load_n((const uint64_t *)at, __ATOMIC_RELAXED);
}

/** touch_walk - the thread of a toucher (@arg), until it has had enough, is to stop, or finds what is wrong */
void *touch_walk(void *arg);

#endif
