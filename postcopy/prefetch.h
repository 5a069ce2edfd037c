/*
 * prefetch.h - ask ahead for a thread that walks
 *
 * A thread whose last faults lie at equal distances will probably go on like that. The pages it comes to next are asked
 * for with the one it waits for: few at first, twice as many each time the guess was right, none after a wrong one.
 * Guesses are sent after what somebody waits for, and are bounded, so that a real request is never queued after more
 * of them than arrive in about a round trip.
 */
#ifndef POSTCOPY_PREFETCH_H
#define POSTCOPY_PREFETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fault_thread;
struct pblock;
struct postcopy;

/* Guesses under way, for all threads together. */
#define PREFETCH_OUTSTANDING_MAX 64
#define PREFETCH_DEPTH_MAX 32

struct prefetch {
	uint64_t hits, waste; /* guesses whose thread went on as guessed, and those whose thread did not */
};

/** prefetch_walks - will the thread @t (may be NULL), which touches @unit now, probably go on to those after it? */
bool prefetch_walks(const struct fault_thread *t, const struct pblock *pb, size_t unit);

/** prefetch_fault - @t (may be NULL) has touched @unit: learn from it, and ask for what it will touch next */
void prefetch_fault(struct postcopy *pc, struct fault_thread *t, struct pblock *pb, size_t unit, uint64_t now_ns);

#endif
