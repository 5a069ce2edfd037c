/*
 * command.h - `inmigrate listen`: land a guest that a QEMU sends
 */
#ifndef PROGRAMS_LISTEN_COMMAND_H
#define PROGRAMS_LISTEN_COMMAND_H

/* Return: the exit status. */
int cmd_listen(int argc, char **argv);

#endif
