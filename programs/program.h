/*
 * program.h - the commands of inmigrate
 */
#ifndef PROGRAMS_PROGRAM_H
#define PROGRAMS_PROGRAM_H

int cmd_listen(int argc, char **argv);
int cmd_decode(int argc, char **argv);
int cmd_probe(int argc, char **argv);
int cmd_stress(int argc, char **argv);

#endif
