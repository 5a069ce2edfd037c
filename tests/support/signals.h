/*
 * signals.h - a test program begins with the signals and limits that it expects, however it was started
 *
 * Under nohup(1), in a background job, or below a supervisor some signals are ignored or blocked, and children inherit
 * that: a test that waits for one would wait forever. Every program linked as a test has this, even one with a main()
 * of its own, because tests.mk makes the linker pull in signals_as_expected(). It runs before main():
 *
 * (1) No signal is blocked, and those that were ignored have their default action again.
 * (2) HUP, INT, QUIT and TERM are different: a caller that ignores them wants the run to outlive them. They stay
 *     ignored in the program itself, and have their default action in each process that it forks: the tests, and what
 *     they start.
 * (3) It may have as many files open as the hard limit says. A test that needs more than every machine allows says so
 *     with test_need_files() of check_main.h.
 */
#ifndef TESTS_SUPPORT_SIGNALS_H
#define TESTS_SUPPORT_SIGNALS_H

void signals_as_expected(void);

#endif
