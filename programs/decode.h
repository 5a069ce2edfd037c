/*
 * decode.h - `inmigrate decode`: print a saved migration stream readably
 */
#ifndef PROGRAMS_DECODE_H
#define PROGRAMS_DECODE_H

/* Return: the exit status. */
int cmd_decode(int argc, char **argv);

#endif
