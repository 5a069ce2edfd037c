/*
 * stall.h - how long others on the reactor wait, and what a byte costs, in CPU time of the thread
 *
 *   stall_begin();
 *   land(...);                    in this process; the source is a child, so its work does not count
 *   stall_end(&seen);
 *   stall_check(&seen, "a command of 4095 ranges");
 *
 * A program in tests/budget/ is linked so that each switch from one coroutine to another passes through here. That
 * gives two numbers. A turn is the time that one coroutine takes before it switches away. A round is the time until
 * each coroutine that was ready has had its turn, with the ring's own work. A second migration on the same reactor
 * waits for at most one round, and the budget limits that (SECURITY.md, "Budgets").
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

/* Prints the numbers; a Check failure if a round is above the budget. */
void stall_check(const struct stall *seen, const char *what);

/* The same where one step cannot be divided: @step_ns is what the kernel takes for it, as the test has measured. */
void stall_check_beside(const struct stall *seen, const char *what, uint64_t step_ns);

/* Prints the same for @bytes received; a Check failure if one byte costs more than @ns_max. */
void stall_check_cpu(const struct stall *seen, const char *what, uint64_t bytes, uint64_t ns_max);

/* CPU time of this thread. */
uint64_t stall_cpu_ns(void);

/* Skips the test where figures mean nothing: under a sanitizer, or without optimisation. */
void stall_need_figures(void);

#endif
