/*
 * story.h - what is known of a migration: its state, its first error, its times, and the coroutines that carry it
 *
 * incoming.c tells the story. This is what all who take part in it write to: each through a function here.
 *
 * Invariants:
 * (1) The first error is kept: what comes after it is its consequence.
 * (2) Each coroutine is a child of one of these groups, and the story closes them before it ends. So nothing is left
 *     when it has ended.
 */
#ifndef ENGINE_STORY_H
#define ENGINE_STORY_H

#include "base/err.h"
#include "coroutine/group.h"
#include "coroutine/wait.h"
#include "inmigrate.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct callbacks;

struct story {
	struct callbacks *callbacks; /* hears of each state */

	struct group root;    /* the story and the watch of the embedder's wishes */
	struct group loading; /* the coroutines of the channels, main's and the others' */
	struct group package; /* the one that loads the devices of postcopy: a loss does not end it */
	struct event news;    /* look again: whatever the story may be waiting for has changed */

	int wish_fd; /* eventfd, owned: inm_cancel and inm_pause write, the watch reads */
	/* Before the watch has its turn, a callback's end looks at the first. Set from any thread. */
	atomic_bool cancel_asked, pause_asked;

	enum inm_state state; /* other threads look at it */
	bool opening;         /* inm_listen is at work, from whose log lines the embedder may call */
	bool complete;        /* the guest is here and was accepted */
	struct err err;       /* by (1); code 0 while there is none */
	struct err refusal;   /* why the guest cannot be taken, whatever the network does; code 0 while there is none */
	char hint[160];       /* why a multifd channel was refused: the likely reason if the source gives up */
	char text[sizeof(((struct err *)0)->text) + 200]; /* what inm_error says */
	uint64_t begin_ns, switchover_ns, end_ns;
};

/* @story: zeroed, with callbacks and wish_fd set. Before the first coroutine. */
void story_init(struct story *story, struct sched *s);

/** story_set_state - checked, probed, told to the embedder. The only way to change the state. */
void story_set_state(struct story *story, enum inm_state state);

/** story_fail - an error, by (1). -ECANCELED is none. */
void story_fail(struct story *story, int result, const struct err *err);

/** story_lost - the connection is lost, or is of no use any more: as story_fail, and all channels end */
void story_lost(struct story *story, int result, const struct err *err);

/** story_refuse - the guest cannot be taken, whatever the network does; all channels end */
void story_refuse(struct story *story, int result, const struct err *err);

/** story_under_way - has it begun and not come to its end, callbacks and connections included? */
bool story_under_way(const struct story *story);

/** story_result - of a migration that has ended: 0, -ECANCELED, or the errno of the first error */
int story_result(const struct story *story);

/* From any thread, and from a signal handler: the watch has a look at what was asked. */
void story_wake_watch(struct story *story);

#endif
