/*
 * probe.h - `inmigrate probe`: say what this machine offers
 */
#ifndef PROGRAMS_PROBE_H
#define PROGRAMS_PROBE_H

/* Return: the exit status. */
int cmd_probe(int argc, char **argv);

#endif
