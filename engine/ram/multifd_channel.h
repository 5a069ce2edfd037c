/*
 * multifd_channel.h - one multifd channel: its packets, and where their pages go
 *
 * It belongs to its own coroutine, which multifd_claims.c starts; the main stream looks at it, and lets it go on at a
 * barrier.
 */
#ifndef ENGINE_RAM_MULTIFD_CHANNEL_H
#define ENGINE_RAM_MULTIFD_CHANNEL_H

#include "base/list.h"
#include "coroutine/wait.h"
#include "engine/stream/multifd_packet.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct chan;
struct co;
struct err;
struct multifd;
struct multifd_decoder;

struct multifd_channel {
	struct multifd *m;
	unsigned id;
	struct chan *ch;                 /* owned */
	struct multifd_decoder *decoder; /* owned; NULL without compression */
	uint8_t *payload;                /* owned */
	struct semaphore go;             /* released by the main stream when it has passed the sync point */
	bool at_sync, ended;
	bool over;                           /* the source has closed it; there is nothing to drain */
	const struct multifd_packet *inside; /* pages of it are being received; NULL: between packets */
	bool chosen, passed_over;            /* of the claims of this id; neither while it is open */
	struct list node;                    /* in m->claims until then */
	unsigned rivals;                     /* other claims of this id by the same host */
	uint64_t came_ns;
	struct co *co; /* of the reader, once it has begun */
	struct iovec pages[MULTIFD_PAGES_MAX + 1];
	size_t first_bytes;                           /* of the first packet's prefix have come */
	uint8_t headers[2][MULTIFD_HEADER_BYTES_MAX]; /* one in use while the next one arrives */
};

/* NULL is allowed. */
void multifd_channel_free(struct multifd_channel *c);

/**
 * multifd_channel_read_first - the first packet's prefix
 * Parks: yes. Return: 1 all of it is there; 0 the channel has ended before; -ETIMEDOUT: may be called again.
 */
may_park int multifd_channel_read_first(struct multifd_channel *c, uint64_t deadline_ns, struct err *err);

/**
 * multifd_channel_read - all packets; the first one's prefix is there
 * Parks: yes. Return: 0 the channel has ended between packets, or the error.
 */
may_park int multifd_channel_read(struct multifd_channel *c, struct err *err);

/** multifd_channel_end - it has ended with @result: tells who has to know. Return: the coroutine's result. */
int multifd_channel_end(struct multifd_channel *c, int result, struct err *err);

/* Has it ended, and owes the next SYNC? It will never send it. @c: may be NULL. */
static inline bool multifd_channel_has_ended(const struct multifd_channel *c)
{
	return c && c->ended && !c->at_sync;
}

/* A coroutine's function: what the channel says is dropped, until it ends. @arg: the channel. */
may_park int multifd_channel_drain(void *arg);

#endif
