/*
 * uffd_world.h - a userfaultfd for one test, and its end
 */
#ifndef TESTS_UNIT_UFFD_WORLD_H
#define TESTS_UNIT_UFFD_WORLD_H

#include "config.h"

#include "base/err.h"
#include "postcopy/uffd.h"
#include "tests/support/check_main.h"

#if HAVE_VALGRIND
#include <valgrind/valgrind.h>
#else
#define RUNNING_ON_VALGRIND 0
#endif

static struct uffd u;
static struct err err;

/* valgrind does not know userfaultfd(2), and of its threads one runs at a time: one that waits for a page stops all. */
static inline void need_the_real_machine(void)
{
	if (RUNNING_ON_VALGRIND)
		test_skip("under valgrind");
}

/* In the test's own process, where a skip is one. */
static inline void open_or_skip(uint64_t features)
{
	if (uffd_open(&u, features, 0, &err) < 0)
		test_skip(err.text);
}

#endif
