#include "base/clock.h"
#include "coroutine/wait.h"
#include "tests/support/check_main.h"
#include "tests/unit/co_world.h"

#include <errno.h>
#include <string.h>

/* What each test does is a list of actors that take something, note their letter, hold it until told, and give back. */

static struct co_world w;
static char trace[128];
static struct event go;
static struct semaphore sem;
static struct mutex mutex;
static struct rwlock lock;
static struct queue queue;
static void *slots[2];

static void setup(void)
{
	world_init(&w);
	trace[0] = '\0';
	event_init(&go, &w.sched, "go");
	semaphore_init(&sem, &w.sched, "sem", 1);
	mutex_init(&mutex, &w.sched, "mutex");
	rwlock_init(&lock, &w.sched, "lock");
	queue_init(&queue, &w.sched, "queue", slots, 2);
}

static void teardown(void)
{
	world_fini(&w);
}

static void note(char c)
{
	size_t len = strlen(trace);

	ck_assert_uint_lt(len + 1, sizeof(trace));
	trace[len] = c;
	trace[len + 1] = '\0';
}

struct actor {
	char name; /* noted when it has what it wants; in lower case when it has not */
	uint64_t deadline_ns;
	void *item;
	int result;
};

static struct actor actor(char name)
{
	return (struct actor){ .name = name, .deadline_ns = DEADLINE_NEVER, .result = 99 };
}

static bool got(struct actor *a, int r)
{
	a->result = r;
	note(r == 0 ? a->name : (char)(a->name + 'a' - 'A'));
	return r == 0;
}

/* Held until `go`; no deadline: the test sets it. */
static void hold(void)
{
	event_wait(&go, DEADLINE_NEVER);
}

/* ---- event ---- */

static int waits_event(void *arg)
{
	struct actor *a = arg;

	got(a, event_wait(&go, a->deadline_ns));
	return 0;
}

TEST_CASE("wait", 60, .checked = { setup, teardown });

TEST(test_event_set_wakes_all_in_order_and_later_ones_do_not_park)
{
	struct actor a = actor('A'), b = actor('B'), c = actor('C');

	world_spawn(&w, waits_event, &a);
	world_spawn(&w, waits_event, &b);
	world_settle(&w);
	ck_assert_str_eq(trace, "");
	event_set(&go);
	event_clear(&go); /* those that waited when it was set have seen it */
	world_settle(&w);
	ck_assert_str_eq(trace, "AB");
	event_set(&go);
	world_spawn(&w, waits_event, &c);
	world_settle(&w);
	ck_assert_str_eq(trace, "ABC");
}

/* ---- semaphore ---- */

static int acquires(void *arg)
{
	struct actor *a = arg;

	if (got(a, semaphore_acquire(&sem, a->deadline_ns))) {
		hold();
		semaphore_release(&sem);
	}
	return 0;
}

TEST(test_semaphore_hands_over_in_order_and_nobody_slips_in)
{
	struct actor a = actor('A'), b = actor('B'), c = actor('C');

	ck_assert_int_eq(semaphore_acquire(&sem, DEADLINE_NEVER), 0);
	world_spawn(&w, acquires, &a);
	world_settle(&w);
	world_spawn(&w, acquires, &c); /* ready before A is woken, and so has its turn first */
	semaphore_release(&sem);
	ck_assert_uint_eq(sem.units, 0);
	world_spawn(&w, acquires, &b);
	world_settle(&w);
	ck_assert_str_eq(trace, "A");
	event_set(&go);
	world_settle(&w);
	ck_assert_str_eq(trace, "ACB");
	ck_assert_uint_eq(sem.units, 1);
}

TEST(test_semaphore_unit_of_one_cancelled_before_the_hand_over_goes_to_the_next)
{
	struct actor a = actor('A'), b = actor('B');
	struct co *co;

	ck_assert_int_eq(semaphore_acquire(&sem, DEADLINE_NEVER), 0);
	co = world_spawn(&w, acquires, &a);
	world_spawn(&w, acquires, &b);
	world_settle(&w);
	co_cancel(co);
	semaphore_release(&sem); /* same turn: A is out of the line already */
	world_settle(&w);
	ck_assert_str_eq(trace, "aB");
	ck_assert_int_eq(a.result, -ECANCELED);
	event_set(&go);
	world_settle(&w);
	ck_assert_uint_eq(sem.units, 1);
}

TEST(test_semaphore_unit_handed_over_stays_when_a_cancel_follows)
{
	struct actor a = actor('A');
	struct co *co;

	ck_assert_int_eq(semaphore_acquire(&sem, DEADLINE_NEVER), 0);
	co = world_spawn(&w, acquires, &a);
	world_settle(&w);
	semaphore_release(&sem);
	co_cancel(co);
	world_settle(&w); /* has it, is interrupted while it holds it, and gives it back */
	ck_assert_str_eq(trace, "A");
	ck_assert_uint_eq(sem.units, 1);
}

TEST(test_semaphore_timeout_takes_nothing)
{
	struct actor a = actor('A');

	a.deadline_ns = 100;
	ck_assert_int_eq(semaphore_acquire(&sem, DEADLINE_NEVER), 0);
	world_spawn(&w, acquires, &a);
	world_settle(&w);
	world_advance(&w, 100);
	semaphore_release(&sem);
	world_settle(&w);
	ck_assert_int_eq(a.result, -ETIMEDOUT);
	ck_assert_uint_eq(sem.units, 1);
}

/* ---- mutex ---- */

static int locks(void *arg)
{
	struct actor *a = arg;

	if (got(a, mutex_lock(&mutex, a->deadline_ns))) {
		hold();
		mutex_unlock(&mutex);
	}
	return 0;
}

TEST(test_mutex_goes_past_those_that_gave_up)
{
	struct actor a = actor('A'), b = actor('B'), c = actor('C'), d = actor('D');
	struct co *co;

	b.deadline_ns = 50;
	world_spawn(&w, locks, &a);
	world_spawn(&w, locks, &b);
	co = world_spawn(&w, locks, &c);
	world_spawn(&w, locks, &d);
	world_settle(&w);
	ck_assert_str_eq(trace, "A");
	world_advance(&w, 60);
	co_cancel(co);
	world_settle(&w);
	ck_assert_str_eq(trace, "Abc");
	event_set(&go);
	world_settle(&w);
	ck_assert_str_eq(trace, "AbcD");
	ck_assert_ptr_null(mutex.owner);
}

/* ---- reader-writer lock ---- */

static int reads(void *arg)
{
	struct actor *a = arg;

	if (got(a, rwlock_read_lock(&lock, a->deadline_ns))) {
		hold();
		rwlock_read_unlock(&lock);
	}
	return 0;
}

static int writes(void *arg)
{
	struct actor *a = arg;

	if (got(a, rwlock_write_lock(&lock, a->deadline_ns))) {
		hold();
		rwlock_write_unlock(&lock);
	}
	return 0;
}

TEST(test_rwlock_readers_share_and_a_waiting_writer_holds_back_later_ones)
{
	struct actor r1 = actor('A'), r2 = actor('B'), wr = actor('W'), r3 = actor('C');

	world_spawn(&w, reads, &r1);
	world_spawn(&w, reads, &r2);
	world_spawn(&w, writes, &wr);
	world_spawn(&w, reads, &r3);
	world_settle(&w);
	ck_assert_str_eq(trace, "AB");
	event_set(&go);
	world_settle(&w);
	ck_assert_str_eq(trace, "ABWC");
	ck_assert_uint_eq(lock.readers, 0);
	ck_assert_ptr_null(lock.writer);
}

TEST(test_rwlock_writer_that_times_out_lets_readers_behind_it_in)
{
	struct actor r1 = actor('A'), wr = actor('W'), r2 = actor('B'), r3 = actor('C');

	wr.deadline_ns = 10;
	world_spawn(&w, reads, &r1);
	world_spawn(&w, writes, &wr);
	world_spawn(&w, reads, &r2);
	world_spawn(&w, reads, &r3);
	world_settle(&w);
	world_advance(&w, 10);
	world_settle(&w);
	ck_assert_str_eq(trace, "AwBC");
	ck_assert_uint_eq(lock.readers, 3);
	event_set(&go);
	world_settle(&w);
}

TEST(test_rwlock_writer_that_is_cancelled_lets_readers_behind_it_in)
{
	struct actor r1 = actor('A'), wr = actor('W'), r2 = actor('B');
	struct co *co;

	world_spawn(&w, reads, &r1);
	co = world_spawn(&w, writes, &wr);
	world_spawn(&w, reads, &r2);
	world_settle(&w);
	co_cancel(co);
	world_settle(&w);
	ck_assert_str_eq(trace, "AwB");
	event_set(&go);
	world_settle(&w);
}

TEST(test_rwlock_handed_over_stays_when_a_cancel_follows)
{
	struct actor wr = actor('W');
	struct co *co;

	ck_assert_int_eq(rwlock_read_lock(&lock, DEADLINE_NEVER), 0);
	co = world_spawn(&w, writes, &wr);
	world_settle(&w);
	rwlock_read_unlock(&lock);
	co_cancel(co);
	world_settle(&w); /* the hold is what ends early, and the lock is given back */
	ck_assert_str_eq(trace, "W");
	ck_assert_ptr_null(lock.writer);
	ck_assert_int_eq(rwlock_read_lock(&lock, DEADLINE_NEVER), 0);
	rwlock_read_unlock(&lock);
}

/* ---- queue ---- */

static int pushes(void *arg)
{
	struct actor *a = arg;

	got(a, queue_push(&queue, a->item, a->deadline_ns));
	return 0;
}

static int pops(void *arg)
{
	struct actor *a = arg;

	got(a, queue_pop(&queue, &a->item, a->deadline_ns));
	return 0;
}

TEST(test_queue_keeps_order_over_parked_pushers)
{
	struct actor p[5], c[5];

	for (int i = 0; i < 5; i++) {
		p[i] = actor((char)('A' + i));
		p[i].item = &p[i];
		world_spawn(&w, pushes, &p[i]);
	}
	world_settle(&w);
	ck_assert_str_eq(trace, "AB");
	for (int i = 0; i < 5; i++) {
		c[i] = actor((char)('P' + i));
		world_spawn(&w, pops, &c[i]);
	}
	world_settle(&w);
	for (int i = 0; i < 5; i++) {
		ck_assert_int_eq(p[i].result, 0);
		ck_assert_ptr_eq(c[i].item, &p[i]);
	}
	ck_assert_uint_eq(queue.count, 0);
}

TEST(test_queue_item_goes_to_who_waited_longest_and_not_to_a_late_popper)
{
	struct actor c1 = actor('A'), c2 = actor('B');
	int item;

	world_spawn(&w, pops, &c1);
	world_settle(&w);
	world_spawn(&w, pops, &c2); /* ready, and has its turn before A's */
	ck_assert_int_eq(queue_push(&queue, &item, DEADLINE_NEVER), 0);
	world_settle(&w);
	ck_assert_str_eq(trace, "A");
	ck_assert_ptr_eq(c1.item, &item);
	queue_close(&queue);
	world_settle(&w);
	ck_assert_int_eq(c2.result, -EPIPE);
}

TEST(test_queue_item_handed_over_stays_when_a_cancel_follows)
{
	struct actor c = actor('A');
	struct co *co = world_spawn(&w, pops, &c);
	int item;

	world_settle(&w);
	ck_assert_int_eq(queue_push(&queue, &item, DEADLINE_NEVER), 0);
	co_cancel(co);
	world_settle(&w);
	ck_assert_str_eq(trace, "A");
	ck_assert_ptr_eq(c.item, &item);
}

TEST(test_queue_item_of_a_pusher_that_gave_up_is_not_taken)
{
	struct actor p[4], c[3];
	struct co *co[4];

	for (int i = 0; i < 4; i++) {
		p[i] = actor((char)('A' + i));
		p[i].item = &p[i];
		p[i].deadline_ns = i == 2 ? 10 : DEADLINE_NEVER;
		co[i] = world_spawn(&w, pushes, &p[i]);
	}
	world_settle(&w);
	world_advance(&w, 10);
	co_cancel(co[3]);
	for (int i = 0; i < 3; i++) {
		c[i] = actor((char)('P' + i));
		world_spawn(&w, pops, &c[i]);
	}
	world_settle(&w);
	ck_assert_int_eq(p[2].result, -ETIMEDOUT);
	ck_assert_int_eq(p[3].result, -ECANCELED);
	ck_assert_ptr_eq(c[0].item, &p[0]);
	ck_assert_ptr_eq(c[1].item, &p[1]);
	ck_assert_int_eq(c[2].result, 99);
	queue_close(&queue);
	world_settle(&w);
	ck_assert_int_eq(c[2].result, -EPIPE);
}

TEST(test_queue_closed_gives_what_is_in_it_and_sends_pushers_away)
{
	struct actor p[3];
	void *item = NULL;

	for (int i = 0; i < 3; i++) {
		p[i] = actor((char)('A' + i));
		p[i].item = &p[i];
		world_spawn(&w, pushes, &p[i]);
	}
	world_settle(&w);
	queue_close(&queue);
	world_settle(&w);
	ck_assert_int_eq(p[2].result, -EPIPE);
	ck_assert_int_eq(queue_push(&queue, &p[2], DEADLINE_NEVER), -EPIPE);
	ck_assert_int_eq(queue_pop(&queue, &item, DEADLINE_NEVER), 0);
	ck_assert_ptr_eq(item, &p[0]);
	ck_assert_int_eq(queue_pop(&queue, &item, DEADLINE_NEVER), 0);
	ck_assert_ptr_eq(item, &p[1]);
	ck_assert_int_eq(queue_pop(&queue, &item, DEADLINE_NEVER), -EPIPE);
	ck_assert_ptr_eq(item, &p[1]); /* written only on success */
}
