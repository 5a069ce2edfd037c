/*
 * clock.h - one clock: CLOCK_MONOTONIC in nanoseconds
 *
 * A deadline is a point on this clock, never a duration, so that passing it down a call chain cannot stretch it.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NS_PER_US 1000ull
#define NS_PER_MS 1000000ull
#define NS_PER_S 1000000000ull

/* No deadline. Code that passes it says beside it why the wait may last forever. */
#define DEADLINE_NEVER UINT64_MAX

static inline uint64_t clock_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* The deadline @duration_ns from now; a duration that does not fit on the clock means never. */
static inline uint64_t deadline_after_ns(uint64_t duration_ns)
{
	uint64_t now = clock_now_ns();

	return duration_ns > DEADLINE_NEVER - now ? DEADLINE_NEVER : now + duration_ns;
}

#endif
