/*
 * reply.h - the return path: what the destination says to the source
 *
 * Messages go over the main channel against the stream's direction, each written whole under one lock, so that several
 * coroutines may speak.
 *
 * Source: doc/wire/stream.md 3
 */
#ifndef ENGINE_STREAM_REPLY_H
#define ENGINE_STREAM_REPLY_H

#include "coroutine/co.h"
#include "coroutine/wait.h"

#include <stdbool.h>
#include <stdint.h>

struct block;
struct chan;
struct err;
struct page_request;

struct reply {
	struct chan *ch; /* not owned; NULL while the connection is lost */
	struct mutex lock;
	bool open;                /* the source has said OPEN_RETURN_PATH */
	bool shut;                /* SHUT is sent: nothing may follow */
	bool mute;                /* nobody is there to hear it: what is said goes nowhere */
	const struct block *last; /* the block that the last page request named */
};

void reply_init(struct reply *rp, struct sched *s, struct chan *ch);

/**
 * reply_detach - its channel is lost, and about to be closed: it is shut down, and as if the source had never opened it
 * Writes under way fail, and so do later ones, with -ENOTCONN. Parks: until nobody writes. May be called again.
 */
may_park void reply_detach(struct reply *rp);

/* reply_attach - the source is back on @ch; nothing can be written before reply_open. */
void reply_attach(struct reply *rp, struct chan *ch);

/** reply_open - from here on the source listens. Return: 0; -EPROTO on a channel that cannot be written. */
int reply_open(struct reply *rp, struct err *err);

/** reply_is_awaited - does a source wait for what it is told at the end? */
static inline bool reply_is_awaited(const struct reply *rp)
{
	return rp->open && !rp->mute;
}

/* These park, for at most REPLY_TIMEOUT_NS: a source reads its return path at all times. */
#define REPLY_TIMEOUT_NS (30ull * 1000000000ull)
may_park int reply_pong(struct reply *rp, uint32_t value, struct err *err);
may_park int reply_switchover_ack(struct reply *rp, struct err *err);

/** reply_request - pages, in one write; at most REQUEST_BATCH_MAX requests of whole units (postcopy/ledger.h) */
may_park int reply_request(struct reply *rp, const struct page_request *list, size_t count, struct err *err);

/** reply_bitmap - which pages of a block are here (doc/wire/stream.md 5.8). Each piece of it has REPLY_TIMEOUT_NS. */
may_park int reply_bitmap(struct reply *rp, const struct block *b, struct err *err);
/** reply_resume_ack - all bitmaps have been sent, and pages may be. What is asked for next names its block. */
may_park int reply_resume_ack(struct reply *rp, struct err *err);

/** reply_shut - the last message: 0 the guest is ours, else the source keeps it. A second call does nothing. */
may_park int reply_shut(struct reply *rp, uint32_t status, uint64_t deadline_ns, struct err *err);

#endif
