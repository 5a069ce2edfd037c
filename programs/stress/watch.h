/*
 * watch.h - the thread that finds waiters nobody will wake, keeps the time, and shows how it goes
 */
#ifndef PROGRAMS_STRESS_WATCH_H
#define PROGRAMS_STRESS_WATCH_H

/* The thread. @arg: struct stress */
void *watcher_main(void *arg);

#endif
