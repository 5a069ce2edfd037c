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
struct blocktime;
struct pblock;
struct reactor;

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

/* A thread that has got its page touches the next one that is missing within this time, if it walks over many. */
#define LEDGER_SOON_NS 50000ull

struct ledger {
	struct reactor *reactor;     /* not owned, as the rest up to the blank line */
	struct blocktime *blocktime; /* hears which threads begin to wait, and which go on */
	/* Ask the source for these, all in one message; whole units. Parks. Return: as struct postcopy's. */
	int (*request)(void *opaque, const struct page_request *list, size_t count);
	void *opaque;

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

void ledger_init(struct ledger *l, struct reactor *reactor, struct blocktime *blocktime,
                 int (*request)(void *opaque, const struct page_request *list, size_t count), void *opaque);

/* No coroutine may wait for a unit. */
void ledger_fini(struct ledger *l);

/**
 * ledger_want - somebody waits for this unit, which is not complete
 * @tid: of the guest's thread; 0 for a coroutine
 * Return: the entry; NULL without memory.
 */
struct want *ledger_want(struct ledger *l, struct pblock *pb, size_t unit, uint32_t tid, uint64_t now_ns);

/** ledger_guess - ask for it ahead. Return: false without memory, or when it has been asked for. */
bool ledger_guess(struct ledger *l, struct pblock *pb, size_t unit, uint64_t now_ns);

/** ledger_landed - the unit is complete and placed: those that waited go on, and the entry is gone */
void ledger_landed(struct ledger *l, struct pblock *pb, size_t unit);

/** ledger_send - the coroutine that sends what is unsent. @arg: struct ledger */
may_park int ledger_send(void *arg);

/** ledger_offline - nothing can be sent now / it can again */
void ledger_offline(struct ledger *l, bool on);

/* All that was sent has to be sent again. */
void ledger_unsend(struct ledger *l);

#endif
