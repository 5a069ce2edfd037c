/*
 * fault.h - what the userfaultfd has to tell: faults, and changes of the guest view
 */
#ifndef POSTCOPY_FAULT_H
#define POSTCOPY_FAULT_H

#include "coroutine/co.h"

#include <sys/types.h>

struct postcopy;

/** fault_poll - handle what is there to be read now. Parks not. Return: events, or the error. */
ssize_t fault_poll(struct postcopy *pc);

/** fault_read - the coroutine that reads events, many at a time, until it is cancelled. @arg: struct postcopy */
may_park int fault_read(void *arg);

#endif
