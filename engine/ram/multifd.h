/*
 * multifd.h - pages on channels of their own
 *
 * A coroutine for each channel reads packets and lands them (multifd_channel.h), once it has been chosen of those that
 * claim to be this channel (multifd_claims.h). At a sync point channels and the main stream wait for each other
 * (multifd_barrier.h).
 *
 * Invariants:
 * (1) A connection is a claim only when its 64 bytes have been read and checked; it is handed over in one step, and
 *     only its reader uses it from then on. A channel is in its slot only when it was chosen.
 * (2) Between a channel's SYNC and the matching sync point its reader reads nothing; the main stream applies nothing
 *     between the sync point and every channel's SYNC.
 * (3) A packet is checked whole before a byte of its payload is received.
 * (4) From a packet's first page to its last byte the channel is inside the gate of guest memory (memory/gate.h).
 */
#ifndef ENGINE_RAM_MULTIFD_H
#define ENGINE_RAM_MULTIFD_H

#include "base/err.h"
#include "base/list.h"
#include "coroutine/group.h"
#include "coroutine/wait.h"
#include "engine/ram/multifd_decode.h"
#include "engine/stream/multifd_packet.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct hello;
struct log;
struct multifd_channel;
struct options;
struct ram;

struct multifd_counts {
	uint64_t bytes, packets, normal_pages, zero_pages, syncs;
	uint64_t sync_wait_ns; /* the main stream waited so long at sync points */
};

/* The first claim of the source's own that has ended between the list of blocks and the first sync point. */
struct multifd_gone {
	unsigned id;
	uint64_t at_ns;
	int result; /* 0: there is none */
	struct err err;
};

struct multifd {
	const struct options *opts; /* not owned, as the rest up to the blank line */
	struct ram *ram;
	const struct log *log;
	const struct hello *main; /* whose channels they are; main->ch is NULL before it is there */
	struct group *readers;    /* the coroutines of the channels; one that fails cancels them all */
	void (*failed)(void *opaque, int result, const struct err *err); /* a reader's error, before it ends */
	void *failed_opaque;

	unsigned channels;                                   /* how many there must be; 0: multifd is off */
	unsigned compression;                                /* flag of packets with pages */
	struct multifd_windows windows;                      /* what the channels' decoders hold */
	struct multifd_channel *slots[MULTIFD_CHANNELS_MAX]; /* owned */
	unsigned at_sync;                                    /* channels that wait at a SYNC */
	struct list claims;                                  /* of ids, the oldest first; empty from the start on */
	unsigned claim_count;
	struct multifd_gone gone;
	struct event arrived; /* set when a claim comes or goes */
	struct event started; /* set at the first sync point: all are chosen, and readers may begin */
	struct event changed; /* set when a channel comes to a SYNC or ends */
	bool switched;        /* postcopy has begun: SYNC means nothing */
	bool missed;          /* pages came after that */
	struct multifd_counts counts;
};

/* @m: zeroed, with the fields up to failed_opaque set. */
void multifd_init(struct multifd *m, struct sched *s);

/* All readers must have ended. */
void multifd_fini(struct multifd *m);

/* Have the channels been chosen? Nobody else is one from then on. */
static inline bool multifd_is_settled(const struct multifd *m)
{
	return m->started.set;
}

/** multifd_has_ended - has a channel ended that owes the next SYNC? */
bool multifd_has_ended(const struct multifd *m);

/**
 * multifd_sync - the main stream is at a sync point
 * Parks: until every channel is there and has come to its SYNC; not longer than the parameter connect-deadline for a
 * channel that has not come at all, and MULTIFD_STALL_NS without a byte on any channel.
 * The first time, the channels are chosen. Return: 0; -ETIMEDOUT; -ENODATA when a channel has ended; -ECANCELED.
 */
may_park int multifd_sync(struct multifd *m, struct err *err);

/** multifd_check_whole - have all bytes come of every page that a channel has begun? Return: 0; -EPROTO, by name. */
int multifd_check_whole(const struct multifd *m, struct err *err);

/**
 * multifd_switch - postcopy begins: the channels stay open and carry nothing any more (doc/wire/stream.md 5.6)
 * Shuts the gate of guest memory (memory/gate.h), also where multifd is off. May be called again.
 * Return: 0; -EPROTO a channel stands, or has ended, inside a packet with pages: nothing is switched then, and the
 * error that follows cancels what is being received and waits for it.
 */
int multifd_switch(struct multifd *m, struct err *err);

/**
 * multifd_drain - after a loss in postcopy: channels that are still open are read on, and what they say is dropped
 * QEMU 7.2 goes on to write SYNC packets there, and would wait if nobody took them. Return: 0 or -ENOMEM.
 */
int multifd_drain(struct multifd *m);

#define MULTIFD_STALL_NS (120ull * 1000000000ull)

#endif
