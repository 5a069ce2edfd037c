/*
 * held.h - how much memory a piece of a test makes this process hold
 *
 *   struct held held;
 *   held_begin(&held);
 *   ... the worst input that is known ...
 *   held_within(&held, 8 << 20, "64 unverified connections");
 *
 * What counts is resident memory at its peak (VmHWM), not what is there in the end: a buffer that is given back before
 * anybody looks has been held all the same. Check runs each test in a process of its own, so nothing else allocates.
 *
 * The kernel counts pages in batches: a peak is right to within some 64 KiB a thread. Budgets are larger.
 * Under a sanitizer, and under valgrind, memory says nothing: the test is skipped.
 */
#ifndef TESTS_SUPPORT_HELD_H
#define TESTS_SUPPORT_HELD_H

#include <stddef.h>
#include <sys/types.h>

struct held {
	size_t base_bytes; /* resident when it began */
};

/* held_begin - forget the peak so far. Skips the test where the peak cannot be measured. */
void held_begin(struct held *h);

/* held_bytes - how far the peak has risen since */
size_t held_bytes(const struct held *h);

/* held_within - a Check failure if it rose by more than @max_bytes; says the figure on stdout in any case */
void held_within(const struct held *h, size_t max_bytes, const char *what);

/* held_field - a line of /proc/<pid>/status in bytes ("VmHWM", "VmRSS"); a Check failure if there is none */
size_t held_field(pid_t pid, const char *name);

#endif
