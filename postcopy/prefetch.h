/*
 * prefetch.h - ask ahead for a thread that walks
 *
 * A thread whose last faults lie at equal distances will probably go on like that. The pages it comes to next are asked
 * for with the one it waits for: few at first, twice as many each time the guess was right, none after a wrong one.
 * Guesses are sent behind what somebody waits for, and are bounded, so that a real request is never queued behind more
 * of them than arrive in about a round trip.
 */
#ifndef POSTCOPY_PREFETCH_H
#define POSTCOPY_PREFETCH_H

#include <stddef.h>
#include <stdint.h>

struct fault_thread;
struct pblock;
struct postcopy;

/* Guesses under way, for all threads together. */
#define PREFETCH_OUTSTANDING_MAX 64
#define PREFETCH_DEPTH_MAX 32

struct prefetch {
	uint64_t hits, waste; /* guesses that were touched later; and those that somebody had to wait for never */
};

/** prefetch_fault - @t (may be NULL) has touched a unit that is missing, or came ahead of it */
void prefetch_fault(struct postcopy *pc, struct fault_thread *t, struct pblock *pb, size_t unit, uint64_t now_ns);

#endif
