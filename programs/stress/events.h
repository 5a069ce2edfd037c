/*
 * events.h - what happens to the memory meanwhile
 *
 * What a balloon, a hot-unplug, a monitor that rearranges its memory and one that forks do to guest memory while it
 * arrives. The kernel holds each of them up until its event has been read.
 */
#ifndef PROGRAMS_STRESS_EVENTS_H
#define PROGRAMS_STRESS_EVENTS_H

#include <stdbool.h>

struct stress;

/** events_main - the thread that makes them. @arg: struct stress */
void *events_main(void *arg);

/* Is anything to happen at all? */
bool events_any(const struct stress *s);

#endif
