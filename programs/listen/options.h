/*
 * options.h - the command line of `inmigrate listen`
 */
#ifndef PROGRAMS_LISTEN_OPTIONS_H
#define PROGRAMS_LISTEN_OPTIONS_H

struct listen;

/* The level is fixed when the migration is made, and options are set on it: so -v is looked for first. */
void listen_count_verbose(struct listen *ln, int argc, char **argv);

/** listen_parse - sets the options on ln->inm. Return: GO_ON, or the status that the program ends with. */
int listen_parse(struct listen *ln, int argc, char **argv);

#endif
