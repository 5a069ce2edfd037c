/*
 * settings.h - --cap and --param: QEMU's capabilities and parameters on the command line
 */
#ifndef PROGRAMS_CLI_SETTINGS_H
#define PROGRAMS_CLI_SETTINGS_H

#include "inmigrate.h"

#include <stdio.h>

/* NAME and KEY=VALUE of --cap and --param. Return: 0, or EXIT_USAGE after saying why. */
int set_capability(struct inm *inm, const char *command, const char *name);
int set_parameter(struct inm *inm, const char *command, const char *key_value);

/* Tables for --cap help and --param help. */
void print_capabilities(FILE *out);
void print_parameters(FILE *out);

#endif
