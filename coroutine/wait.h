/*
 * wait.h - what coroutines wait for: event, semaphore, bounded queue, mutex, reader-writer lock
 *
 * All are first in, first out, and hand over directly: the longest waiter has the thing before anybody else can take
 * it. All belong to one scheduler and are used on its thread only. A name is given at init for the deadlock report.
 *
 * Every waiting call takes a deadline (DEADLINE_NEVER with a reason beside it) and returns 0 (or what it says),
 * -ETIMEDOUT, or -ECANCELED; in the last two cases it has taken nothing. *_fini does not exist: nothing is owned, but
 * nobody may be waiting when the memory goes.
 */
#ifndef COROUTINE_WAIT_H
#define COROUTINE_WAIT_H

#include "base/list.h"
#include "coroutine/co.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Set until it is cleared; waiting for a set event does not park. */
struct event {
	struct sched *sched;
	const char *name;
	struct list waiters;
	bool set;
};

void event_init(struct event *e, struct sched *s, const char *name);
void event_set(struct event *e);
void event_clear(struct event *e);
may_park int event_wait(struct event *e, uint64_t deadline_ns);

struct semaphore {
	struct sched *sched;
	const char *name;
	struct list waiters;
	size_t units;
};

void semaphore_init(struct semaphore *sem, struct sched *s, const char *name, size_t units);
void semaphore_release(struct semaphore *sem);
may_park int semaphore_acquire(struct semaphore *sem, uint64_t deadline_ns);

/* Not recursive. Held over parks where that is the point (one writer at a time); only its holder may unlock it. */
struct mutex {
	struct sched *sched;
	const char *name;
	struct list waiters;
	struct co *owner;
};

void mutex_init(struct mutex *m, struct sched *s, const char *name);
may_park int mutex_lock(struct mutex *m, uint64_t deadline_ns);
void mutex_unlock(struct mutex *m);

/* Readers share; a writer that waits holds back the readers that come after it, so neither side starves. */
struct rwlock {
	struct sched *sched;
	const char *name;
	struct list waiters; /* readers and writers in one line */
	size_t readers;
	struct co *writer;
};

void rwlock_init(struct rwlock *l, struct sched *s, const char *name);
may_park int rwlock_read_lock(struct rwlock *l, uint64_t deadline_ns);
void rwlock_read_unlock(struct rwlock *l);
may_park int rwlock_write_lock(struct rwlock *l, uint64_t deadline_ns);
void rwlock_write_unlock(struct rwlock *l);

/* Pointers in order, at most @capacity at a time; the slots are the caller's. */
struct queue {
	struct sched *sched;
	const char *name;
	struct list pushers, poppers;
	void **slots;
	size_t capacity, head, count;
	bool closed;
};

void queue_init(struct queue *q, struct sched *s, const char *name, void **slots, size_t capacity);

/** queue_push - Return: also -EPIPE when the queue is closed; the item stays the caller's in every failure. */
may_park int queue_push(struct queue *q, void *item, uint64_t deadline_ns);

/** queue_pop - Return: also -EPIPE when the queue is closed and empty. */
may_park int queue_pop(struct queue *q, void **ret_item, uint64_t deadline_ns);

/* No more items: pushing fails at once, popping once it is empty. */
void queue_close(struct queue *q);

#endif
