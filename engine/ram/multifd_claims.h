/*
 * multifd_claims.h - connections that say they are a multifd channel, and which of them is one
 *
 * Anybody can say that it is channel 0. So this is a claim, and an id may have several until the main stream is at its
 * first sync point. Then we choose one for each id, among those that live: we prefer main's host, and among several the
 * one whose connection came closest in time to main's; all others are closed. For an id that only other hosts claim, we
 * wait until connect-deadline for a claim from main's. There may be twice as many claims as channels, and 64; when more
 * come, the oldest claim of the host that claims one id most often goes. A claim that ends frees its place, and ends
 * nothing. This does not cover a stranger on the source's own host (or on the same unix socket): it must connect at the
 * same moment, and then nobody can tell it from the source.
 */
#ifndef ENGINE_RAM_MULTIFD_CLAIMS_H
#define ENGINE_RAM_MULTIFD_CLAIMS_H

#include "coroutine/co.h"

#include <stdint.h>

struct err;
struct hello;
struct multifd;

/**
 * multifd_join - a connection that began like a multifd channel becomes a claim
 * Reads the rest of its first packet. Consumes h->ch, also on failure. For the connection's own coroutine.
 * Parks: yes, until @deadline_ns. Return: 0 handed over; else why not, which is the connection's error and not the
 * migration's.
 */
may_park int multifd_join(struct multifd *m, struct hello *h, uint64_t deadline_ns, struct err *err);

/**
 * multifd_claims_await - until every id has a claim by the main channel's host; then the best of each are chosen
 * What others claim is taken only when connect-deadline has passed. Does nothing when it was done before.
 * Parks: yes. Return: 0; -ETIMEDOUT some have not come; the error of one that has come and gone; -ENOMEM; -ECANCELED.
 */
may_park int multifd_claims_await(struct multifd *m, struct err *err);

/** multifd_claims_settle - choose among those that are there, and let the readers go. Parks: no. Return: 0, -ENOMEM. */
int multifd_claims_settle(struct multifd *m, struct err *err);

#endif
