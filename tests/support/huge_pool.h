/*
 * huge_pool.h - the kernel's 2 MiB pages, for the tests of one program
 *
 * The pool belongs to the machine. A program that fills it locks it, so that two such programs may run at once, and
 * restores it afterwards. Setup and teardown are unchecked fixtures: they run in the process that outlives the tests,
 * even when a test crashes.
 */
#ifndef TESTS_SUPPORT_HUGE_POOL_H
#define TESTS_SUPPORT_HUGE_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HUGE_POOL_BYTES (2ul << 20) /* of one page */
#define HUGE_POOL_PAGES 12          /* enough for most */

/*
 * Waits for another program that holds the pool, then makes @pages free ones if this process may. If a program that was
 * killed left the pool changed, restores it first: hugepages.py says how that is known.
 */
void huge_pool_fill(long pages);
void huge_pool_restore(void);

/* Does this kernel have such pages at all? */
bool huge_pool_exists(void);
long huge_pool_free(void);
/* May the kernel make more of them on demand? */
bool huge_pool_grows(void);

/* A fixture for TEST_CASE: the pool has HUGE_POOL_PAGES while its tests run. */
#define HUGE_POOL .unchecked = { huge_pool_begin, huge_pool_restore }
void huge_pool_begin(void);
/* Skips the test where fewer are free. */
void huge_pool_need(uint64_t pages);

#endif
