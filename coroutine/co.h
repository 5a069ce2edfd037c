/*
 * co.h - coroutines: many stacks, one thread
 *
 * A coroutine is a function with a stack of its own that runs until it parks, and goes on where it parked when somebody
 * wakes it. All coroutines of a scheduler share one thread, so between two parks nothing else runs: no locks are needed
 * for what does not last over a park, and every condition checked before a park must be checked again after it.
 *
 * Nobody parks "in general": one parks in something (wait.h, io.h), and those are built on co_park below.
 *
 * Invariants:
 * (1) The ready queue is first in, first out, and the scheduler itself takes its turn in it: a coroutine that yields
 *     forever starves neither its peers nor the ring.
 * (2) A parked coroutine is in at most one wait list, and what wakes it (the event, its deadline, a cancel) takes it
 *     out in the same step. So it is woken exactly once, for one reason.
 * (3) A cancel is delivered once, as -ECANCELED from the park it interrupts, or, if the coroutine was not parked, from
 *     the next one. It is never lost and never turns up a second time: clean-up code may park again.
 * (4) Waking only makes ready. No coroutine runs inside another one's call.
 */
#ifndef COROUTINE_CO_H
#define COROUTINE_CO_H

#include "base/list.h"
#include "coroutine/stack.h"
#include "coroutine/switch.h"
#include "coroutine/timer.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

/* On the prototype of every function that may park. */
#define may_park

struct group;

/* What a coroutine does; its return value goes to its group. */
typedef int co_fn(void *arg);

enum co_state { CO_READY, CO_RUNNING, CO_PARKED, CO_DEAD };

struct co {
	struct list node;    /* in the ready queue, or in the wait list of what it is parked in, or in none */
	struct list all;     /* in sched->all */
	struct list sibling; /* for its group */
	struct ctx ctx;
	struct timer timer; /* of the park under way */
	struct sched *sched;
	struct stack stack;
	enum co_state state;
	int wake_result;
	bool cancel_pending;   /* asked for and not delivered yet */
	bool interruptible;    /* the park under way ends at a cancel */
	bool deadline_moved;   /* that of the park under way: once is enough, see sched_was_away */
	bool shielded;         /* cancels stay pending; see co_shield */
	bool in_handler;       /* it runs, or parks, in a signal handler: nothing of the embedder's may be called */
	bool background;       /* waits for something that may never come, and that is all right (deadlock report) */
	const char *wait_kind; /* for the deadlock report: "semaphore", "recv"; NULL while not parked */
	const char *wait_name;
	void *wait_data; /* of the park under way, for the other side of a hand-over: set before, read by the waker */
	char name[48];
	co_fn *fn;
	void *arg;
	void (*on_exit)(struct co *co, int result); /* group.c; runs on the coroutine's own stack, may not park */
	struct group *group;
	void *fake_stack; /* AddressSanitizer's, while switched out */
	void *tsan_fiber;
};

struct sched {
	struct list ready;
	struct co main; /* the thread's own context: in the ready queue it marks where a turn ends */
	struct co *current;
	struct co *zombie; /* ended; the next coroutine that runs gives back its stack */
	struct list all;
	size_t count; /* coroutines alive, background ones included */
	size_t background_count;
	struct timer_heap timers;
	uint64_t away_from_ns, away_to_ns; /* see sched_was_away */
	struct stack_cache stacks;
	uint64_t switches;
	uint64_t rounds;         /* calls of sched_run_ready */
	uint64_t round_switches; /* of them in the last one */
	size_t turn_work;        /* turn.h, as the rest of turn_: done since the last look at the clock */
	uint64_t turn_switches;  /* what switches was when the turn's end was set */
	uint64_t turn_end_ns;
	uint64_t turn_round; /* what rounds was when the round's end was set */
	uint64_t turn_round_end_ns;
	size_t asan_main_bytes; /* of the thread's own stack */
	const void *asan_main_stack;
	sigset_t tsan_signals; /* what the thread has blocked outside its coroutines; used under ThreadSanitizer */
};

void sched_init(struct sched *s, size_t stack_bytes, size_t idle_stacks_max);

/* No coroutine may be alive. */
void sched_fini(struct sched *s);

/** sched_run_ready - run each coroutine that is ready now, once. Called from the thread's own context only. */
void sched_run_ready(struct sched *s);

/** sched_fire_timers - wake each coroutine whose deadline has passed, with -ETIMEDOUT */
void sched_fire_timers(struct sched *s, uint64_t now_ns);

/**
 * sched_was_away - the thread did not run from @from_ns to @to_ns: it was stopped, frozen, or busy elsewhere
 * What came in that time lies unread, so nobody may be called late for it. A deadline that passed then moves: as much
 * of it is left after @to_ns as there was at @from_ns. Also the same deadline in the next park of its owner, because a
 * handshake waits several times by one deadline. Each moves once, so that a thread that is away all the time still
 * comes to its deadlines.
 */
void sched_was_away(struct sched *s, uint64_t from_ns, uint64_t to_ns);

static inline bool sched_has_ready(const struct sched *s)
{
	return !list_empty(&s->ready);
}

struct co_params {
	const char *name; /* copied; for the deadlock report and the debugger */
	co_fn *fn;
	void *arg;
	bool background;
	void (*on_exit)(struct co *co, int result);
	struct group *group;
};

/**
 * co_spawn - make a coroutine, ready to run
 * Not for general use: coroutines are children of a group (group.h), which joins them.
 * Return: 0 or -ENOMEM. The coroutine lives until its function returns.
 */
int co_spawn(struct sched *s, const struct co_params *params, struct co **ret_co);

/**
 * co_park - give up the thread until woken
 * @list: wait list to join at its tail, NULL for none
 * @deadline_ns: DEADLINE_NEVER with a reason beside it
 * @kind, @name: what it waits for; they must live as long as the park
 * Parks: yes. Return: what co_wake was given, -ETIMEDOUT, or -ECANCELED, also at once if a cancel is pending.
 */
may_park int co_park(struct sched *s, struct list *list, uint64_t deadline_ns, const char *kind, const char *name);

/* As co_park without a deadline, and a cancel stays pending. For waiting until the kernel lets go of memory. */
may_park int co_park_uninterruptible(struct sched *s, const char *kind, const char *name);

/* To the end of the ready queue. Return: 0 or -ECANCELED (consuming it). */
may_park int co_yield(struct sched *s);

/* The same, and a cancel stays pending. */
may_park void co_yield_shielded(struct sched *s);

/* @co must be parked. */
void co_wake(struct co *co, int result);

/** co_cancel - deliver -ECANCELED once, by (3). A dead coroutine is no coroutine: do not name it. */
void co_cancel(struct co *co);

/**
 * co_shield - from here on cancels stay pending (@on), or are delivered again
 * For the few steps that must not be left halfway, each bounded by a deadline of its own.
 */
void co_shield(struct sched *s, bool on);

/* Take the pending cancel of the running coroutine, if there is one and it may be delivered. For io.c. */
bool co_take_cancel(struct sched *s);

/* Put a cancel that was delivered back, because something else had to be reported first. */
void co_cancel_again(struct sched *s);

/* For wake-ups from wait lists: the coroutine whose node this is. */
static inline struct co *co_of_node(struct list *node)
{
	return container_of(node, struct co, node);
}

#endif
