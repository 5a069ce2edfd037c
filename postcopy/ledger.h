/*
 * ledger.h - the ledger of pages that somebody waits for
 *
 * One entry for each unit that has been asked for, or is about to be, and has not come. It knows the waiters: threads
 * of the guest (in the kernel, in a page fault) and coroutines of ours. A second fault on the same unit joins the
 * entry.
 */
#ifndef POSTCOPY_LEDGER_H
#define POSTCOPY_LEDGER_H

#include "base/list.h"
#include "coroutine/co.h"
#include "coroutine/wait.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct block;
struct pblock;
struct postcopy;

struct page_request {
	struct block *block;
	uint64_t start, bytes; /* in the block; whole units */
};

/* Requests in one message: what fits well into a segment. */
#define REQUEST_BATCH_MAX 64

struct blocked_thread;

struct want {
	struct list node;   /* in a list of the ledger, the oldest first */
	struct want *chain; /* of its hash bucket, or of the free ones */
	struct pblock *pb;
	size_t unit;
	uint64_t since_ns; /* when the first fault was read */
	bool guess;        /* asked for ahead; nobody waits */
	bool sent;
	struct blocked_thread *blocked; /* owned; of the guest */
	struct list waiters;            /* coroutines */
};

#define LEDGER_BUCKETS 4096

struct ledger {
	struct list unsent, guessed; /* to be sent: what somebody waits for, and after it what nobody does */
	struct list sent;
	struct event unsent_there;
	struct want *buckets[LEDGER_BUCKETS];
	struct want *free;
	struct blocked_thread *free_blocked;
	size_t outstanding;                 /* entries that somebody waits for */
	size_t guesses;                     /* entries that nobody waits for */
	bool offline;                       /* nothing can be sent now */
	bool eager;                         /* counted in the reactor's */
	uint64_t requests, requested_pages; /* messages sent, and tpages in them */
	uint64_t guessed_pages;
	uint64_t back_ns;   /* when the source came back; 0: somebody has had a page since */
	uint64_t served_ns; /* how long that took, the last time */
};

void ledger_init(struct ledger *l, struct sched *s);
void ledger_fini(struct postcopy *pc);

/**
 * ledger_want - somebody waits for this unit, which is not complete
 * @tid: of the guest's thread; 0 for a coroutine
 * Return: the entry; NULL without memory.
 */
struct want *ledger_want(struct postcopy *pc, struct pblock *pb, size_t unit, uint32_t tid, uint64_t now_ns);

/** ledger_guess - ask for it ahead. Return: false without memory, or when it has been asked for. */
bool ledger_guess(struct postcopy *pc, struct pblock *pb, size_t unit, uint64_t now_ns);

/** ledger_landed - the unit is complete and placed: whoever waited goes on, and the entry is gone */
void ledger_landed(struct postcopy *pc, struct pblock *pb, size_t unit);

/* Whoever of our coroutines waits goes on with -ECANCELED; the entries stay. */
void ledger_release_waiters(struct ledger *l);

/** ledger_send - the coroutine that sends what is unsent. @arg: struct postcopy */
may_park int ledger_send(void *arg);

/** ledger_offline - nothing can be sent now / it can again */
void ledger_offline(struct postcopy *pc, bool on);

/* All that was sent has to be sent again. */
void ledger_unsend(struct ledger *l);

#endif
