/*
 * Seeded random schedules over everything in wait.h, with cancels and deadlines, against a model that knows only what
 * the headers promise. A failure prints its seed; SEED=n runs that seed, RUNS=n runs n of them.
 */
#include "base/clock.h"
#include "config.h"
#include "coroutine/wait.h"
#include "tests/support/check_main.h"
#include "tests/unit/co_world.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#if HAVE_VALGRIND
#include <valgrind/valgrind.h>
#else
#define RUNNING_ON_VALGRIND 0
#endif

#define ACTORS 7
#define STEPS 12
#define UNITS 2
#define ITEMS_MAX (ACTORS * STEPS)

/* Check's own assertions make a system call each. */
#define HOLDS(cond) \
	do { \
		if (!(cond)) \
			ck_abort_msg("seed %u: %s", seed, #cond); \
	} while (0)

enum place { NOWHERE, MUTEX, SEMAPHORE, LOCK, PUSH, POP, EVENT };

struct actor {
	struct co *co;
	bool alive;
	bool cancel_asked; /* and not yet delivered */
	enum place place;  /* where it waits, or may */
	uint64_t ticket;   /* when it came there */
	bool wants_write;
};

static struct co_world w;
static unsigned seed;
static uint64_t tickets;
static struct actor actors[ACTORS];

static struct mutex mutex;
static struct semaphore sem;
static struct rwlock lock;
static struct queue queue;
static struct event event;
static void *slots[3];

/* The model. */
static int mutex_holders, sem_holders, readers, writers;
static struct item {
	int pusher;
	bool pushed, popped;
} items[ITEMS_MAX];
static int items_count, pushed_count, popped_count;

static unsigned dice(unsigned n)
{
	return (unsigned)random() % n;
}

static uint64_t some_deadline(void)
{
	return dice(3) ? w.now_ns + dice(30) : DEADLINE_NEVER;
}

/* What any wait may return, and what that means for the cancel asked for. */
static int judge(struct actor *a, int r, uint64_t deadline_ns)
{
	a->place = NOWHERE;
	if (r == -ECANCELED) {
		HOLDS(a->cancel_asked); /* not twice, not unasked */
		a->cancel_asked = false;
	} else if (r == -ETIMEDOUT) {
		HOLDS(w.now_ns >= deadline_ns);
	} else if (r == -EPIPE) {
		HOLDS(queue.closed);
	} else {
		HOLDS(r == 0);
	}
	return r;
}

static void arrive(struct actor *a, enum place place, bool wants_write)
{
	a->place = place;
	a->ticket = ++tickets;
	a->wants_write = wants_write;
}

/* Nobody may pass the one that came first and still waits. */
static void first_come(const struct actor *a, enum place place, uint64_t ticket)
{
	for (const struct actor *b = actors; b < actors + ACTORS; b++) {
		if (b != a && b->alive && b->place == place && b->co->state == CO_PARKED)
			HOLDS(b->ticket > ticket);
	}
}

/* Holding something: for a while, and interrupted perhaps. */
static void dwell(struct actor *a)
{
	for (unsigned n = dice(3); n > 0; n--) {
		uint64_t until = w.now_ns + dice(10);

		if (dice(2))
			judge(a, co_yield(&w.sched), 0);
		else
			judge(a, co_park(&w.sched, NULL, until, "dwell", "clock"), until);
	}
}

static void use_mutex(struct actor *a, uint64_t deadline)
{
	arrive(a, MUTEX, false);
	if (judge(a, mutex_lock(&mutex, deadline), deadline) < 0)
		return;
	first_come(a, MUTEX, a->ticket);
	HOLDS(++mutex_holders == 1);
	dwell(a);
	HOLDS(mutex_holders-- == 1);
	mutex_unlock(&mutex);
}

static void use_semaphore(struct actor *a, uint64_t deadline)
{
	arrive(a, SEMAPHORE, false);
	if (judge(a, semaphore_acquire(&sem, deadline), deadline) < 0)
		return;
	first_come(a, SEMAPHORE, a->ticket);
	HOLDS(++sem_holders <= UNITS);
	dwell(a);
	sem_holders--;
	semaphore_release(&sem);
}

static void use_lock(struct actor *a, uint64_t deadline)
{
	bool write = dice(3) == 0;

	arrive(a, LOCK, write);
	if (judge(a, write ? rwlock_write_lock(&lock, deadline) : rwlock_read_lock(&lock, deadline), deadline) < 0)
		return;
	first_come(a, LOCK, a->ticket);
	*(write ? &writers : &readers) += 1;
	HOLDS(writers == 0 || (writers == 1 && readers == 0));
	dwell(a);
	HOLDS(write ? writers == 1 && readers == 0 : writers == 0);
	*(write ? &writers : &readers) -= 1;
	if (write)
		rwlock_write_unlock(&lock);
	else
		rwlock_read_unlock(&lock);
}

static void use_push(struct actor *a, uint64_t deadline)
{
	struct item *item = &items[items_count++];

	item->pusher = (int)(a - actors);
	arrive(a, PUSH, false);
	if (judge(a, queue_push(&queue, item, deadline), deadline) < 0) {
		HOLDS(!item->popped); /* it stayed ours */
		return;
	}
	item->pushed = true;
	pushed_count++;
}

static void use_pop(struct actor *a, uint64_t deadline)
{
	struct item *item = NULL;
	void *slot = NULL;
	int r;

	arrive(a, POP, false);
	r = judge(a, queue_pop(&queue, &slot, deadline), deadline);
	if (r < 0) {
		HOLDS(!slot);
		return;
	}
	first_come(a, POP, a->ticket);
	item = slot;
	HOLDS(item >= items && item < items + items_count);
	HOLDS(!item->popped);
	item->popped = true;
	popped_count++;
}

static void use_event(struct actor *a, uint64_t deadline)
{
	if (dice(2)) {
		event_set(&event);
		if (dice(2))
			event_clear(&event);
		return;
	}
	if (deadline == DEADLINE_NEVER)
		deadline = w.now_ns + dice(100); /* nobody is bound to set it again */
	arrive(a, EVENT, false);
	judge(a, event_wait(&event, deadline), deadline);
}

static int act(void *arg)
{
	static void (*const uses[])(struct actor *, uint64_t) = { use_mutex, use_semaphore, use_lock,
		                                                  use_push,  use_pop,       use_event };
	struct actor *a = arg;
	bool asked;
	int r;

	for (int i = 0; i < STEPS; i++)
		uses[dice(6)](a, some_deadline());
	/* A cancel that was asked for and has not come yet comes now. */
	asked = a->cancel_asked;
	r = co_yield(&w.sched);
	HOLDS(r == (asked ? -ECANCELED : 0));
	a->alive = false;
	return 0;
}

static void cancel_someone(void)
{
	struct actor *a = &actors[dice(ACTORS)];

	if (!a->alive)
		return;
	a->cancel_asked = true;
	co_cancel(a->co);
}

/* Deadlines that have passed leave nobody parked. */
static void all_woken_by(uint64_t now_ns)
{
	for (const struct actor *a = actors; a < actors + ACTORS; a++)
		HOLDS(!a->alive || a->co->state != CO_PARKED || !timer_armed(&a->co->timer) ||
		      a->co->timer.deadline_ns > now_ns);
}

/* Everybody is served as soon as possible: nothing is free while somebody waits for it. */
static void nothing_idle(void)
{
	HOLDS(list_empty(&mutex.waiters) || mutex.owner);
	HOLDS(list_empty(&sem.waiters) || sem.units == 0);
	HOLDS(list_empty(&lock.waiters) || lock.writer || lock.readers > 0);
	if (!list_empty(&lock.waiters) && !lock.writer) {
		/* Readers are inside, so the first in line is a writer. */
		for (const struct actor *a = actors; a < actors + ACTORS; a++)
			HOLDS(&a->co->node != lock.waiters.next || !a->alive || a->wants_write);
	}
	HOLDS(list_empty(&queue.pushers) || queue.count == queue.capacity);
	HOLDS(list_empty(&queue.poppers) || queue.count == 0);
}

/* What one pusher pushed is in the order in which it did. */
static void queue_in_order(void)
{
	for (size_t i = 0; i < queue.count; i++) {
		const struct item *first = queue.slots[(queue.head + i) % queue.capacity];

		HOLDS(!first->popped);
		for (size_t j = i + 1; j < queue.count; j++) {
			const struct item *second = queue.slots[(queue.head + j) % queue.capacity];

			HOLDS(first->pusher != second->pusher || first < second);
		}
	}
}

static void world_begin(void)
{
	world_init(&w);
	mutex_init(&mutex, &w.sched, "mutex");
	semaphore_init(&sem, &w.sched, "sem", UNITS);
	rwlock_init(&lock, &w.sched, "lock");
	queue_init(&queue, &w.sched, "queue", slots, 1 + dice(3));
	event_init(&event, &w.sched, "event");
	mutex_holders = sem_holders = readers = writers = 0;
	items_count = pushed_count = popped_count = 0;
	memset(items, 0, sizeof(items));
	for (struct actor *a = actors; a < actors + ACTORS; a++) {
		*a = (struct actor){ .alive = true };
		a->co = world_spawn(&w, act, a);
	}
}

static void one_schedule(void)
{
	srandom(seed);
	world_begin();
	for (int idle = 0; w.sched.count > 0;) {
		sched_run_ready(&w.sched);
		if (!sched_has_ready(&w.sched))
			nothing_idle();
		queue_in_order();
		if (dice(10) == 0)
			cancel_someone();
		world_advance(&w, w.now_ns + dice(8));
		all_woken_by(w.now_ns);
		idle = sched_has_ready(&w.sched) || timer_next_ns(&w.sched.timers) != DEADLINE_NEVER ? 0 : idle + 1;
		/* Only a queue may keep somebody forever. When it is closed, everybody must end. */
		if (idle == 1)
			queue_close(&queue);
		HOLDS(idle < 3); /* else somebody waits forever */
	}
	HOLDS(sem.units == UNITS && !mutex.owner && !lock.writer && lock.readers == 0);
	HOLDS(pushed_count - popped_count == (int)queue.count);
	for (int i = 0; i < items_count; i++)
		HOLDS(items[i].pushed || !items[i].popped);
	world_fini(&w);
}

TEST_CASE("schedule", 110);

TEST(test_schedule_random_ones_keep_every_promise)
{
	const char *one = getenv("SEED"), *runs = getenv("RUNS");
	unsigned n = runs ? (unsigned)atoi(runs) : RUNNING_ON_VALGRIND ? 300 : 10000;

	for (seed = one ? (unsigned)atoi(one) : 1; seed <= (one ? (unsigned)atoi(one) : n); seed++)
		one_schedule();
}
