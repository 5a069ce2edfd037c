/*
 * recovery.h - the network fails while half of the guest is here
 *
 * A guest that is split (owner.h) is of no use to either side. So the migration pauses: all its connections are closed,
 * its guest runs on and waits where pages are missing, faults are collected, and the source may come back, as often as
 * it takes, at the same addresses or at another one (inm_recover). Only the embedder can give up.
 *
 * doc/recovery.md draws the states, from the table of state.c.
 *
 * The source may notice a loss earlier than we do, and be back while all seems well here: such a connection is kept
 * until the loss shows or its deadline passes (arrival.c).
 *
 * Source: doc/wire/stream.md 5.8, doc/wire/channels.md 2.3, 5
 */
#ifndef ENGINE_RECOVERY_H
#define ENGINE_RECOVERY_H

#include "coroutine/co.h"
#include "inmigrate.h"

#include <stdbool.h>

struct address;
struct err;
struct load_ops;

/* The recovery's part of what a load asks for. */
void recovery_ops(struct load_ops *ops);

/**
 * recovery_begin - the connection is lost: is that a pause (owner.h)?
 * On return, a promise to the source that was under way has been kept or broken. Parks: yes.
 */
may_park bool recovery_begin(struct inm *inm);

/**
 * recovery_pause - everything of the lost connection is taken back; then wait for the source
 * Parks: until a new main channel is there; no deadline, because only the embedder may give the guest up.
 * Return: 0 it is there; 1 nothing is missing any more, so that it is not needed; why the guest was refused meanwhile;
 * -ECANCELED.
 */
may_park int recovery_pause(struct inm *inm);

/** recovery_load - the main stream of a source that is back, to its end. As load_stream. */
may_park int recovery_load(struct inm *inm, struct err *err);

/** recovery_reopen - wait at another address. In the state postcopy-paused. Return: as arrival_open. Parks not. */
int recovery_reopen(struct inm *inm, const struct address *addr, struct err *err);

/* In which states is there a network to lose? */
static inline bool recovery_may_pause(enum inm_state state)
{
	return state == INM_STATE_POSTCOPY_ACTIVE || state == INM_STATE_POSTCOPY_RECOVER;
}

/* inm_pause was heard. */
void recovery_force_pause(struct inm *inm);

#endif
