/*
 * turn.h - long work gives others their turn
 *
 * A coroutine that loops over what a peer has sent, or over guest RAM, says in each step how much it has done. Now and
 * then that looks at the clock, and when the coroutine's share of a round is used up it yields:
 *
 *   for (...) {
 *           carry_out_one();
 *           r = turn_spend(s, TURN_STEP);
 *           if (r < 0)
 *                   return r;              cancelled
 *   }
 *
 * A yield is a park like any other: what was checked before it must be checked again after it.
 *
 * Work is counted in bytes touched, so a step that does more than copy says more than it copies: TURN_STEP for a look
 * at a record, TURN_SYSCALL for a system call. The counting need not be exact; it only says how often to look.
 *
 * Invariants:
 * (1) Between two looks lie less than TURN_LOOK bytes of work and one step: some 20 us.
 * (2) A round, which is a turn of everyone who is ready, takes about TURN_ROUND_NS when each of them spends its turn
 *     through here: the share is that over those who ran in the round before. When so much of a round has passed all
 *     the same, everybody's next look says that its turn is over; a crowd of big steps waits for its next rounds. (Who
 *     takes such steps spends its turn before them.)
 */
#ifndef COROUTINE_TURN_H
#define COROUTINE_TURN_H

#include "coroutine/co.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TURN_LOOK ((size_t)64 << 10)
#define TURN_STEP ((size_t)128)
#define TURN_SYSCALL ((size_t)4096)

/* Half of what SECURITY.md promises: the other half is for steps that were counted too low. */
#define TURN_ROUND_NS 4000000ull

/* Nobody gets less than this, so that a crowd gets on. */
#define TURN_SHARE_NS_MIN 50000ull
#define TURN_SHARE_NS_MAX 1000000ull

/* TURN_LOOK is reached: look at the clock. Return: the share is used up. */
bool turn_look(struct sched *s);

/* A yield of the caller's is over: its next turn begins now, and not at its next look. */
void turn_begin(struct sched *s);

/** turn_spent - @work was done. Parks: no. Return: should the caller yield? */
static inline bool turn_spent(struct sched *s, size_t work)
{
	s->turn_work += work;
	return s->turn_work >= TURN_LOOK && turn_look(s);
}

/** turn_spend - the same, and yields. Parks: yes. Return: 0, or -ECANCELED (consuming it), as co_yield */
may_park static inline int turn_spend(struct sched *s, size_t work)
{
	int r;

	if (!turn_spent(s, work))
		return 0;
	r = co_yield(s);
	turn_begin(s);
	return r;
}

/**
 * turn_spend_shielded - for what must not be left halfway: a cancel stays pending
 * Parks: yes.
 */
may_park static inline void turn_spend_shielded(struct sched *s, size_t work)
{
	if (!turn_spent(s, work))
		return;
	co_yield_shielded(s);
	turn_begin(s);
}

/**
 * turn_spend_pending - for work deep inside functions that know nothing about coroutines (@s may be NULL: nobody waits)
 * Parks: yes. Return: 0; -ECANCELED while a cancel is pending. It stays pending: the function that began the work takes
 * it with co_take_cancel, when the work has returned.
 */
may_park int turn_spend_pending(struct sched *s, size_t work);

/**
 * turn_free - free(3), of what may be hundreds of megabytes: the kernel takes 0.1 ms for each two of them
 * Parks: yes, and a cancel stays pending. @bytes: how long it is. NULL is allowed.
 */
may_park void turn_free(struct sched *s, void *p, size_t bytes);

#endif
