/*
 * switchover.h - the guest starts here before it is complete
 *
 * What a migration does from LISTEN on: pages are watched, the preempt channel is read, the vCPUs start at RUN, and the
 * stream ends when the last page is here. A failure after RUN does not end the migration: the guest exists in two
 * halves, and only the embedder may give it up.
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

/**
 * switchover_pause - the network has failed after RUN: the guest runs on, and who touches a missing page waits
 * Parks: until inm_cancel; no deadline, by the heading. Return: -ECANCELED.
 */
may_park int switchover_pause(struct inm *inm);

/* Everything of postcopy is taken back: see postcopy_end. Parks: yes. */
may_park void switchover_end(struct inm *inm);

#endif
