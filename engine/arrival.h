/*
 * arrival.h - connections arrive, and become channels
 *
 * A coroutine accepts on each listening socket, and each connection has one of its own until it is known what it is:
 * TLS first where TLS is on, then its first bytes, then the one decision (stream/hello.h). Until then it belongs to
 * its coroutine and to no one else; then it is handed over in one step, or closed. All of them are children of
 * arrival.meeting: when arrival_end has returned, no connection is in the making.
 *
 * Strangers can neither fail nor delay a migration: each has a deadline, they are few at a time, and of too many the
 * oldest one of the address that has most of them goes (line.h). So a flood from one address never closes the only
 * connection of another.
 *
 * It asks through struct arrival_ops what the migration has and lacks, each time again: that may have changed at each
 * park. It hands over a connection, once it knows what that is, in the same way.
 *
 * Source: doc/wire/channels.md 4, 6
 */
#ifndef ENGINE_ARRIVAL_H
#define ENGINE_ARRIVAL_H

#include "coroutine/co.h"
#include "coroutine/group.h"
#include "engine/channel/exec.h"
#include "engine/channel/listener.h"
#include "engine/line.h"
#include "engine/stream/hello.h"

#include <stdbool.h>
#include <stdint.h>

struct address;
struct err;
struct event;
struct log;
struct options;
struct reactor;
struct tls_creds;

/* What a connection is judged by. */
struct arrival_view {
	struct hello_state state;
	bool listening;            /* pages can have been asked for */
	uint64_t missing_tpages;   /* while listening */
	unsigned multifd_channels; /* expected */
	bool may_pause;            /* a loss of the connection would be a pause */
};

struct arrival_ops {
	void (*look)(void *opaque, struct arrival_view *ret);
	/* It began as main does: until it can be decided, see contest_enter. Parks. */
	int (*contend)(void *opaque, struct hello *h, uint64_t deadline_ns, struct err *err);
	/*
	 * It is this. Consumes h->ch where it returns 0; else why not, which is the connection's error. Parks for a
	 * multifd channel, until @deadline_ns.
	 */
	int (*take)(void *opaque, enum hello_role role, struct hello *h, uint64_t deadline_ns, struct err *err);
	/* One that is silent may be the preempt channel. */
	void (*may_be_preempt)(void *opaque);
	/* Nobody is left who can be the preempt channel, and pages are to come on it. */
	void (*lost)(void *opaque, int result, const struct err *err);
	/* A multifd channel was turned away: that may be why the source gives up. Then, parking, what follows. */
	void (*turned_away)(void *opaque, const struct err *err);
	void (*watch_turned_away)(void *opaque, const char *name);
};

struct arrival {
	struct reactor *reactor; /* not owned, as the rest up to the blank line */
	const struct log *log;
	const struct options *opts;
	const struct hello *main; /* main->ch is NULL while there is none */
	struct event *paused;     /* set while we wait for a source that comes back */
	const struct arrival_ops *ops;
	void *opaque;

	struct tls_creds *tls;  /* owned; NULL: TLS is off. It is for every channel, or none */
	struct group acceptors; /* one for each listening socket */
	struct group meeting;   /* connections under way, and the command of exec: */
	struct line line;       /* those that have not said what they are */
	struct listener listener;
	struct listener next; /* that arrival_reopen has opened, when reopened is set */
	bool reopened;
	struct exec exec;
	uint64_t refused_ns; /* when a refused multifd channel was last said loudly; 0: never */
};

/* @a: zeroed, with the fields up to opaque set. */
void arrival_init(struct arrival *a);

/**
 * arrival_open - load what TLS needs, and listen at @addr, or open the one channel it stands for
 * @ret_single: that channel, which is main; its ch is NULL where there is a listener
 * Return: 0; the errno of what failed. arrival_undo takes it back as long as arrival_start has not been called.
 */
int arrival_open(struct arrival *a, const struct address *addr, struct hello *ret_single, struct err *err);
void arrival_undo(struct arrival *a);

/** arrival_start - begin to accept. Return: 0 or -ENOMEM. */
int arrival_start(struct arrival *a);

/** arrival_address - where it listens: the @index'th address as text; NULL: there are not so many */
const char *arrival_address(const struct arrival *a, unsigned index);

/**
 * arrival_secure - with TLS on, @h->ch, which is main whatever it says, becomes a session whose peer is verified
 * Without TLS nothing happens. With certificates its first bytes are read, too, so that a source that does not trust
 * ours is told from one that has nothing to say. When the handshake fails, the channel is closed and h->ch is NULL.
 * Parks: yes; the handshake until @deadline_ns, the first bytes may take as long as they like. Return: as
 * tls_chan_wrap and hello_read.
 */
may_park int arrival_secure(struct arrival *a, struct hello *h, uint64_t deadline_ns, struct err *err);

/** arrival_has_silent - is there a connection that has said nothing yet, and can only be the preempt channel? */
bool arrival_has_silent(const struct arrival *a);

/**
 * arrival_forget_silent - a pause: connections that have said nothing as yet were the lost network's
 * None of them is the preempt channel of the next one. They are closed: at once, or when they have been here for a
 * tenth of connect-deadline, because a main channel may be among them whose first bytes are on their way. Only what
 * came together with a main channel that is back early is kept.
 */
void arrival_forget_silent(struct arrival *a);

/**
 * arrival_reopen - stop listening where we do, and listen at @addr, or take the one channel it stands for as main
 * @ret_single: as arrival_open. Parks not: arrival_move does the rest, in a coroutine. Return: as arrival_open; then
 * nothing is listened to any more.
 */
int arrival_reopen(struct arrival *a, const struct address *addr, struct hello *ret_single, struct err *err);
may_park void arrival_move(struct arrival *a);

/** arrival_end - no more connections; those under way are closed. @result: how the migration ended. Parks: yes. */
may_park void arrival_end(struct arrival *a, int result);

#endif
