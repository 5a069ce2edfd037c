/*
 * line.h - connections that have not said what they are
 *
 * Each stands in the line, the oldest first, from its accept until it is handed over or closed. The line has room for
 * CONNECTIONS_UNKNOWN_MAX and as many as there are multifd channels. When it is full, the oldest connection of the host
 * that has most of them goes. So a flood from one host closes its own connections, and never the only one of another
 * host: a main channel may be old and silent all the while.
 */
#ifndef ENGINE_LINE_H
#define ENGINE_LINE_H

#include "base/list.h"
#include "engine/channel/channel.h"
#include "engine/stream/hello.h"

#include <stdbool.h>
#include <stddef.h>

struct arrival;
struct co;
struct log;

/* Connections that have not said what they are, at most, beside the channels that are expected. */
#define CONNECTIONS_UNKNOWN_MAX 64
/* What such a connection holds without TLS: its names, the four bytes, the stack it has used. Inside TLS: tls.h. */
#define UNKNOWN_CHAN_BYTES_MAX (32u << 10)

struct line {
	struct list unknown; /* the oldest first */
	size_t count;        /* without those that were evicted and have not had their turn to end */
};

/* A connection, in a coroutine of its own until it is known what it is. */
struct connection {
	struct list node; /* in the line */
	struct arrival *arrival;
	struct co *co;   /* NULL before its first turn */
	bool evicted;    /* it must end, and may not have had its first turn */
	bool silent;     /* its first bytes are awaited */
	bool early;      /* of a source that is back before we have noticed that it was lost */
	bool former;     /* of a network that was lost since: never the preempt channel */
	size_t siblings; /* others of the same peer in the line */
	struct hello hello;
	char name[sizeof(((struct chan *)0)->name)]; /* the channel's, which is elsewhere during a TLS handshake */
};

void line_init(struct line *line);
void line_join(struct line *line, struct connection *conn);

/** line_leave - may be called again */
void line_leave(struct line *line, struct connection *conn);

/** line_evict - it leaves the line now and ends in its turn */
void line_evict(struct line *line, struct connection *conn);

/** line_evict_one - there are too many */
void line_evict_one(struct line *line, const struct log *log);

#endif
