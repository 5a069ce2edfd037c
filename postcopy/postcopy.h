/*
 * postcopy.h - the guest runs while pages of it are missing
 *
 * From LISTEN on, a page of guest memory is in one of three states: received (it may be placed in the guest view, or be
 * placed when the guest touches it), asked for (an entry in the ledger, see ledger.h), or neither. Two coroutines live
 * here: one reads faults and other events from the userfaultfd (fault.h), one sends requests. Pages are placed by
 * whoever receives them (place.h).
 *
 * Nothing here knows of channels or streams: pages are asked for through one function pointer, and arrive through
 * place_pages and place_zero.
 *
 * A unit (memory/block.h) is what the source is asked for and what is placed at once.
 *
 * Invariants:
 * (1) A page's bit in block->received is set before its first byte is written, and never cleared while the guest runs
 *     but for huge pages that are half there when the network fails: so a page is written once, and a late copy of it
 *     is dropped.
 * (2) Every fault that cannot be answered at once has an entry in the ledger; a placement takes the entry away.
 * (3) The userfaultfd is closed only when nothing is missing, or the embedder has given the guest up.
 */
#ifndef POSTCOPY_POSTCOPY_H
#define POSTCOPY_POSTCOPY_H

#include "base/bitmap.h"
#include "base/coverage.h"
#include "coroutine/group.h"
#include "coroutine/look.h"
#include "coroutine/wait.h"
#include "memory/block.h"
#include "postcopy/blocktime.h"
#include "postcopy/ledger.h"
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

/* Postcopy's side of a block. */
struct pblock {
	struct block *b; /* not owned */
	size_t units;
	struct bitmap asked;      /* a bit a unit: it has an entry in the ledger */
	struct coverage expected; /* a bit a tpage: discarded by the source, so it comes (again); until LISTEN */
};

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
	void *opaque;
	struct stuck *stuck;     /* hears of callbacks that hold the thread; NULL: nobody does */
	uint64_t stuck_after_ns; /* so long a callback may run; 0: for ever, nothing is measured */
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
	struct event all_here; /* nothing is missing; also set when there is news, so that waiters look again */
	bool listening;
	bool opened;             /* the engine views are open: the migration has failed */
	uint64_t missing_tpages; /* from LISTEN on */
	unsigned placing;        /* coroutines that have received pages and are about to show them */
	struct postcopy_counts counts;
	uint64_t turned_away_ns; /* since when no fault could be answered; 0: the last one was. See show.c */
	struct look look;        /* for the next fault; see fault.c */
	uint64_t look_end_ns;    /* until then it is looked for; 0: it is not */
	unsigned look_turns;
	unsigned let_go; /* ranges that are not watched any more */
};

/**
 * postcopy_check - can this kernel do it, for this memory? Before anything of the guest is lost.
 * A page of each block is watched and let go again: not every mapping can be.
 * The userfaultfds are kept for postcopy_listen, so that what is permitted here cannot be forbidden by then.
 * Parks: yes. Return: 0; -ECANCELED; or why not, with a text that says what would have to change.
 */
may_park int postcopy_check(struct postcopy *pc, struct err *err);

/**
 * postcopy_listen - from here on a touch of a page that is missing is a request
 * @pc: zeroed, with the fields up to kernel_faults set. What was not discarded counts as received
 * (doc/wire/stream.md 5.3).
 * Parks: yes. Return: 0; -ECANCELED; the error of postcopy_check, of a registration, or -ENOMEM: then all is as it was.
 */
may_park int postcopy_listen(struct postcopy *pc, struct err *err);

/**
 * postcopy_discard - so many tpages of a block are still to come. Before postcopy_listen.
 * Parks: yes. Return: 0, -ECANCELED, or the errno of giving the memory back.
 */
may_park int postcopy_discard(struct postcopy *pc, struct block *b, size_t tpage, size_t count);

/**
 * postcopy_complete - what is missing will not come, and is zeros; after LISTEN
 * Parks: yes, and a cancel stays pending.
 */
may_park void postcopy_complete(struct postcopy *pc);

/**
 * postcopy_pause - the network is lost: nothing is being sent any more when this returns
 * Nobody may be placing pages. What has come of huge pages that are not whole is forgotten, and comes again.
 * Parks: yes. May be called again, and where nothing is missing because postcopy_listen was not called.
 */
may_park void postcopy_pause(struct postcopy *pc);

/** postcopy_resume - it is back: all that somebody waits for is asked for again. Return: 0 or -ENOMEM. */
int postcopy_resume(struct postcopy *pc);

/* ---- for our own thread ---- */

/**
 * postcopy_await - until these bytes of a block are here
 * Parks: yes. Deadline: none; the migration's failure or a cancel ends it. Return: 0, -ECANCELED.
 */
may_park int postcopy_await(struct postcopy *pc, struct block *b, uint64_t off, uint64_t bytes);

/* The same for a callback of the embedder, which the watch must not think stuck meanwhile, and which a cancel ends. */
may_park int postcopy_await_for_callback(struct postcopy *pc, struct block *b, uint64_t off, uint64_t bytes);

/** postcopy_find - the block of an address in a guest view or an engine view; NULL if there is none */
struct block *postcopy_find(const struct postcopy *pc, const void *addr, uint64_t *ret_off);

/* ---- the end ---- */

/**
 * postcopy_end - stop, and unregister everything: what is missing reads as zeros from now on, by (3)
 * A @pc that does not listen is all right. Parks: yes.
 */
may_park void postcopy_end(struct postcopy *pc);

/* ---- for the parts ---- */

static inline struct pblock *postcopy_block(const struct postcopy *pc, const struct block *b)
{
	return &pc->blocks[b->index];
}

/* Nothing is missing, and nothing is on its way into the guest view. */
static inline bool postcopy_all_here(const struct postcopy *pc)
{
	return pc->missing_tpages == 0 && pc->placing == 0;
}

/** pblock_complete - has every tpage of the unit been received? */
bool pblock_complete(const struct pblock *pb, size_t unit);

#endif
