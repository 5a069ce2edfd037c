/*
 * switchover.h - the guest starts here before it is complete
 *
 * What a migration does from LISTEN on: pages are watched, the vCPUs start at RUN, and the stream ends when the last
 * page is here. A failure after RUN does not end the migration: see recovery.h.
 *
 * Source: doc/wire/stream.md 5, 6
 */
#ifndef ENGINE_SWITCHOVER_H
#define ENGINE_SWITCHOVER_H

#include "coroutine/co.h"

#include <stdbool.h>

struct err;
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

/* Everything of postcopy is taken back: see postcopy_end. Parks: yes. */
may_park void switchover_end(struct inm *inm);

#endif
