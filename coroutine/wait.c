#include "coroutine/wait.h"

#include "base/assert.h"

#include <errno.h>

/* ---- event ---- */

void event_init(struct event *e, struct sched *s, const char *name)
{
	*e = (struct event){ .sched = s, .name = name };
	list_init(&e->waiters);
}

void event_set(struct event *e)
{
	e->set = true;
	while (!list_empty(&e->waiters))
		co_wake(co_of_node(e->waiters.next), 0);
}

void event_clear(struct event *e)
{
	e->set = false;
}

int event_wait(struct event *e, uint64_t deadline_ns)
{
	if (e->set)
		return 0;
	return co_park(e->sched, &e->waiters, deadline_ns, "event", e->name);
}

/* ---- semaphore ---- */

void semaphore_init(struct semaphore *sem, struct sched *s, const char *name, size_t units)
{
	*sem = (struct semaphore){ .sched = s, .name = name, .units = units };
	list_init(&sem->waiters);
}

void semaphore_release(struct semaphore *sem)
{
	/* Handed over, not put back: between this wake and the waiter's turn nobody can slip in. */
	if (!list_empty(&sem->waiters))
		co_wake(co_of_node(sem->waiters.next), 0);
	else
		sem->units++;
}

int semaphore_acquire(struct semaphore *sem, uint64_t deadline_ns)
{
	if (sem->units > 0) {
		sem->units--;
		return 0;
	}
	return co_park(sem->sched, &sem->waiters, deadline_ns, "semaphore", sem->name);
}

/* ---- mutex ---- */

void mutex_init(struct mutex *m, struct sched *s, const char *name)
{
	*m = (struct mutex){ .sched = s, .name = name };
	list_init(&m->waiters);
}

int mutex_lock(struct mutex *m, uint64_t deadline_ns)
{
	ASSERT(m->owner != m->sched->current);
	if (!m->owner) {
		m->owner = m->sched->current;
		return 0;
	}
	return co_park(m->sched, &m->waiters, deadline_ns, "mutex", m->name);
}

void mutex_unlock(struct mutex *m)
{
	struct co *next;

	ASSERT(m->owner == m->sched->current);
	m->owner = NULL;
	if (list_empty(&m->waiters))
		return;
	next = co_of_node(m->waiters.next);
	m->owner = next;
	co_wake(next, 0);
}

/* ---- reader-writer lock ---- */

/* What a waiter wants is its wait_data. */
static const char want_read, want_write;

void rwlock_init(struct rwlock *l, struct sched *s, const char *name)
{
	*l = (struct rwlock){ .sched = s, .name = name };
	list_init(&l->waiters);
}

/* Let in from the front of the line all that may go: one writer, or readers up to the next writer. */
static void rwlock_admit(struct rwlock *l)
{
	while (!list_empty(&l->waiters) && !l->writer) {
		struct co *first = co_of_node(l->waiters.next);

		if (first->wait_data == &want_write) {
			if (l->readers > 0)
				return;
			l->writer = first;
		} else {
			l->readers++;
		}
		co_wake(first, 0);
	}
}

static int rwlock_wait(struct rwlock *l, void *want, uint64_t deadline_ns)
{
	int r;

	l->sched->current->wait_data = want;
	r = co_park(l->sched, &l->waiters, deadline_ns, want == &want_write ? "write lock" : "read lock", l->name);
	/* A writer that gives up may have held back readers behind it. */
	if (r < 0)
		rwlock_admit(l);
	return r;
}

int rwlock_read_lock(struct rwlock *l, uint64_t deadline_ns)
{
	if (!l->writer && list_empty(&l->waiters)) {
		l->readers++;
		return 0;
	}
	return rwlock_wait(l, (void *)&want_read, deadline_ns);
}

void rwlock_read_unlock(struct rwlock *l)
{
	ASSERT(l->readers > 0);
	l->readers--;
	rwlock_admit(l);
}

int rwlock_write_lock(struct rwlock *l, uint64_t deadline_ns)
{
	ASSERT(l->writer != l->sched->current);
	if (!l->writer && l->readers == 0 && list_empty(&l->waiters)) {
		l->writer = l->sched->current;
		return 0;
	}
	return rwlock_wait(l, (void *)&want_write, deadline_ns);
}

void rwlock_write_unlock(struct rwlock *l)
{
	ASSERT(l->writer == l->sched->current);
	l->writer = NULL;
	rwlock_admit(l);
}

/* ---- queue ---- */

void queue_init(struct queue *q, struct sched *s, const char *name, void **slots, size_t capacity)
{
	ASSERT(capacity > 0);
	*q = (struct queue){ .sched = s, .name = name, .slots = slots, .capacity = capacity };
	list_init(&q->pushers);
	list_init(&q->poppers);
}

static void slot_in(struct queue *q, void *item)
{
	q->slots[(q->head + q->count++) % q->capacity] = item;
}

static void *slot_out(struct queue *q)
{
	void *item = q->slots[q->head];

	q->head = (q->head + 1) % q->capacity;
	q->count--;
	return item;
}

int queue_push(struct queue *q, void *item, uint64_t deadline_ns)
{
	struct co *popper;

	if (q->closed)
		return -EPIPE;
	if (!list_empty(&q->poppers)) {
		/* Somebody waits, so the queue is empty: the item goes from hand to hand. */
		popper = co_of_node(q->poppers.next);
		*(void **)popper->wait_data = item;
		co_wake(popper, 0);
		return 0;
	}
	if (q->count < q->capacity) {
		slot_in(q, item);
		return 0;
	}
	/* The coroutine that makes room takes the item out of our frame before it wakes us. */
	q->sched->current->wait_data = item;
	return co_park(q->sched, &q->pushers, deadline_ns, "room in queue", q->name);
}

int queue_pop(struct queue *q, void **ret_item, uint64_t deadline_ns)
{
	void *item;
	int r;

	if (q->count > 0) {
		*ret_item = slot_out(q);
		if (!list_empty(&q->pushers)) {
			slot_in(q, co_of_node(q->pushers.next)->wait_data);
			co_wake(co_of_node(q->pushers.next), 0);
		}
		return 0;
	}
	if (q->closed)
		return -EPIPE;
	q->sched->current->wait_data = &item;
	r = co_park(q->sched, &q->poppers, deadline_ns, "item in queue", q->name);
	if (r == 0)
		*ret_item = item;
	return r;
}

void queue_close(struct queue *q)
{
	q->closed = true;
	while (!list_empty(&q->pushers))
		co_wake(co_of_node(q->pushers.next), -EPIPE);
	while (!list_empty(&q->poppers))
		co_wake(co_of_node(q->poppers.next), -EPIPE);
}
