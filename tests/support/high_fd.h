/* high_fd.h - descriptors with high numbers, out of the way of others */
#ifndef TESTS_SUPPORT_HIGH_FD_H
#define TESTS_SUPPORT_HIGH_FD_H

/* From high_number() on this many numbers are usable, whatever the limit of open files is. */
#define HIGH_ROOM 8

/* @wanted, or a lower number that the limit of open files allows. */
int high_number(int wanted);
/* Another descriptor for the same file, close-on-exec. Return: high_number(@wanted), or the next free number. */
int high_fd(int fd, int wanted);

#endif
