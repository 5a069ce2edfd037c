/*
 * signals.h - a test program begins with signals, and limits, as it expects them, whoever has started it
 *
 * Under nohup(1), in a background job, or below a supervisor some are ignored or blocked, and that is inherited: a test
 * that waits for one would wait for ever. Every program linked as a test has this, for the linker is told to want
 * signals_as_expected() (tests.mk), also one with a main() of its own. It runs before main():
 *
 * (1) Nothing is blocked, and what was ignored has its default action again.
 * (2) But HUP, INT, QUIT and TERM: who has them ignored wants the run to outlive them. They stay ignored in the program
 *     itself, and have their default action in each process it forks: the tests, and what they start.
 * (3) It may have as many files open as the hard limit says. A test that needs more than every machine allows says so:
 *     test_need_files() of check_main.h.
 */
#ifndef TESTS_SUPPORT_SIGNALS_H
#define TESTS_SUPPORT_SIGNALS_H

void signals_as_expected(void);

#endif
