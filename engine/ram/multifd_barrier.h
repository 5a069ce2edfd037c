/*
 * multifd_barrier.h - where channels and the main stream wait for each other
 *
 * From time to time the source puts a SYNC packet on every channel and a sync point into the main stream. A channel
 * that is at its SYNC reads nothing until the main stream has passed the sync point, and the main stream passes it when
 * all channels are there; so a later copy of a page can never lose to an earlier one (doc/wire/multifd.md 5).
 */
#ifndef ENGINE_RAM_MULTIFD_BARRIER_H
#define ENGINE_RAM_MULTIFD_BARRIER_H

#include "coroutine/co.h"

struct err;
struct multifd;
struct multifd_channel;

/* A channel is at a SYNC. Parks: until the barrier is opened; not in postcopy. Return: 0 or -ECANCELED. */
may_park int multifd_barrier_wait(struct multifd_channel *c);

/**
 * multifd_barrier_await - the main stream is at a sync point: until every channel is at its SYNC
 * All channels are chosen. Return: 0; -ENODATA one has ended; -ETIMEDOUT MULTIFD_STALL_NS without a byte; -ECANCELED.
 */
may_park int multifd_barrier_await(struct multifd *m, struct err *err);

/* Let channels that wait go on. Parks: no. */
void multifd_barrier_open(struct multifd *m);

#endif
