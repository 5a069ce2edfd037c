/*
 * inm.h - a migration, of its parts
 *
 * Each part is a type with a file of its own, which knows of the others only what it is handed. The files that know
 * all of it are few, and carry things from one part to another: incoming.c tells the story, delivery.c, switchover.c
 * and recovery.c do what a stream asks for, channels.c what a connection turns out to be, api*.c what the embedder
 * wants.
 */
#ifndef ENGINE_INM_H
#define ENGINE_INM_H

#include "base/log.h"
#include "engine/arrival.h"
#include "engine/callbacks.h"
#include "engine/claim.h"
#include "engine/contest.h"
#include "engine/load/load.h"
#include "engine/options/options.h"
#include "engine/owner.h"
#include "engine/pause.h"
#include "engine/preempt.h"
#include "engine/ram/multifd.h"
#include "engine/story.h"
#include "engine/stream/trace.h"
#include "inmigrate.h"
#include "memory/block.h"
#include "postcopy/postcopy.h"

#include <stdbool.h>
#include <stddef.h>

/* What the embedder knows of a reactor. One that an inm has made for itself is in here, too. */
struct inm_reactor {
	struct reactor *reactor; /* owned */
	struct claim claim;      /* the call that touches one of its migrations has it */
	size_t migrations;       /* that were made and have not been freed */
};

struct inm {
	struct inm_reactor *home;
	struct reactor *reactor; /* home's */
	bool reactor_is_ours;    /* home, too */
	struct log log;
	struct log_limit log_limit; /* of log.limit */
	struct trace trace;
	struct options opts;

	struct callbacks callbacks; /* who is asked and told */
	struct owner owner;         /* who has the guest */
	struct story story;         /* what is known of it all */
	struct arrival arrival;     /* connections */
	struct contest contest;     /* which of them is main */
	struct preempt preempt;
	struct pause pause;
	struct load load; /* the main stream */
	bool load_made;
	struct load_ops load_ops;
	struct multifd multifd;
	bool set_up_watched; /* a multifd channel was refused: see set_up.c */
	struct ram ram;
	struct postcopy postcopy;
};

#endif
