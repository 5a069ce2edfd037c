/* What the programs about io_uring share: a ring made as coroutine/ring_uring.c makes its own, and a clock. */
#ifndef TESTS_PLATFORM_URING_H
#define TESTS_PLATFORM_URING_H

#include "base/clock.h"

#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Ends the program as skipped where the kernel has no such ring. */
static inline void ring_or_skip(struct io_uring *ring, unsigned more_flags)
{
	struct io_uring_params p = { .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | more_flags };
	int r = io_uring_queue_init_params(64, ring, &p);

	if (r < 0) {
		printf("no such ring here: %s\n", strerror(-r));
		exit(77);
	}
}

/* The next completion, or NULL when none comes in @ms. */
static inline struct io_uring_cqe *completion(struct io_uring *ring, unsigned ms)
{
	struct __kernel_timespec ts = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * (long long)NS_PER_MS };
	struct io_uring_cqe *cqe;

	return io_uring_wait_cqe_timeout(ring, &cqe, &ts) < 0 ? NULL : cqe;
}

#endif
