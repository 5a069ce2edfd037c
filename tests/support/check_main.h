/*
 * check_main.h - what all test programs that use Check share
 *
 * A test program defines suite() and nothing else. main() runs it, prints what Check reports, and tells the runner
 * (scripts/run-tests) how many tests passed, failed and were skipped. CK_RUN_CASE and the other variables of Check work
 * as usual.
 *
 * A program with a main() of its own does not get this one, and may exit with 77 for "skipped".
 */
#ifndef TESTS_SUPPORT_CHECK_MAIN_H
#define TESTS_SUPPORT_CHECK_MAIN_H

#include <check.h>

/* Is this a build with AddressSanitizer? */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#endif
#ifndef WITH_ASAN
#define WITH_ASAN 0
#endif

/* Defined by the test program. */
Suite *suite(void);
/* A new case, already added; each of its tests may take this many seconds; 0: any time. */
TCase *suite_case(Suite *s, const char *name, double seconds);

/**
 * test_skip - end the test that runs now: it neither passed nor failed
 * @why: printed, and shown again by the runner
 * Check has no skipped tests. A test runs in a process of its own, so it notes the skip in a file, and main() counts
 * the notes at the end; Check itself sees a test that passed. Does not return.
 */
#define test_skip(why) test_skip_in(__func__, (why))

_Noreturn void test_skip_in(const char *func, const char *why);

/* Skips the test where a process may not have so many files open. */
#define test_need_files(count) test_need_files_in(__func__, (count))

void test_need_files_in(const char *func, unsigned count);

#endif
