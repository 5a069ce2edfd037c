/*
 * timer.h - deadlines in order
 *
 * A pairing heap threaded through the timers themselves: arming is O(1) and allocates nothing, and a deadline that is
 * disarmed before it passes (nearly all are) costs little.
 */
#ifndef COROUTINE_TIMER_H
#define COROUTINE_TIMER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct timer {
	uint64_t deadline_ns;
	struct timer *child;   /* leftmost child */
	struct timer *sibling; /* next to the right */
	struct timer *prev; /* left sibling, or the parent of a leftmost child; the root points to itself; NULL: idle */
};

struct timer_heap {
	struct timer *root;
};

static inline bool timer_armed(const struct timer *t)
{
	return t->prev != NULL;
}

/* @t must be idle (zeroed, or disarmed, or popped). DEADLINE_NEVER is a deadline like others: do not arm it. */
void timer_arm(struct timer_heap *heap, struct timer *t, uint64_t deadline_ns);

/* An idle timer is left alone. */
void timer_disarm(struct timer_heap *heap, struct timer *t);

/** timer_pop_due - the earliest timer if its deadline is at or before @now_ns, now idle; NULL if none is due */
struct timer *timer_pop_due(struct timer_heap *heap, uint64_t now_ns);

/** timer_next_ns - the earliest deadline, DEADLINE_NEVER if there is none */
uint64_t timer_next_ns(const struct timer_heap *heap);

#endif
