/*
 * complain.h - what every command says when it cannot do what it is asked to, and its exit status
 */
#ifndef PROGRAMS_CLI_COMPLAIN_H
#define PROGRAMS_CLI_COMPLAIN_H

/* Exit status of every command. */
enum {
	EXIT_LANDED = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_LANDED_BUT = 3, /* the guest is here and not at the source any more, and something asked for has failed */
};

/* Prints "inmigrate: ..." as one line on stderr. Return: EXIT_FAILED. */
int fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* As fail, with a hint at --help. Return: EXIT_USAGE. */
int usage_error(const char *command, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
