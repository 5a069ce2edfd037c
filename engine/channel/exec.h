/*
 * exec.h - a command whose output is the stream
 */
#ifndef ENGINE_CHANNEL_EXEC_H
#define ENGINE_CHANNEL_EXEC_H

#include "coroutine/co.h"

#include <stdbool.h>
#include <sys/types.h>

struct chan;
struct err;
struct log;
struct reactor;

/* The command's process group, from start to its last wait. */
struct exec {
	struct reactor *reactor;
	const struct log *log;
	pid_t pid;
	int pidfd; /* owned; -1 when there is no command */
};

/**
 * exec_start - run `/bin/sh -c command`; its standard output is *ret_chan
 * @x: lives until exec_wait has returned
 * Return: 0; or the errno of the call that failed.
 */
int exec_start(struct exec *x, struct reactor *r, const struct log *log, const char *command, struct chan **ret_chan,
               struct err *err);

/* End it without a coroutine to wait in: blocks until the killed command is gone. For when there is no exec_wait. */
void exec_kill(struct exec *x);

/**
 * exec_wait - until the command has ended; a cancel kills it
 * For a coroutine of its own, so that no zombie and no orphan is left. @arg: struct exec *
 * Parks: yes. Deadline: none; the command may run as long as the stream lasts. Return: 0 or -ECANCELED.
 */
may_park int exec_wait(void *arg);

#endif
