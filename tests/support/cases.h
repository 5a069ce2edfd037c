/* cases.h - the suite of a program, as the macros of check_main.h have collected it; for main() */
#ifndef TESTS_SUPPORT_CASES_H
#define TESTS_SUPPORT_CASES_H

#include <check.h>

Suite *cases_suite(void);

#endif
