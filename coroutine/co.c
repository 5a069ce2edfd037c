#include "coroutine/co.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/probe.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1
#endif
#if __has_feature(thread_sanitizer) && !defined(__SANITIZE_THREAD__)
#define __SANITIZE_THREAD__ 1
#endif
#endif

/*
 * The sanitizers keep a picture of the stack they are on. Each switch is announced before and after; `dying` says that
 * nobody will come back to the context that is left.
 */
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
static void announce_leave(struct co *from, const struct co *to, bool dying)
{
	const struct sched *s = from->sched;
	const void *bottom = to == &s->main ? s->asan_main_stack : to->stack.base;
	size_t bytes = to == &s->main ? s->asan_main_bytes : to->stack.bytes;

	__sanitizer_start_switch_fiber(dying ? NULL : &from->fake_stack, bottom, bytes);
}

static void announce_arrive(struct co *self, bool from_main)
{
	struct sched *s = self->sched;
	const void *bottom;
	size_t bytes;

	__sanitizer_finish_switch_fiber(self->fake_stack, &bottom, &bytes);
	if (from_main) {
		s->asan_main_stack = bottom;
		s->asan_main_bytes = bytes;
	}
}
#elif defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>

#include <pthread.h>
#include <signal.h>

/*
 * ThreadSanitizer holds a signal back until the fiber it met next calls into the C library; one that meets a coroutine
 * that then parks is lost. So coroutines run with them blocked, and the thread's own context takes them. Not those
 * that an instruction raises.
 */
static void hold_signals(struct co *main)
{
	sigset_t set;

	sigfillset(&set);
	sigdelset(&set, SIGSEGV);
	sigdelset(&set, SIGBUS);
	sigdelset(&set, SIGFPE);
	sigdelset(&set, SIGILL);
	sigdelset(&set, SIGABRT);
	sigdelset(&set, SIGTRAP);
	pthread_sigmask(SIG_BLOCK, &set, &main->sched->tsan_signals);
}

static void release_signals(struct co *main)
{
	pthread_sigmask(SIG_SETMASK, &main->sched->tsan_signals, NULL);
}

/* Inlined even without optimisation: its own return would be booked on the other fiber's stack of calls. */
static inline __attribute__((always_inline)) void announce_leave(struct co *from, const struct co *to, bool dying)
{
	(void)dying;
	if (!from->tsan_fiber)
		from->tsan_fiber = __tsan_get_current_fiber();
	if (from == &from->sched->main)
		hold_signals(from);
	__tsan_switch_to_fiber(to->tsan_fiber, 0);
}

static void announce_arrive(struct co *self, bool from_main)
{
	(void)from_main;
	if (self == &self->sched->main)
		release_signals(self);
}
#else
static inline void announce_leave(struct co *from, const struct co *to, bool dying)
{
	(void)from;
	(void)to;
	(void)dying;
}

static inline void announce_arrive(struct co *self, bool from_main)
{
	(void)self;
	(void)from_main;
}
#endif

void sched_init(struct sched *s, size_t stack_bytes, size_t idle_stacks_max)
{
	memset(s, 0, sizeof(*s));
	list_init(&s->ready);
	list_init(&s->all);
	list_init(&s->main.node);
	s->main.sched = s;
	s->main.state = CO_RUNNING;
	s->current = &s->main;
	stack_cache_init(&s->stacks, stack_bytes, idle_stacks_max);
}

static void bury_zombie(struct sched *s)
{
	struct co *dead = s->zombie;
	struct stack stack;

	if (!dead)
		return;
	s->zombie = NULL;
#if defined(__SANITIZE_THREAD__)
	__tsan_destroy_fiber(dead->tsan_fiber);
#endif
	/* The coroutine lives at the top of the stack that goes back. */
	stack = dead->stack;
	stack_put(&s->stacks, &stack);
}

void sched_fini(struct sched *s)
{
	ASSERT(s->count == 0);
	bury_zombie(s);
	stack_cache_fini(&s->stacks);
	ctx_fini(&s->main.ctx);
}

/* Runs on the new context, no matter who switched to it. */
static void arrived(struct co *self, const struct co *from)
{
	announce_arrive(self, from == &self->sched->main);
	if (self->sched->zombie)
		bury_zombie(self->sched);
}

static void switch_to(struct sched *s, struct co *to)
{
	struct co *from = s->current;

	s->switches++;
	s->current = to;
	to->state = CO_RUNNING;
	if (to == from)
		return;
	announce_leave(from, to, from->state == CO_DEAD);
	/* `from` is on the stack that sleeps now: after the switch it is this coroutine again, as `self` below. We do
	 * not know then where we came from, and only AddressSanitizer wants to know: see co_entry for the first
	 * arrival. */
	ctx_switch(&from->ctx, &to->ctx);
	arrived(from, NULL);
}

static void run_next(struct sched *s)
{
	switch_to(s, co_of_node(list_pop_head(&s->ready)));
}

void sched_run_ready(struct sched *s)
{
	uint64_t before = s->switches;

	ASSERT(s->current == &s->main);
	if (list_empty(&s->ready))
		return;
	s->rounds++;
	s->main.state = CO_READY;
	list_push_tail(&s->ready, &s->main.node);
	run_next(s);
	s->round_switches = s->switches - before;
}

void sched_was_away(struct sched *s, uint64_t from_ns, uint64_t to_ns)
{
	s->away_from_ns = from_ns;
	s->away_to_ns = to_ns;
}

/* What @deadline_ns is worth now. */
static uint64_t moved_deadline(const struct sched *s, uint64_t deadline_ns)
{
	bool passed_away = deadline_ns > s->away_from_ns && deadline_ns <= s->away_to_ns;

	return passed_away ? deadline_ns + (s->away_to_ns - s->away_from_ns) : deadline_ns;
}

static void arm(struct sched *s, struct co *co, uint64_t deadline_ns)
{
	uint64_t moved_ns = moved_deadline(s, deadline_ns);

	co->deadline_moved = moved_ns != deadline_ns;
	timer_arm(&s->timers, &co->timer, moved_ns);
}

void sched_fire_timers(struct sched *s, uint64_t now_ns)
{
	struct timer *t;

	while ((t = timer_pop_due(&s->timers, now_ns))) {
		struct co *co = container_of(t, struct co, timer);

		if (!co->deadline_moved && moved_deadline(s, t->deadline_ns) > now_ns)
			arm(s, co, t->deadline_ns);
		else
			co_wake(co, -ETIMEDOUT);
	}
}

static void co_entry(void *arg)
{
	struct co *co = arg;
	struct sched *s = co->sched;
	int result;

	/* The first coroutine of all is entered from the thread's own context: the moment to learn its stack. */
	arrived(co, s->switches == 1 ? &s->main : NULL);
	result = co->fn(co->arg);

	co->state = CO_DEAD;
	list_unlink(&co->all);
	s->count--;
	s->background_count -= co->background;
	if (co->on_exit)
		co->on_exit(co, result);
	ASSERT(!s->zombie);
	s->zombie = co;
	run_next(s); /* never empty: the thread's own context waits in it */
	__builtin_unreachable();
}

int co_spawn(struct sched *s, const struct co_params *params, struct co **ret_co)
{
	struct stack stack;
	struct co *co;
	int r = stack_get(&s->stacks, &stack);

	if (r < 0)
		return r;
	/* At the top of its own stack, on a cache line of its own. */
	co = (struct co *)(((uintptr_t)stack.base + stack.bytes - sizeof(*co)) & ~(uintptr_t)63);
	memset(co, 0, sizeof(*co));
	list_init(&co->node);
	co->sched = s;
	co->stack = stack;
	co->fn = params->fn;
	co->arg = params->arg;
	co->background = params->background;
	co->on_exit = params->on_exit;
	co->group = params->group;
	list_init(&co->sibling);
	snprintf(co->name, sizeof(co->name), "%s", params->name);
#if defined(__SANITIZE_THREAD__)
	co->tsan_fiber = __tsan_create_fiber(0);
#endif
	ctx_init(&co->ctx, stack.base, (size_t)((char *)co - (char *)stack.base), co_entry, co);
	list_push_tail(&s->all, &co->all);
	s->count++;
	s->background_count += co->background;
	co->state = CO_READY;
	list_push_tail(&s->ready, &co->node);
	PROBE2(coroutine__spawn, co, s->count);
	*ret_co = co;
	return 0;
}

static int park(struct sched *s, struct list *list, uint64_t deadline_ns)
{
	struct co *co = s->current;
	int result;

	ASSERT(co != &s->main); /* the thread's own context cannot park: the caller must be a coroutine */
	co->state = CO_PARKED;
	if (list)
		list_push_tail(list, &co->node);
	if (deadline_ns != DEADLINE_NEVER)
		arm(s, co, deadline_ns);
	run_next(s); /* never empty: the thread's own context waits in it */
	co->wait_kind = NULL;
	result = co->wake_result;
	co->wake_result = 0;
	return result;
}

void co_shield(struct sched *s, bool on)
{
	s->current->shielded = on;
}

bool co_take_cancel(struct sched *s)
{
	struct co *co = s->current;

	if (!co->cancel_pending || co->shielded)
		return false;
	co->cancel_pending = false;
	return true;
}

int co_park(struct sched *s, struct list *list, uint64_t deadline_ns, const char *kind, const char *name)
{
	struct co *co = s->current;

	if (co_take_cancel(s))
		return -ECANCELED;
	co->interruptible = !co->shielded;
	co->wait_kind = kind;
	co->wait_name = name;
	return park(s, list, deadline_ns);
}

int co_park_uninterruptible(struct sched *s, const char *kind, const char *name)
{
	struct co *co = s->current;

	co->interruptible = false;
	co->wait_kind = kind;
	co->wait_name = name;
	return park(s, NULL, DEADLINE_NEVER);
}

void co_yield_shielded(struct sched *s)
{
	struct co *co = s->current;

	ASSERT(co != &s->main);
	co->state = CO_READY;
	list_push_tail(&s->ready, &co->node);
	run_next(s);
}

int co_yield(struct sched *s)
{
	if (co_take_cancel(s))
		return -ECANCELED;
	co_yield_shielded(s);
	return 0;
}

void co_wake(struct co *co, int result)
{
	struct sched *s = co->sched;

	ASSERT(co->state == CO_PARKED);
	list_unlink(&co->node);
	timer_disarm(&s->timers, &co->timer);
	co->wake_result = result;
	co->state = CO_READY;
	list_push_tail(&s->ready, &co->node);
}

void co_cancel(struct co *co)
{
	ASSERT(co->state != CO_DEAD);
	/* One is on its way: two that were not delivered yet are one. */
	if (co->state == CO_READY && co->wake_result == -ECANCELED)
		return;
	if (co->state == CO_PARKED && co->interruptible)
		co_wake(co, -ECANCELED);
	else
		co->cancel_pending = true;
}

void co_cancel_again(struct sched *s)
{
	s->current->cancel_pending = true;
}
