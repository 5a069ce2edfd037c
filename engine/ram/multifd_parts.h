/*
 * multifd_parts.h - what multifd.c and multifd_claims.c share
 */
#ifndef ENGINE_RAM_MULTIFD_PARTS_H
#define ENGINE_RAM_MULTIFD_PARTS_H

#include "engine/ram/multifd.h"

#include "base/list.h"
#include "coroutine/wait.h"
#include "engine/stream/multifd_packet.h"

#include <sys/uio.h>

struct chan;
struct co;
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
	uint8_t headers[2][MULTIFD_HEADER_BYTES_MAX]; /* one in use while the next one arrives */
};

void multifd_channel_free(struct multifd_channel *c);

/* The coroutine of a channel, from its claim to its end. */
may_park int multifd_run_channel(void *arg);

/**
 * multifd_claims_await - until every id has a claim by the main channel's host; then the best of each are chosen
 * What others claim is taken only when connect-deadline has passed. Does nothing when it was done before.
 * Parks: yes. Return: 0; -ETIMEDOUT some have not come; the error of one that has come and gone; -ENOMEM; -ECANCELED.
 */
may_park int multifd_claims_await(struct multifd *m, struct err *err);

/** multifd_claims_settle - choose among those that are there, and let the readers go. Parks: no. Return: 0, -ENOMEM. */
int multifd_claims_settle(struct multifd *m, struct err *err);

/** multifd_claim_end - it has ended with @result, or was not chosen. Frees it. */
void multifd_claim_end(struct multifd_channel *c, int result, const struct err *err);

#endif
