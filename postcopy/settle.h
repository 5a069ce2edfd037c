/*
 * settle.h - the stream has ended: what has not come is lost, or was never there
 *
 * A source does not send what is unplugged there (virtio-mem), although it has discarded it: at the end of the stream
 * such pages are zeros. The stream does not say which ones they are. But a page that was asked for, or of which a part
 * has come, was at the source and has been lost on the way. Calling it zeros would lose the guest in silence.
 *
 * Only the embedder can know better: in a block with parts that are unplugged (block->unplugged) a thread may have
 * touched one of them. But what is unplugged is whole units: a part that has come was not.
 *
 * Source: doc/wire/stream.md 5.7
 */
#ifndef POSTCOPY_SETTLE_H
#define POSTCOPY_SETTLE_H

#include "coroutine/co.h"

#include <stdbool.h>

struct err;
struct postcopy;

/**
 * settle_is_due - main has ended, and the preempt channel has not: can it be known that nothing comes on it any more?
 * Only where the embedder has said that parts are unplugged, and nothing was asked for there. Elsewhere time must tell.
 * Parks: yes; the answer is that of its end.
 */
may_park bool settle_is_due(const struct postcopy *pc);

/**
 * settle - nothing will come any more
 * Return: 0 all is here: what was missing is zeros now, and a warning says how many pages; -ENODATA pages are lost, the
 * text says how many and where the first is, and nothing has changed. Parks: yes.
 */
may_park int settle(struct postcopy *pc, struct err *err);

/** settle_check - the last word of a migration rests on this: is everything here? Parks: no. Return: 0; -ENODATA. */
int settle_check(const struct postcopy *pc, struct err *err);

#endif
