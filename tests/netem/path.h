/*
 * path.h - one direction of the link: a packet enters, and leaves when its time has come, or never
 *
 *   enter -> blackout? -> chance (fate.h) -> the queue before the rate -> the wire: delay, jitter -> leave
 *
 * This file does no input or output but the log, and has no clock: the caller says what time it is.
 *
 * Invariants:
 * (1) What a packet meets is decided when it enters. A setting that is changed later, or a blackout that begins, leaves
 *     packets on the wire alone.
 * (2) Packets of the same time leave in the order in which they entered.
 * (3) Every packet draws its fate (fate.h, 2), also one that a blackout takes.
 */
#ifndef TESTS_NETEM_PATH_H
#define TESTS_NETEM_PATH_H

#include "tests/netem/fate.h"
#include "tests/netem/settings.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* So many packets on the wire at once are a slip in the settings; more are lost, and counted as overflow. */
#define PATH_PACKETS_MAX 65536

struct packet {
	uint64_t due_ns;
	uint64_t order;  /* breaks ties, by (2) */
	uint64_t number; /* of the packet in its direction, from 0; a duplicate has that of its original */
	size_t bytes;
	unsigned char data[];
};

struct path_stats {
	uint64_t packets, bytes; /* entered */
	uint64_t delivered, delivered_bytes;
	uint64_t lost, blacked_out,
	        overflow; /* entered and did not leave: by chance, in a blackout, for want of room */
	uint64_t duplicated, corrupted, reordered; /* decided, of those neither lost nor blacked out */
	uint64_t overtaken;                        /* left after one that had entered later (RFC 4737) */
	uint64_t largest;                          /* bytes of a packet */
};

struct path {
	const char *name;
	struct settings settings;
	struct dice dice;
	struct path_stats stats;
	FILE *log; /* or NULL; the caller's */

	bool down;
	struct blackout blackouts[BLACKOUTS_MAX]; /* at_ns is on the caller's clock */
	size_t blackout_count;

	uint64_t start_ns;
	uint64_t rate_free_ns; /* when the last packet's last bit is out */
	uint64_t order, newest;
	struct packet **heap; /* earliest first */
	size_t heap_count, heap_room;
};

/** path_init - @name: for the log; @direction: see dice_init */
void path_init(struct path *p, const char *name, uint64_t seed, unsigned int direction);
void path_fini(struct path *p);

/** path_start - the blackouts that are set are relative to this moment, and so is the log */
void path_start(struct path *p, uint64_t now_ns);

/** path_blackout - one more. Return: 0, or -ENOSPC: BLACKOUTS_MAX are to come. Those that are over make room. */
int path_blackout(struct path *p, struct blackout window, uint64_t now_ns);

/** path_enter - @data is copied */
void path_enter(struct path *p, const void *data, size_t bytes, uint64_t now_ns);

/** path_next_ns - when the next one leaves; DEADLINE_NEVER if there is none */
uint64_t path_next_ns(const struct path *p);

/** path_leave - the next one whose time has come, or NULL. Owns: the caller, who gives it to free(3). */
struct packet *path_leave(struct path *p, uint64_t now_ns);

#endif
