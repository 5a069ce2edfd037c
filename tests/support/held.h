/*
 * held.h - how much memory a piece of a test makes this process hold
 *
 *   struct held held;
 *   held_begin(&held);
 *   ... the worst input that is known ...
 *   held_within(&held, 8 << 20, "64 unverified connections");
 *
 * This measures resident memory at its peak (VmHWM), not at the end: a buffer that was freed before anybody looked has
 * still been held. Check runs each test in a process of its own, so nothing else allocates.
 *
 * The kernel counts pages in batches, so a peak is right to within about 64 KiB for each thread. Budgets are larger.
 * Under a sanitizer or valgrind these figures mean nothing, so the test is skipped.
 */
#ifndef TESTS_SUPPORT_HELD_H
#define TESTS_SUPPORT_HELD_H

#include <stddef.h>
#include <sys/types.h>

struct held {
	size_t base_bytes; /* resident when it began */
};

/* held_begin - forget the earlier peak. Skips the test where the peak cannot be measured. */
void held_begin(struct held *h);

/* held_bytes - how far the peak has risen since */
size_t held_bytes(const struct held *h);

/* held_within - a Check failure if it rose by more than @max_bytes; always prints the figure on stdout */
void held_within(const struct held *h, size_t max_bytes, const char *what);

/* held_field - a line of /proc/<pid>/status in bytes ("VmHWM", "VmRSS"); a Check failure if there is none */
size_t held_field(pid_t pid, const char *name);

#endif
