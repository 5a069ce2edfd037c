/*
 * stall.h - how long others on the reactor wait, and what a byte costs: in CPU time of the thread
 *
 *   stall_begin();
 *   land(...);                    in this process; the source is a child, so that its work is not counted
 *   stall_end(&seen);
 *   stall_check(&seen, "a command of 4095 ranges");
 *
 * A program in tests/budget/ is linked so that each switch from one coroutine to another passes through here. Two
 * numbers come of it. A turn is what one coroutine takes before it switches away. A round is what all that were ready
 * take, with the ring's own work, until each has had its turn: a second migration on the same reactor waits for one
 * round at most, and that is what the budget is about (SECURITY.md, "Budgets").
 *
 * It is CPU time (CLOCK_THREAD_CPUTIME_ID), so a busy machine changes little. Sanitizers change a lot, and so do builds
 * without optimisation: see stall_need_figures.
 */
#ifndef TESTS_SUPPORT_STALL_H
#define TESTS_SUPPORT_STALL_H

#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"

#define STALL_BUDGET_NS (10 * NS_PER_MS)

struct stall {
	uint64_t turn_ns, round_ns; /* the longest */
	uint64_t cpu_ns;            /* of the thread, altogether */
	uint64_t switches;
	char turn_of[48]; /* the coroutine that took the longest turn; "the reactor" is the thread itself */
};

void stall_begin(void);
void stall_end(struct stall *ret_seen);

/* Prints the numbers, and is a Check failure where a round is above the budget. */
void stall_check(const struct stall *seen, const char *what);

/* The same, where one step of @step_ns cannot be divided: what the kernel takes for it, measured by the test. */
void stall_check_beside(const struct stall *seen, const char *what, uint64_t step_ns);

/* Prints the same for @bytes received, and is a Check failure where one costs more than @ns_max. */
void stall_check_cpu(const struct stall *seen, const char *what, uint64_t bytes, uint64_t ns_max);

/* CPU time of this thread. */
uint64_t stall_cpu_ns(void);

/* Skips the test where figures say nothing: under a sanitizer, without optimisation. */
void stall_need_figures(void);

#endif
