/*
 * command.h - `inmigrate stress`: beat on userfaultfd as a migrating guest does, and check every byte
 */
#ifndef PROGRAMS_STRESS_COMMAND_H
#define PROGRAMS_STRESS_COMMAND_H

/* Return: the exit status. */
int cmd_stress(int argc, char **argv);

#endif
