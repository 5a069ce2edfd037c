/* high_fd.h - descriptors out of the way of others */
#ifndef TESTS_SUPPORT_HIGH_FD_H
#define TESTS_SUPPORT_HIGH_FD_H

/* So many numbers from high_number() on are there, whatever the limit of open files is. */
#define HIGH_ROOM 8

/* @wanted, or what is left of it below the limit of open files. */
int high_number(int wanted);
/* Another descriptor for the same file, close-on-exec: high_number(@wanted), or the next that is free. Return: it. */
int high_fd(int fd, int wanted);

#endif
