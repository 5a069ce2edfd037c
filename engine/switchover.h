/*
 * switchover.h - the guest starts here before it is complete
 *
 * What a migration does from LISTEN on: pages are watched, the preempt channel is read, the vCPUs start at RUN, and the
 * stream ends when the last page is here. A failure after RUN does not end the migration: see recovery.h.
 *
 * Source: spec/stream.md 5, 6
 */
#ifndef ENGINE_SWITCHOVER_H
#define ENGINE_SWITCHOVER_H

#include "coroutine/co.h"

#include <stdbool.h>

struct err;
struct hello;
struct inm;
struct load_ops;

/* Before the first coroutine. */
void switchover_init(struct inm *inm);

/* The postcopy part of what a load asks for. */
void switchover_ops(struct load_ops *ops);

/** switchover_preempt - the preempt channel is known; consumes h->ch. Return: 0 or -ENOMEM. */
int switchover_preempt(struct inm *inm, struct hello *h, struct err *err);

/* For recovery.c: until the preempt channel is there, if there is to be one; by connect-deadline. And its end. */
may_park int switchover_await_preempt(struct inm *inm, struct err *err);
void switchover_close_preempt(struct inm *inm);

/* Everything of postcopy is taken back: see postcopy_end. Parks: yes. */
may_park void switchover_end(struct inm *inm);

#endif
