/*
 * prefetch.h - ask ahead for a thread that walks
 *
 * A thread whose last faults lie at equal distances will probably go on like that. The pages it comes to next are asked
 * for with the one it waits for: few at first, twice as many each time the guess was right, none after a wrong one.
 * Guesses are sent after what somebody waits for, and are bounded, so that a real request is never queued after more
 * of them than arrive in about a round trip.
 *
 * Nothing here asks: this is what we know about a thread's way, and where it leads. The reader of its faults asks.
 */
#ifndef POSTCOPY_PREFETCH_H
#define POSTCOPY_PREFETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Guesses under way, for all threads together. */
#define PREFETCH_OUTSTANDING_MAX 64
#define PREFETCH_DEPTH_MAX 32

/* The way of one thread of the guest. Zeroed, it has not begun. */
struct walk {
	const void *block; /* which one it touched last, and where */
	size_t last_unit;
	long stride;
	unsigned run;
	size_t ahead_unit; /* the last one asked for ahead */
	unsigned depth;
	unsigned guessed; /* units asked for ahead since its last fault */
};

struct prefetch {
	uint64_t hits, waste; /* guesses whose thread went on as guessed, and those whose thread did not */
};

/** prefetch_walks - will the thread, which touches @unit now, probably go on to those after it? */
bool prefetch_walks(const struct walk *w, const void *block, size_t unit);

/** prefetch_learn - the thread has touched @unit */
void prefetch_learn(struct prefetch *p, struct walk *w, const void *block, size_t unit);

/**
 * prefetch_next - the next unit to ask for ahead, of a block that has @units
 * The same one, until prefetch_note. Return: false: none.
 */
bool prefetch_next(struct walk *w, size_t units, size_t *ret_unit);

/** prefetch_note - @unit has been dealt with; @asked: as a guess */
void prefetch_note(struct walk *w, size_t unit, bool asked);

#endif
