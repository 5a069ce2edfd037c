#include "coroutine/reactor.h"

#include "base/assert.h"
#include "base/clock.h"
#include "coroutine/group.h"

#include <errno.h>
#include <stdlib.h>

/* A dispatch ends after this many turns even if coroutines are still ready: the embedder's loop wants its turn too. */
#define DISPATCH_TURNS_MAX 64

/* And after this time: turns may be long, where coroutines spend all that they may (turn.h). */
#define DISPATCH_NS (5 * NS_PER_MS)

/* When it does, the descriptor becomes readable after this time. */
#define DISPATCH_AGAIN_NS (20 * NS_PER_US)

static void op_done(struct ring_op *op)
{
	struct co *co = op->waiter;

	/* The alarm has no waiter: the turn it caused is all it is for. A waiter that a cancel or its deadline has made
	 * ready, and whose turn has not come, finds out by itself that the operation is over (io_run). */
	if (co && co->state == CO_PARKED)
		co_wake(co, 0);
}

int reactor_new(struct reactor **ret_reactor, const struct ring_class *class, size_t stack_bytes)
{
	struct reactor *r = calloc(1, sizeof(*r));
	int ret;

	if (!r)
		return -ENOMEM;
	ret = class->open(&r->ring, op_done);
	if (ret < 0) {
		free(r);
		return ret;
	}
	sched_init(&r->sched, stack_bytes ? stack_bytes : STACK_BYTES_DEFAULT, STACK_IDLE_MAX_DEFAULT);
	*ret_reactor = r;
	return 0;
}

void reactor_free(struct reactor *r)
{
	if (!r)
		return;
	/* The alarm may be under way. The kernel holds no memory of ours for it, so the ring's end is its end. A turn
	 * would need the ring's own thread. */
	if (r->alarm.in_flight)
		ring_forget(r->ring, &r->alarm);
	sched_fini(&r->sched);
	r->ring->class->close(r->ring);
	free(r);
}

/* Will anything ever happen without the embedder's doing? */
static bool alive(const struct reactor *r)
{
	size_t in_flight = r->ring->in_flight - r->ring->background_in_flight;

	return sched_has_ready(&r->sched) || in_flight > 0 || timer_next_ns(&r->sched.timers) != DEADLINE_NEVER;
}

/* Background coroutines wait for what may never come; others that wait now wait forever. */
static int report_deadlock(struct reactor *r)
{
	const struct list *node;

	if (r->sched.count == r->sched.background_count)
		return 0;
	for (node = r->sched.all.next; r->deadlock && node != &r->sched.all; node = node->next) {
		const struct co *co = container_of(node, struct co, all);

		if (!co->background)
			r->deadlock(r->deadlock_opaque, co);
	}
	return -EDEADLK;
}

/* Later than this is no delay of the scheduler's any more. */
#define AWAY_NS (20 * NS_PER_MS)

/*
 * Deadlines that have passed, and nobody looked for so long at what had come before them: the process was stopped, its
 * group frozen, or a callback of the embedder's took its time.
 */
static void notice_absence(struct reactor *r, uint64_t now_ns)
{
	uint64_t due_ns = timer_next_ns(&r->sched.timers);

	if (due_ns < r->looked_ns)
		due_ns = r->looked_ns;
	if (due_ns < now_ns && now_ns - due_ns > AWAY_NS)
		sched_was_away(&r->sched, r->looked_ns, now_ns);
}

static void pass_time(struct reactor *r)
{
	uint64_t now_ns;

	if (timer_next_ns(&r->sched.timers) == DEADLINE_NEVER) {
		r->looked_ns = 0;
		return;
	}
	now_ns = clock_now_ns();
	if (r->looked_ns)
		notice_absence(r, now_ns);
	r->looked_ns = now_ns;
	sched_fire_timers(&r->sched, now_ns);
}

static int turn(struct reactor *r, uint64_t wait_until_ns, bool always)
{
	int n;

	if (r->looked_ns == 0 && timer_next_ns(&r->sched.timers) != DEADLINE_NEVER)
		r->looked_ns = clock_now_ns();
	/* Nothing submitted, nothing under way, no wish to wait: the kernel has nothing to tell. */
	if (r->ring->in_flight > 0 || wait_until_ns > 0 || always) {
		n = r->ring->class->turn(r->ring, wait_until_ns);
		if (n < 0)
			return n;
	}
	pass_time(r);
	return 0;
}

/* Look again until something is there, for @spin_ns. Return: so long it took; or the ring's error. */
static int64_t spin(struct reactor *r, uint64_t spin_ns, uint64_t wait_until_ns)
{
	uint64_t begin_ns = clock_now_ns(), now_ns = begin_ns, end_ns = begin_ns + spin_ns;
	int ret;

	if (end_ns > wait_until_ns)
		end_ns = wait_until_ns;
	while (now_ns < end_ns && !sched_has_ready(&r->sched)) {
		ret = turn(r, 0, true);
		if (ret < 0)
			return ret;
		now_ns = clock_now_ns();
	}
	return (int64_t)(now_ns - begin_ns);
}

/* See reactor.h, eager and soon_ns. Return: 0, or the ring's error. */
static int look_again(struct reactor *r, uint64_t wait_until_ns)
{
	uint64_t spin_ns = r->eager > 0 ? REACTOR_SPIN_NS : r->soon_ns;
	struct look *look = r->eager > 0 ? &r->look_eager : &r->look_soon;
	int64_t took_ns = 0;
	bool found;

	if (spin_ns == 0)
		return 0;
	if (look_worth(look)) {
		took_ns = spin(r, spin_ns, wait_until_ns);
		if (took_ns < 0)
			return (int)took_ns;
		found = sched_has_ready(&r->sched);
		look_done(look, found);
		if (r->eager > 0 || found) {
			r->soon_ns -= (uint64_t)took_ns < r->soon_ns ? (uint64_t)took_ns : r->soon_ns;
			return 0;
		}
	}
	if (r->eager == 0)
		r->soon_ns = 0;
	return 0;
}

static int run(struct reactor *r, const struct group *until, uint64_t deadline_ns)
{
	uint64_t wait_ns;
	int ret;

	for (;;) {
		sched_run_ready(&r->sched);
		if (group_empty(until))
			return 0;
		if (deadline_ns != DEADLINE_NEVER && clock_now_ns() >= deadline_ns)
			return -ETIMEDOUT;
		if (!alive(r)) {
			ret = report_deadlock(r);
			if (ret < 0)
				return ret;
		}
		wait_ns = timer_next_ns(&r->sched.timers);
		if (deadline_ns < wait_ns)
			wait_ns = deadline_ns;
		ret = sched_has_ready(&r->sched) ? 0 : look_again(r, wait_ns);
		if (ret == 0)
			ret = turn(r, sched_has_ready(&r->sched) ? 0 : wait_ns, false);
		if (ret < 0)
			return ret;
	}
}

int reactor_run(struct reactor *r, const struct group *until, uint64_t deadline_ns)
{
	int ret;

	r->runs = true;
	ret = run(r, until, deadline_ns);
	r->runs = false;
	return ret;
}

/*
 * Make the ring's descriptor readable at the next deadline, or soon if coroutines are ready. An alarm that is under way
 * for an earlier time stays: it costs one empty dispatch.
 */
static int set_alarm(struct reactor *r)
{
	uint64_t next_ns;
	int ret;

	for (;;) {
		next_ns = timer_next_ns(&r->sched.timers);
		/* Not at once: the turn that sends it would reap it, and the descriptor stay silent. */
		if (sched_has_ready(&r->sched))
			next_ns = clock_now_ns() + DISPATCH_AGAIN_NS;
		if (next_ns == DEADLINE_NEVER)
			return 0;
		if (r->alarm.in_flight && !r->alarm.cancel_sent && r->alarm_ns <= next_ns)
			return 0;
		if (r->alarm.in_flight) {
			r->ring->class->cancel(r->ring, &r->alarm);
		} else {
			r->alarm =
			        (struct ring_op){ .kind = RING_TIMEOUT, .fd = -1, .off = next_ns, .background = true };
			r->alarm_ns = next_ns;
			r->ring->class->submit(r->ring, &r->alarm);
		}
		ret = turn(r, 0, false);
		if (ret < 0)
			return ret;
	}
}

int reactor_dispatch(struct reactor *r)
{
	uint64_t end_ns = clock_now_ns() + DISPATCH_NS;
	int ret;

	for (int i = 0; i < DISPATCH_TURNS_MAX; i++) {
		sched_run_ready(&r->sched);
		ret = turn(r, 0, i == 0); /* once in any case: it makes the descriptor silent */
		if (ret < 0)
			return ret;
		if (!sched_has_ready(&r->sched) || clock_now_ns() >= end_ns)
			break;
	}
	ret = set_alarm(r);
	if (ret < 0)
		return ret;
	return alive(r) ? 0 : report_deadlock(r);
}

int reactor_fd(const struct reactor *r)
{
	return r->ring->class->fd(r->ring);
}
