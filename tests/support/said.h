/*
 * said.h - what the library logs, kept to be searched
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

/* All lines since said_ops was called, each ended by a newline; what does not fit is left out. */
extern char said[1 << 16];

/* The embedder's operations, but they keep what is logged. Forgets what was said before. */
const struct inm_ops *said_ops(void);

/* In struct several_opts and struct land_opts. */
#define SAID .ops = said_ops(), .config = { .log_level = INM_LOG_DEBUG }

#endif
