/*
 * callbacks.h - what the embedder is asked, told and given
 *
 * Each of its callbacks is called here and nowhere else. Around each, what must hold: a callback that may touch guest
 * memory is watched, so that it can wait for a page that is missing (postcopy/yield.h). Any other is timed in postcopy,
 * where it holds up the guest (postcopy/stuck.h). What it returns is looked at before anybody relies on it (answer.h).
 */
#ifndef ENGINE_CALLBACKS_H
#define ENGINE_CALLBACKS_H

#include "coroutine/co.h"
#include "inmigrate.h"
#include "postcopy/stuck.h"

#include <stdatomic.h>
#include <stdbool.h>

struct err;
struct log;
struct postcopy;

struct callbacks {
	struct inm_ops ops;
	void *opaque;
	struct inm *inm; /* whose; only a probe names it */
	const struct log *log;
	struct postcopy *postcopy;       /* whose pages a callback may have to wait for */
	const atomic_bool *cancel_asked; /* heard at a callback's end, also while no coroutine parks */
	struct stuck stuck;              /* other threads look at it: inm_stuck_text */
};

void callbacks_tell_state(struct callbacks *e, enum inm_state state);

/** callbacks_log - one line, of the level that the embedder wants */
void callbacks_log(struct callbacks *e, enum inm_log_level level, const char *text);

/*
 * Return: 0; what the callback has refused with, in words that name it; -EINVAL for an answer that means nothing;
 * -ECANCELED when a cancel was asked for meanwhile.
 */
int callbacks_ram_block(struct callbacks *e, struct inm_ram_block *block, struct err *err);
int callbacks_ram_listed(struct callbacks *e, struct err *err);
int callbacks_live_state(struct callbacks *e, const struct inm_live_state *piece, struct err *err);
int callbacks_early_described(struct callbacks *e, const struct inm_device *device, struct err *err);
/* These touch guest memory, and so may park. @run_state: as the stream said, or NULL. */
may_park int callbacks_device(struct callbacks *e, const struct inm_device *device, struct err *err);
may_park int callbacks_ready(struct callbacks *e, const char *run_state, struct err *err);
may_park void callbacks_start_vcpus(struct callbacks *e, const char *run_state);

#endif
