/*
 * load.h - a whole stream, from its header to its last byte
 *
 * The story of the stream as straight code; where it stands in the code is where the protocol stands. What the embedder
 * must be asked or told goes through struct load_ops.
 *
 * Source: doc/wire/stream.md 1, 2, 7.4.1
 */
#ifndef ENGINE_LOAD_LOAD_H
#define ENGINE_LOAD_LOAD_H

#include "coroutine/co.h"
#include "engine/load/package.h"
#include "engine/load/sections.h"
#include "engine/ram/ram.h"
#include "engine/stream/configuration.h"
#include "engine/stream/globalstate.h"
#include "engine/stream/reader.h"
#include "engine/stream/reply.h"

#include <stdbool.h>
#include <stdint.h>

struct err;
struct group;
struct inm_device;
struct inm_live_state;
struct log;
struct options;
struct trace;

struct load_ops {
	/* As in struct inm_ops; what is refused, in words, with the callback's name. */
	int (*ram_block)(void *opaque, struct inm_ram_block *block, struct err *err);
	/* NULL: the embedder has none. */
	int (*ram_listed)(void *opaque, struct err *err);
	int (*device)(void *opaque, const struct inm_device *device, struct err *err);
	/* NULL: the embedder has none. */
	int (*live_state)(void *opaque, const struct inm_live_state *piece, struct err *err);
	int (*early_described)(void *opaque, const struct inm_device *device, struct err *err);
	/* The main stream is at a multifd sync point: wait for the channels. NULL: multifd is off. Parks. */
	int (*sync)(void *opaque, struct err *err);
	/* The source has stopped its guest and says so (QEMU 10.0 on). */
	void (*switchover)(void *opaque);

	/*
	 * Postcopy. The switch: from here on no byte reaches guest memory but by postcopy/place. Before the first
	 * discard is carried out, and before LISTEN. Return: 0, also when it was called before; -EPROTO.
	 */
	int (*switch_memory)(void *opaque, struct err *err);
	/*
	 * Wait for the channels that pages will come on. Parks. Return: 0; -ETIMEDOUT: one has not come;
	 * -ENOTCONN: the connection was lost meanwhile; -ECANCELED.
	 */
	int (*await_channels)(void *opaque, struct err *err);
	/*
	 * LISTEN: from here on pages can be asked for and land.
	 * @takes_back: the source can take its guest back until it is told that it is ours
	 */
	int (*listen)(void *opaque, bool takes_back, struct err *err);
	/* May the package go on, before each step of it? Return: 0; -ECANCELED, -EIO. */
	int (*check_alive)(void *opaque, struct err *err);
	/* All device state is loaded; the last chance to refuse the guest. */
	int (*take_over)(void *opaque, struct err *err);
	/* The source asks whether the guest is ours (WIRE_PING_OWNER): it is, unless this fails. Parks. */
	int (*pledge)(void *opaque, struct err *err);
	void (*run)(void *opaque);
	/* The source goes on after a loss, and must hear RESUME_ACK when its pages can be taken. Parks. */
	int (*resume)(void *opaque, struct err *err);
	/* Main has ended as it should: wait for the pages that are still under way. Parks. */
	int (*await_pages)(void *opaque, struct err *err);
	/* The connection was found lost by somebody other than its reader, who may never find out. */
	void (*lost)(void *opaque, int result, const struct err *err);
	/* The package cannot be loaded, and the guest not be taken, whatever the network does. */
	void (*refused)(void *opaque, int result, const struct err *err);
};

/*
 * Where the stream stands (doc/wire/stream.md 5.2). From LISTENING on page records are those of postcopy; the package
 * decides when the guest runs.
 */
enum load_phase { LOAD_PRECOPY, LOAD_ADVISED, LOAD_DISCARDING, LOAD_LISTENING, LOAD_RECOVERING };

struct load {
	const struct options *opts; /* not owned, as the rest up to the blank line */
	const struct trace *trace;
	const struct log *log;
	const struct load_ops *ops;
	void *ops_opaque;
	struct ram *ram;
	struct postcopy *postcopy; /* used from the first discard on */
	struct group *tasks;       /* where the package's coroutine lives: a loss of the connection does not end it */

	struct reader reader;
	struct reply reply;
	struct configuration config;
	struct ram_loader ram_loader;
	struct sections sections;
	bool rounds_begun;           /* a PART or END was read: set-up is over */
	bool advised;                /* POSTCOPY_ADVISE was read, of either form */
	uint64_t advised_page_sizes; /* the source's, of all blocks, or'ed together; 0: not said */
	enum load_phase phase;
	struct package package;
	bool switched_over;
	bool has_run_state;
	char run_state[GLOBALSTATE_NAME_MAX + 1]; /* of the guest at the source */
	uint32_t devices;                         /* delivered */
	bool split_by_footers;
};

/**
 * load_init - the channel's first @bytes, at @first, were read already
 * Return: 0 or -ENOMEM. @ch is not owned.
 */
int load_init(struct load *l, struct sched *s, struct chan *ch, const void *first, size_t bytes);
may_park void load_fini(struct load *l);

/**
 * load_stream - all of it; the guest is complete when this returns 0, and the source has not been told
 * Parks: yes; no deadline, as in reader.h. Return: 0; or the first error, with section and offset.
 */
may_park int load_stream(struct load *l, struct err *err);

/** load_run_state - of the guest at the source, as the stream said; NULL: it did not */
static inline const char *load_run_state(const struct load *l)
{
	return l->has_run_state ? l->run_state : NULL;
}

/* ---- after a loss, from LISTEN on (doc/wire/stream.md 5.8) ---- */

/**
 * load_disconnect - the channel is lost; nobody may be reading. What is known of the stream stays.
 * Parks: until nobody writes; see reply_detach. May be called again.
 */
may_park void load_disconnect(struct load *l);

/** load_reconnect - the source is back on @ch, whose first @bytes were read already. Return: as load_init; -EPROTO. */
int load_reconnect(struct load *l, struct chan *ch, const void *first, size_t bytes, struct err *err);

/**
 * load_recover - the source learns what is here, and the stream goes on to its end
 * Each word of the source's up to RESUME has @patience_ns. Parks, and returns, as load_stream.
 */
may_park int load_recover(struct load *l, uint64_t patience_ns, struct err *err);

#endif
