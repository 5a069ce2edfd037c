/*
 * waiter.h - a thread or coroutine that may be found waiting for a page: the watcher looks at these
 */
#ifndef PROGRAMS_STRESS_WAITER_H
#define PROGRAMS_STRESS_WAITER_H

#include "programs/stress/block.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct stress;

/* What the watcher saw of a waiter. */
struct suspicion {
	uint64_t turn, change_ns, beat, sleeps;
	bool pending;
};

/* Written by the one that waits, read by the watcher. */
struct waiter {
	_Atomic uint64_t since_ns; /* 0: it does not wait */
	_Atomic uint64_t turn;
	_Atomic uint32_t block, page;
	_Atomic uint32_t tid; /* 0: a coroutine of the engine's thread */
	char name[24];
	struct stress *stress;

	/* The watcher's. */
	struct suspicion suspicion;
};

static inline void waiter_begins(struct waiter *w, const struct sblock *sb, uint32_t page, uint64_t now_ns)
{
	atomic_store_explicit(&w->block, sb->index, memory_order_relaxed);
	atomic_store_explicit(&w->page, page, memory_order_relaxed);
	atomic_fetch_add_explicit(&w->turn, 1, memory_order_relaxed);
	atomic_store_explicit(&w->since_ns, now_ns, memory_order_release);
}

static inline void waiter_ends(struct waiter *w)
{
	atomic_store_explicit(&w->since_ns, 0, memory_order_release);
}

/** waiter_new - the next one, by name */
struct waiter *waiter_new(struct stress *s, const char *fmt, unsigned number);

#endif
