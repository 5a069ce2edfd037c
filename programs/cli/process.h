/*
 * process.h - what a shell, a supervisor or a container has made of this process
 *
 * A guest that runs here in postcopy exists in two halves, and whatever ends this process loses it. So nothing ends it
 * by accident: signals that are nobody's wish are ignored, those that are can be heard, and what is closed, limited or
 * not inherited is said before a source is taken. inmigrate(1) has the table.
 */
#ifndef PROGRAMS_CLI_PROCESS_H
#define PROGRAMS_CLI_PROCESS_H

#include <stddef.h>

/*
 * Every command calls this first: a program that starts with standard input, output or error closed would open
 * something else there, a socket or the guest's memory, and print into it.
 */
void process_start(void);

/*
 * For a command that holds a guest. Ignores what would end it without anybody's wish (SIGPIPE, SIGXFSZ, SIGALRM, real
 * time signals and so on), and undoes what a parent has blocked. What a parent ignores (nohup) stays ignored:
 * SIGHUP, SIGINT, SIGQUIT, SIGTERM. Raises the soft limit of descriptors to the hard one.
 */
void process_hold_guest(void);

/** process_catch - as sigaction(2), but not where the parent has the signal ignored */
void process_catch(int sig, void (*handler)(int sig));

/**
 * process_check_descriptor - may "fd:N" be taken for a source's connection?
 * The program's own descriptors are close-on-exec, and what was inherited cannot be: that tells them.
 * Return: 0, also for other addresses; -EBADF: @ret_why is one line.
 */
int process_check_descriptor(const char *uri, char ret_why[static 160]);

/* " (RLIMIT_NOFILE is 16: ulimit -n)": which limit may be behind this errno, or "". @buf of 160 bytes. Return: @buf. */
const char *process_limit_hint(char buf[static 160], int error);

#endif
