/*
 * reactor.h - the loop: run who is ready, hand their operations to the ring, wake whom the ring or a deadline says
 *
 * One reactor is one thread's. It is driven from that thread's own context, either by reactor_run, which waits, or by
 * reactor_dispatch, which does not, from an event loop that polls reactor_fd.
 */
#ifndef COROUTINE_REACTOR_H
#define COROUTINE_REACTOR_H

#include "coroutine/co.h"
#include "coroutine/look.h"
#include "coroutine/ring.h"

#include <stddef.h>
#include <stdint.h>

struct group;

#define REACTOR_SPIN_NS 20000ull

struct reactor {
	struct sched sched;
	struct ring *ring;
	struct ring_op alarm; /* keeps reactor_fd's promise for deadlines; only in dispatch */
	uint64_t alarm_ns;
	/*
	 * Parts that expect an answer within microseconds count themselves in here. While there are any, reactor_run
	 * looks again for REACTOR_SPIN_NS before it sleeps: waking a sleeper costs more than many looks.
	 */
	unsigned eager;
	/* Without one of those: for so long altogether it looks again, from the next time on that it would sleep. */
	uint64_t soon_ns;
	uint64_t looked_ns;                /* at what had come, and at the clock; 0: nobody waited for a time then */
	struct look look_eager, look_soon; /* by look.h: not where it finds nothing */
	bool runs; /* reactor_run is at work: a coroutine that goes round and round costs the embedder nothing */
	/* Told once per coroutine when nothing can ever happen again; may be NULL. */
	void (*deadlock)(void *opaque, const struct co *co);
	void *deadlock_opaque;
};

/**
 * reactor_new - @stack_bytes of each coroutine, 0 for the default
 * Return: 0, -ENOMEM, or why the kernel gives no ring.
 */
int reactor_new(struct reactor **ret_reactor, const struct ring_class *class, size_t stack_bytes);

/* No coroutine may be alive. NULL is allowed. */
void reactor_free(struct reactor *r);

/**
 * reactor_run - until @until is empty
 * Return: 0; -ETIMEDOUT when @deadline_ns comes first; -EDEADLK when coroutines wait and nothing is left that could
 * wake them (each is named to r->deadlock first); or the ring's error.
 */
int reactor_run(struct reactor *r, const struct group *until, uint64_t deadline_ns);

/**
 * reactor_dispatch - all that can be done without waiting
 * Afterwards reactor_fd() becomes readable when there is more to do, deadlines included.
 * Return: 0, -EDEADLK as above (nothing but the embedder can change anything), or the ring's error.
 */
int reactor_dispatch(struct reactor *r);

int reactor_fd(const struct reactor *r);

#endif
