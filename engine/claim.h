/*
 * claim.h - one thread at a time inside a reactor, and none of them twice
 *
 * An embedder calls from its threads, and from our callbacks. A call that touches a migration claims the migration's
 * reactor first, so that no embedder's mistake reaches an assertion of ours: what may not be done now is an error.
 *
 * There are two kinds of claims. A call that only looks or sets (claim_look) may come from any thread, and from a
 * callback, where it is nested in the claim of the call that the callback is made from. A call that runs coroutines
 * (claim_run) may only come from the thread that ran them the first time, and never from inside another claim.
 *
 * Invariants:
 * (1) The embedder's code runs inside a claim exactly when it is a callback: a thread that holds the claim and calls
 *     again is in one, or in a signal handler that interrupted one.
 * (2) owner is set once, by the first claim_run, and stays: the kernel's ring takes requests from one thread only.
 * (3) A call waits only for calls that look, never for one that runs. So there is no deadline.
 *
 * Not for signal handlers: see the table in inmigrate(3).
 */
#ifndef ENGINE_CLAIM_H
#define ENGINE_CLAIM_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>

struct err;

struct claim {
	pthread_mutex_t lock; /* of what follows; held for a few instructions */
	pthread_cond_t given_back;
	pid_t holder; /* thread id; 0: nobody. Read without the lock, too: only a thread itself sets its own */
	pid_t owner;  /* the thread that runs the reactor; 0: none has yet */
	bool running; /* the holder runs coroutines, for as long as it likes */
};

/* What a claim has become. */
enum claimed {
	CLAIMED,        /* to be given back by claim_leave */
	CLAIMED_NESTED, /* by this thread before, in a call that is still under way; claim_leave does nothing then */
};

void claim_init(struct claim *c);
void claim_fini(struct claim *c);

/**
 * claim_look - for a call that looks or sets
 * Return: CLAIMED or CLAIMED_NESTED; -EDEADLK: another thread runs the reactor.
 */
int claim_look(struct claim *c, struct err *err);

/**
 * claim_run - for a call that runs coroutines
 * Return: CLAIMED; -EDEADLK: from a callback, or on another thread than the first that ran it.
 */
int claim_run(struct claim *c, struct err *err);

/** claim_to_run - the caller has got CLAIMED from claim_look, and is to run. Return: 0, or -EDEADLK: see claim_run. */
int claim_to_run(struct claim *c, struct err *err);

/* @claimed: what claim_look or claim_run has returned. */
void claim_leave(struct claim *c, int claimed);

#endif
