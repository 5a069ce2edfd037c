/*
 * owner.h - who has the guest?
 *
 * A guest must run at one place, and after a failure somebody must still have it. Where that is decides what a failure
 * may do: end the migration, pause it, or nothing any more. This is the one variable that knows.
 *
 *   SOURCE     The source has the guest, and goes on with it if we fail. All of precopy is here; so is postcopy from
 *              LISTEN on, where the source can take its guest back until it is told (QEMU 10.2 on).
 *              An error ends the migration, a cancel is obeyed, the source may be told that we have failed.
 *   PLEDGING   The word that the guest is ours is being written. Nobody can say yet who has it: whether the word gets
 *              out decides. Wait for that before you ask anything else.
 *   SPLIT      A part of the guest is here, the rest at the source, and neither can run without the other.
 *              A loss of the connection is a pause, whatever the reason. Only the embedder may give the guest up.
 *              Caveat: before the vCPUs have started, a refusal (a device that cannot be loaded) gives it up, too.
 *   OURS       All of it is here, and the source knows, or cannot be told: one without a return path lets its guest
 *              go when its stream is out. Nothing ends this any more: errors are for the log, a cancel comes too late.
 *   GIVEN_UP   It was split, and is lost: the embedder has cancelled, or this side cannot take it.
 *
 * What takes each edge:
 *
 *   SOURCE -> PLEDGING    the owner's PING of a package, or SHUT 0 at the end of precopy
 *   PLEDGING -> SOURCE    it could not be written
 *   PLEDGING -> SPLIT     the PING was answered, and pages may be missing
 *   PLEDGING -> OURS      SHUT 0 was written
 *   SOURCE -> SPLIT       LISTEN, or RUN, of a source that cannot take its guest back
 *   SOURCE -> OURS        precopy has ended, and the source has no return path
 *   SPLIT -> OURS         the last page is here, and the vCPUs run
 *   SPLIT -> GIVEN_UP     inm_cancel; a refusal before the vCPUs run
 *
 * Not here: whether guest memory may be written directly. That is a question of the phase, precopy or switched, and
 * memory/gate.h answers it. Nor which state an observer sees (state.h).
 *
 * Invariant: (1) the vCPUs start in SPLIT or in OURS, once.
 *
 * Source: doc/wire/stream.md 2, 3, 5
 */
#ifndef ENGINE_OWNER_H
#define ENGINE_OWNER_H

#include <stdbool.h>
#include <stdint.h>

enum owner_state { OWNER_SOURCE, OWNER_PLEDGING, OWNER_SPLIT, OWNER_OURS, OWNER_GIVEN_UP, OWNER_STATE_COUNT };

struct owner {
	enum owner_state state;
	bool runs;        /* the vCPUs have started here */
	uint64_t runs_ns; /* when, where that was before the guest was whole; 0: it was not */
};

/** owner_set - the only way to change the state: an edge that is not in the list above is a bug of ours */
void owner_set(struct owner *o, enum owner_state state);

/** owner_runs - the vCPUs are about to start. @now_ns: 0 where the guest is whole. By (1). */
void owner_runs(struct owner *o, uint64_t now_ns);

/** owner_may_change - is there an edge? */
bool owner_may_change(enum owner_state from, enum owner_state to);

const char *owner_name(enum owner_state state);

/* ---- what may be done ---- */

/** owner_may_pause - is a loss of the connection a pause, and not the end? */
bool owner_may_pause(const struct owner *o);

/** owner_may_end - may an error of a connection, or of what comes on it, end the migration? */
bool owner_may_end(const struct owner *o);

/** owner_may_return - may the source be told that it has the guest again? Never after the vCPUs have run here. */
bool owner_may_return(const struct owner *o);

/** owner_may_cancel - is a cancel obeyed? In SPLIT it gives the guest up. */
bool owner_may_cancel(const struct owner *o);

#endif
