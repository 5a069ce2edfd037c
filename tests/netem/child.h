/*
 * child.h - COMMAND, and what it leaves running
 *
 * Invariants:
 * (1) COMMAND dies with the link, however the link ends.
 * (2) When the link ends, no process that COMMAND started is left.
 */
#ifndef TESTS_NETEM_CHILD_H
#define TESTS_NETEM_CHILD_H

#include "base/err.h"

#include <stdbool.h>
#include <sys/types.h>

struct child {
	pid_t pid;
	int signals; /* a signalfd */
	bool ended;
	int status; /* as from waitpid(2), once ended */
};

/** child_signals - from here on signals come to a descriptor. To be called before child_start. */
int child_signals(struct child *c, struct err *err);

/** child_start - @argv in network namespace @ns. What cannot be executed ends with 126 or 127, as in a shell. */
int child_start(struct child *c, char **argv, int ns, struct err *err);

/** child_serve - the descriptor is readable: pass signals on, see who has ended */
void child_serve(struct child *c);

/** child_end_all - kill what COMMAND left, and wait for it */
void child_end_all(void);

/** child_repeat_end - end as the child ended: with its status, or by its signal */
_Noreturn void child_repeat_end(const struct child *c);

/** child_run - a helper program in namespace @ns to its end. Return: its exit status, or negative. */
int child_run(const char *const *argv, int ns, bool quiet);

#endif
