/*
 * contest.h - which of several connections is the main channel
 *
 * Anybody who reaches the port can say the magic of a source. So the place of the main channel is taken in steps:
 *
 *   candidate   its opening is complete (stream/opening.h): it waits for the place, in its own coroutine, in the order
 *               of arrival. One that has said less keeps nobody out, and has connect-deadline to say more.
 *   provisional it has the place (contest.main), and its stream is loaded. Nothing of a guest is here yet. If it ends,
 *               or falls silent while a candidate waits, all of it is dropped and the next candidate has the place.
 *   committed   the embedder has been asked for a RAM block or given a device: from here on it is the migration, and
 *               its errors are the migration's.
 *
 * So what goes away, or says nothing, before it has told a complete list of RAM blocks cannot end a migration that
 * another one could still make, and cannot hold it up for longer than its patience (below). The embedder never hears
 * of an attempt that was dropped: the state stays setup, and ram_block is not called. What is *wrong* in a provisional
 * stream (a machine type that is not ours, a capability that is off here) is an error at once, as it is later: somebody
 * must change it.
 *
 * A recovery works in the same way: main is provisional until RESUME is answered. If an attempt is dropped, we pause
 * again.
 *
 * Invariants:
 * (1) A connection becomes main without a park between the look at the place and the taking of it.
 * (2) After a commit, until a pause, nobody else has the place.
 *
 * Where there is a single connection (fd:, exec:, file:) there is no contest: its end is an error.
 */
#ifndef ENGINE_CONTEST_H
#define ENGINE_CONTEST_H

#include "base/list.h"
#include "coroutine/co.h"
#include "coroutine/wait.h"
#include "engine/stream/hello.h"

#include <stdbool.h>
#include <stdint.h>

struct err;
struct log;
struct options;
struct pause;
struct ram;

/* How long a provisional main channel may take when a candidate waits: for its list of RAM blocks, which a source sends
 * in one piece. It counts from its opening, so that of many who waited each has only a moment: what a source has sent
 * meanwhile is here. A recovery, with all its bitmaps, has connect-deadline from its turn on. */
#define CONTEST_PATIENCE_NS (2ull * 1000000000ull)
#define CONTEST_MOMENT_NS (200ull * 1000000ull)

struct contest {
	const struct options *opts; /* not owned, as the rest up to the blank line */
	const struct ram *ram;      /* the blocks that a source that is back may ask for */
	const struct pause *pause;  /* a recovery: provisional until RESUME is answered */
	/* Its owner must give the place up in a recovery: the connection is as good as lost. */
	void (*lost)(void *opaque, int result, const struct err *err);
	void *opaque;

	struct hello main;       /* main.ch is owned; NULL before it is there, and when it is closed */
	uint64_t main_bytes;     /* of main channels that are closed */
	bool taken;              /* main has the place; its channel may be in a TLS handshake, or closed */
	struct event main_there; /* the place is taken */
	struct list candidates;  /* complete, the oldest first */
	struct event news;       /* the place may be free, or is taken for good */
	uint64_t until_ns;       /* when the patience with its owner ends, if a candidate waits */
	bool displaced;          /* its owner must give it up, and commits no more */
	bool committed;
	bool single;    /* fd:, exec:, file:, where nobody else can come */
	unsigned drops; /* provisional streams that were dropped */
};

/* @c: zeroed, with the fields up to opaque set. */
void contest_init(struct contest *c, struct sched *s);

/**
 * contest_enter - for a connection that began as main does: until the place is free for it, or taken for good
 * Reads its opening, until @deadline_ns. For the connection's own coroutine.
 * Parks: yes; the wait for the place has no deadline: each of those before it has its patience, and they are few.
 * Return: 0 decide now (by (1), without a park); -EPROTO, -ENODATA, -ETIMEDOUT: it is no source; -ECANCELED.
 */
may_park int contest_enter(struct contest *c, struct hello *h, uint64_t deadline_ns, struct err *err);

/** contest_take - @h is the main channel from here on; consumes h->ch */
void contest_take(struct contest *c, struct hello *h);

/** contest_close - the main channel is closed; its place is not free by that. May be called again. */
void contest_close(struct contest *c);

/** contest_main_bytes - of all main channels, as they came */
uint64_t contest_main_bytes(const struct contest *c);

/** contest_extend - its patience starts again, because it has made progress */
void contest_extend(struct contest *c);

/** contest_free - the place is free again; main is closed */
void contest_free(struct contest *c);

/** contest_settled - the place is taken for good again: RESUME was answered */
void contest_settled(struct contest *c);

/** contest_check - has main still its place? Return: 0; -ECONNABORTED it was displaced. */
int contest_check(const struct contest *c, struct err *err);

/**
 * contest_commit - before the embedder is told something of the guest
 * Return: 1 it has just become the migration; 0 it was before; -ECONNABORTED it was displaced.
 */
int contest_commit(struct contest *c, struct err *err);

/** contest_may_drop - the provisional main stream has ended with @result: may all of it be dropped? */
bool contest_may_drop(const struct contest *c, int result);

#endif
