/*
 * shared.h - struct postcopy: what all parts of this floor share
 *
 * See postcopy.h, which says what it is, and has the invariants.
 */
#ifndef POSTCOPY_SHARED_H
#define POSTCOPY_SHARED_H

#include "coroutine/group.h"
#include "coroutine/look.h"
#include "coroutine/wait.h"
#include "memory/block.h"
#include "postcopy/blocktime.h"
#include "postcopy/ledger.h"
#include "postcopy/pblock.h"
#include "postcopy/prefetch.h"
#include "postcopy/uffd.h"
#include "postcopy/watched.h"
#include "postcopy/yield.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct log;
struct reactor;

struct postcopy_counts {
	uint64_t pages;      /* target pages placed or found to be zeros since LISTEN */
	uint64_t duplicates; /* came although they were here, and were dropped */
	uint64_t discarded;  /* by the source */
	uint64_t removed;    /* by the embedder: REMOVE events */
	uint64_t faults, faults_local;
	uint64_t engine_faults;
	uint64_t place_retries;
};

struct postcopy {
	struct ram *ram; /* not owned, as the rest up to the blank line */
	struct reactor *reactor;
	const struct log *log;
	/*
	 * Ask the source for these, all in one message; unit-aligned. Parks. Return: 0, or why it cannot be asked now:
	 * then nothing is asked until postcopy_resume.
	 */
	int (*request)(void *opaque, const struct page_request *list, size_t count);
	/* Something of ours has failed, and pages cannot be placed, or faults not read. */
	void (*failed)(void *opaque, int result, const struct err *err);
	/* Nothing is missing any more, and nothing on its way. May be said again. NULL: nobody waits. */
	void (*whole)(void *opaque);
	void *opaque;
	struct stuck *stuck;     /* hears of callbacks that hold the thread; NULL: nobody does */
	uint64_t stuck_after_ns; /* so long a callback may run; 0: forever, nothing is measured */
	bool prefetch_on;
	bool kernel_faults; /* KVM or vhost will touch the guest view: a userfaultfd for user mode only does not do */

	struct pblock *blocks;                    /* owned; as ram->blocks */
	struct uffd guest;                        /* faults of the guest's threads */
	struct uffd engine;                       /* of our own: SIGBUS */
	struct watched guest_views, engine_views; /* that are watched */
	bool descriptors;                         /* these two are there: from postcopy_check on, or from LISTEN on */
	struct yield yield;
	struct group readers; /* the coroutine that reads events */
	struct group senders; /* the one that sends requests; none while paused */
	struct ledger ledger;
	struct blocktime blocktime;
	struct prefetch prefetch;
	bool listening;
	bool settled;     /* LISTEN has told what is missing: the rest is received */
	bool opened;      /* the engine views are open: the migration has failed */
	unsigned placing; /* coroutines that have received pages and are about to show them */
	struct postcopy_counts counts;
	uint64_t turned_away_ns; /* since when no fault could be answered; 0: the last one was. See show.c */
	struct look look;        /* for the next fault; see fault.c */
	uint64_t look_end_ns;    /* until then it is looked for; 0: it is not */
	unsigned look_turns;
	unsigned let_go; /* ranges that are not watched any more */
};

static inline struct pblock *postcopy_block(const struct postcopy *pc, const struct block *b)
{
	return &pc->blocks[b->index];
}

/* Tpages that are to come, from LISTEN on. */
static inline uint64_t postcopy_missing(const struct postcopy *pc)
{
	return pc->settled ? ram_missing_tpages(pc->ram) : 0;
}

/* Nothing is missing, and nothing is on its way into the guest view. */
static inline bool postcopy_all_here(const struct postcopy *pc)
{
	return postcopy_missing(pc) == 0 && pc->placing == 0;
}

/* postcopy_tell_whole - what was done may have been the last of it */
static inline void postcopy_tell_whole(struct postcopy *pc)
{
	if (pc->whole && postcopy_all_here(pc))
		pc->whole(pc->opaque);
}

/** postcopy_give_up - tell @pc->failed: "@what: the errno in words". Return: @result. */
int postcopy_give_up(struct postcopy *pc, int result, const char *what);

#endif
