/*
 * arrival.h - who connects, and what they are
 *
 * A coroutine accepts on each listening socket, and each connection has one of its own until it is known what it is:
 * TLS first where TLS is on, then its first bytes, then the one decision (stream/hello.h). Until then it belongs to
 * its coroutine and to no one else; then it is handed over in one step, or closed. All of them are children of
 * inm->arrival: when arrival_end has returned, no connection is in the making.
 *
 * Strangers can neither fail nor delay a migration: each has a deadline, they are few at a time, and of too many the
 * oldest one of the address that has most of them goes. So a flood from one address never closes the only connection of
 * another.
 *
 * Source: doc/wire/channels.md 4, 6
 */
#ifndef ENGINE_ARRIVAL_H
#define ENGINE_ARRIVAL_H

#include "coroutine/co.h"

#include <stdbool.h>
#include <stdint.h>

struct address;
struct err;
struct hello;
struct inm;

/**
 * arrival_open - listen at @addr, or open the one channel it stands for
 * Return: 0; the errno of what failed. arrival_undo takes it back as long as arrival_start has not been called.
 */
int arrival_open(struct inm *inm, const struct address *addr, struct err *err);
void arrival_undo(struct inm *inm);

/** arrival_start - begin to accept. Return: 0 or -ENOMEM. */
int arrival_start(struct inm *inm);

/**
 * arrival_secure - with TLS on, @h->ch, which is main whatever it says, becomes a session whose peer is verified
 * Without TLS nothing happens. With certificates its first bytes are read, too, so that a source that does not trust
 * ours is told from one that has nothing to say. When the handshake fails, the channel is closed and h->ch is NULL.
 * Parks: yes; the handshake until @deadline_ns, the first bytes may take as long as they like. Return: as
 * tls_chan_wrap and hello_read.
 */
may_park int arrival_secure(struct inm *inm, struct hello *h, uint64_t deadline_ns, struct err *err);

/** arrival_has_silent - is there a connection that has said nothing yet, and can only be the preempt channel? */
bool arrival_has_silent(const struct inm *inm);

/**
 * arrival_forget_silent - a pause: connections that have said nothing as yet were the lost network's
 * None of them is the preempt channel of the next one. They are closed: at once, or when they have been here for a
 * tenth of connect-deadline, because a main channel may be among them whose first bytes are on their way. Only what
 * came together with a main channel that is back early is kept.
 */
void arrival_forget_silent(struct inm *inm);

/**
 * arrival_reopen - stop listening where we do, and listen at @addr, or take the one channel it stands for as main
 * Parks not: arrival_move does the rest, in the story. Return: as arrival_open; then nothing is listened to any more.
 */
int arrival_reopen(struct inm *inm, const struct address *addr, struct err *err);
may_park void arrival_move(struct inm *inm);

/** arrival_end - no more connections; those under way are closed. @result: how the migration ended. Parks: yes. */
may_park void arrival_end(struct inm *inm, int result);

#endif
