/*
 * package.h - device state that comes in one piece, while pages are still missing
 *
 * A postcopy source sends LISTEN, all device state and RUN as one package. It is received whole and divided by its
 * footers (it has no description). LISTEN is carried out where the stream stands; the devices are loaded in a coroutine
 * of their own, because a callback may touch a page that only comes on the main channel after the package.
 *
 * What is here is kept when the connection is lost: the devices are loaded and the guest started all the same, and a
 * callback that waits for a page waits until the source is back. Except where the source asks, before RUN, whether the
 * guest is ours (QEMU 10.2 on): until it has heard that it is, it would run the guest itself.
 *
 * Source: doc/wire/stream.md 5.1, 5.4, 7.4.2
 */
#ifndef ENGINE_LOAD_PACKAGE_H
#define ENGINE_LOAD_PACKAGE_H

#include "coroutine/co.h"
#include "coroutine/wait.h"
#include "engine/devices/split.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct load;

/* As TAIL_BYTES_MAX: device state of one guest. */
#define PACKAGE_BYTES_MAX (512u << 20)

/* Sources send one. */
#define PACKAGE_PINGS_MAX 8

struct package {
	uint8_t *buf; /* owned */
	size_t bytes;
	uint64_t off; /* of buf[0] in the stream */
	struct split_result split;
	struct event listened; /* LISTEN has been carried out: the devices may be loaded */
	struct event done;     /* RUN has been carried out */
	bool begun;
	bool has_owner_ping; /* the source takes the guest back unless it is told that it is ours */
	bool cut;            /* the connection that it came on is lost: its PINGs are not to be answered */
	uint32_t pings[PACKAGE_PINGS_MAX]; /* after the package, to be answered when it is done: in their turn */
	unsigned ping_count;
};

void package_init(struct package *p, struct sched *s);
may_park void package_fini(struct package *p); /* a cancel stays pending */

/* Is there a package whose devices are still being loaded? */
static inline bool package_is_loading(const struct package *p)
{
	return p->begun && !p->done.set;
}

/* package_cut - the channel it came on is lost: what was left to answer is not owed. */
void package_cut(struct package *p);

/**
 * package_read - @bytes of package after its command, up to and with LISTEN; then the devices are loaded beside
 * Parks: yes. Return: 0; -EPROTO; -ENOMEM; what LISTEN failed with; -ENOTCONN: LISTEN was carried out, and the
 * connection is lost.
 */
may_park int package_read(struct load *l, uint32_t bytes, struct err *err);

#endif
