/*
 * said.h - keeps what the library logs, so that a test can search it
 *
 *   several_begin(&s, &m, &(struct several_opts){ SAID });
 *   ...
 *   ck_assert_msg(strstr(said, "second main"), "%s", said);
 *
 * Check runs each test in a process of its own, so there is one text.
 */
#ifndef TESTS_SUPPORT_SAID_H
#define TESTS_SUPPORT_SAID_H

#include "inmigrate.h"

/* All lines since said_ops was called, each with a newline at its end; lines that do not fit are left out. */
extern char said[1 << 16];

/* The embedder's operations, which also keep what is logged. Forgets earlier lines. */
const struct inm_ops *said_ops(void);

/* In struct several_opts and struct land_opts. */
#define SAID .ops = said_ops(), .config = { .log_level = INM_LOG_DEBUG }

#endif
