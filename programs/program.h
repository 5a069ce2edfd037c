/*
 * program.h - what the subcommands of inmigrate share
 */
#ifndef PROGRAMS_PROGRAM_H
#define PROGRAMS_PROGRAM_H

#include "inmigrate.h"

#include <stdbool.h>
#include <stdio.h>

/* Exit status of every subcommand. */
enum {
	EXIT_LANDED = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_LANDED_BUT = 3, /* the guest is here and not at the source any more, and something asked for has failed */
};

int cmd_listen(int argc, char **argv);
int cmd_decode(int argc, char **argv);
int cmd_probe(int argc, char **argv);
int cmd_stress(int argc, char **argv);

/* "12.3 MiB"; @buf of 32 bytes. Return: @buf. */
const char *human_bytes(char buf[static 32], double bytes);

/* Prints "inmigrate: ..." as one line on stderr. Return: EXIT_FAILED. */
int fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* As fail, with a hint at --help. Return: EXIT_USAGE. */
int usage_error(const char *command, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* NAME and KEY=VALUE of --cap and --param. Return: 0, or EXIT_USAGE after saying why. */
int set_capability(struct inm *inm, const char *command, const char *name);
int set_parameter(struct inm *inm, const char *command, const char *key_value);

/* Tables for --cap help and --param help. */
void print_capabilities(FILE *out);
void print_parameters(FILE *out);

#endif
