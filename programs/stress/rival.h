/*
 * rival.h - a thread that places the page a toucher waits for, and wakes nobody
 *
 * A second server of the same memory might do that. What the library does then finds the page there, and has to wake
 * the threads that wait (tests/platform/uffd_wake_after_eexist).
 */
#ifndef PROGRAMS_STRESS_RIVAL_H
#define PROGRAMS_STRESS_RIVAL_H

/* The thread. @arg: struct stress */
void *rival_main(void *arg);

#endif
