/*
 * check_main.h - what every test program made with Check shares
 *
 * A test program defines suite() and nothing else; main() runs it, prints what Check has to say, and tells the runner
 * (scripts/run-tests) how many tests passed, failed and were skipped. CK_RUN_CASE and the other variables of Check
 * work as always.
 *
 * A program that has a main() of its own gets none from here, and may exit with 77 for "skipped".
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
/* A case of it, already added, whose tests may take so many seconds each; 0: as long as they like. */
TCase *suite_case(Suite *s, const char *name, double seconds);

/**
 * test_skip - end the test that runs now: it neither passed nor failed
 * @why: printed, and shown again by the runner
 * Check knows no skipped tests. A test runs in a process of its own, so the word is passed on through a file that
 * main() counts when all is done; to Check itself it is a test that passed. Does not return.
 */
#define test_skip(why) test_skip_in(__func__, (why))

_Noreturn void test_skip_in(const char *func, const char *why);

/* The test is skipped where a process may not have so many files open. */
#define test_need_files(count) test_need_files_in(__func__, (count))

void test_need_files_in(const char *func, unsigned count);

#endif
