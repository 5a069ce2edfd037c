/*
 * switchover.h - the guest starts here before it is complete
 *
 * What a migration does from LISTEN on: pages are watched, the preempt channel is read, the vCPUs start at RUN, and the
 * stream ends when the last page is here. A failure after RUN does not end the migration: see recovery.h.
 *
 * Source: doc/wire/stream.md 5, 6
 */
#ifndef ENGINE_SWITCHOVER_H
#define ENGINE_SWITCHOVER_H

#include "coroutine/co.h"

#include <stdbool.h>

struct err;
struct hello;
struct inm;
struct load_ops;
struct options;

/**
 * switchover_permitted - with capability postcopy-ram: can the faults be served that the embedder will cause?
 * Asked when it begins to listen, because an answer later than the switch costs the guest. Return: 0; -EPERM, -ENOSYS
 * or the errno of a limit, with a text that says what would have to change.
 */
int switchover_permitted(const struct options *opts, struct err *err);

/* Before the first coroutine. */
void switchover_init(struct inm *inm);

/* The postcopy part of what a load asks for. */
void switchover_ops(struct load_ops *ops);

/** switchover_preempt - the preempt channel is known; consumes h->ch. Return: 0 or -ENOMEM. */
int switchover_preempt(struct inm *inm, struct hello *h, struct err *err);

/* For recovery.c: until the preempt channel is there, if there is to be one; by connect-deadline. And its end. */
may_park int switchover_await_preempt(struct inm *inm, struct err *err);
void switchover_close_preempt(struct inm *inm);

/**
 * switchover_check_preempt - the same, looked at again after a park: the pages that are missing can come
 * Return: 0; -ENODATA: there is to be a preempt channel, and it has gone.
 */
int switchover_check_preempt(const struct inm *inm, struct err *err);

/* Everything of postcopy is taken back: see postcopy_end. Parks: yes. */
may_park void switchover_end(struct inm *inm);

#endif
