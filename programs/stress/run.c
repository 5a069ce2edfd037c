#include "programs/stress/run.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "coroutine/co.h"
#include "coroutine/group.h"
#include "coroutine/io.h"
#include "coroutine/reactor.h"
#include "coroutine/wait.h"
#include "postcopy/postcopy.h"
#include "programs/cli/complain.h"
#include "programs/cli/progress.h"
#include "programs/stress/check.h"
#include "programs/stress/events.h"
#include "programs/stress/kinds.h"
#include "programs/stress/kvm.h"
#include "programs/stress/options.h"
#include "programs/stress/own_faults.h"
#include "programs/stress/phases.h"
#include "programs/stress/result.h"
#include "programs/stress/rival.h"
#include "programs/stress/source.h"
#include "programs/stress/stress.h"
#include "programs/stress/tally.h"
#include "programs/stress/toucher.h"
#include "programs/stress/waiter.h"
#include "programs/stress/watch.h"
#include "programs/stress/world.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define BEAT_NS (20 * NS_PER_MS)
#define OWN_FAULTS_MAX 8u
/* All pages have been sent: so long may the last ones take. */
#define LAST_PAGES_NS (5 * NS_PER_S)

/* ---- a round ---- */

static void on_log(void *opaque, enum log_level level, const char *text)
{
	/* The library warns of what it did not expect, and nothing here is unexpected. */
	if (level <= LOG_WARN)
		check_failed(opaque, "the library warns: %s", text);
}

static void on_whole(void *opaque)
{
	struct stress *s = opaque;

	event_set(&s->whole);
}

static void begin_postcopy(struct stress *s, const struct log *log)
{
	event_init(&s->whole, &s->reactor->sched, "the last page");
	*s->pc = (struct postcopy){ .ram = &s->ram,
		                    .reactor = s->reactor,
		                    .log = log,
		                    .request = source_request,
		                    .whole = on_whole,
		                    .opaque = s,
		                    .prefetch_on = !s->opts.prefetch_off };
}

static may_park int await_last_page(struct stress *s)
{
	uint64_t deadline_ns = deadline_after_ns(LAST_PAGES_NS);
	int r = 0;

	while (r == 0 && !postcopy_all_here(s->pc)) {
		event_clear(&s->whole);
		r = event_wait(&s->whole, deadline_ns);
	}
	if (r == -ETIMEDOUT)
		check_failed(s, "every page has been sent, and the library says that %lld are missing",
		             (long long)postcopy_missing(s->pc));
	return r;
}

static may_park int touch_and_walk(struct stress *s, struct group *source)
{
	struct group own;
	uint64_t begin_ns;
	int r = source_start(s, source), own_result;

	if (r < 0)
		return r;
	group_init(&own, &s->reactor->sched, "own faults");
	begin_ns = clock_now_ns();
	phase_begin(s, PHASE_TOUCH);
	r = own_start(s, &own);
	if (r == 0)
		r = phase_await(s);
	s->touch_ns += clock_now_ns() - begin_ns;
	if (atomic_load(&s->given_up))
		group_cancel(&own);
	own_result = group_join(&own);
	if (r < 0 || own_result < 0 || atomic_load(&s->given_up))
		return r < 0 ? r : -ECANCELED;
	r = source_push_rest(s);
	if (r == 0)
		r = await_last_page(s);
	if (r < 0)
		return r;
	phase_begin(s, PHASE_WALK);
	return phase_await(s);
}

static may_park int run_round(struct stress *s, const struct log *log)
{
	struct err err = ERR_NONE;
	struct group source;
	uint64_t before = atomic_load(&s->faults);
	int r;

	__atomic_store_n(&s->round, s->round + 1, __ATOMIC_RELAXED); /* the watcher looks at any time */
	begin_postcopy(s, log);
	r = world_begin_round(s);
	if (r < 0)
		return r;
	r = postcopy_listen(s->pc, &err);
	if (r < 0) {
		check_failed(s, "%s (%s)", err.text, err_name(r));
		postcopy_end(s->pc);
		return r;
	}
	s->faults_before = before;
	group_init(&source, &s->reactor->sched, "source");
	r = touch_and_walk(s, &source);
	group_cancel(&source);
	group_join(&source);
	tally_round(s);
	s->faults_before = s->result.faults;
	atomic_store(&s->faults, s->result.faults);
	s->pc->counts.faults = 0;
	postcopy_end(s->pc);
	world_end_round(s);
	return r;
}

static may_park int conduct(void *arg)
{
	struct stress *s = arg;
	struct log log = { .write = on_log, .opaque = s, .level_max = LOG_WARN };
	int r = 0;

	while (r == 0 && !atomic_load(&s->stop))
		r = run_round(s, &log);
	if (r < 0)
		check_failed(s, "the run ended early: %s", strerror(-r));
	phase_begin(s, PHASE_END);
	group_cancel(s->beats);
	return 0;
}

static may_park int run_beats(void *arg)
{
	struct stress *s = arg;
	int r = 0;

	while (r == 0) {
		r = io_sleep_until(s->reactor, deadline_after_ns(BEAT_NS));
		atomic_fetch_add(&s->beat, 1);
		atomic_store(&s->faults, s->faults_before + s->pc->counts.faults);
	}
	return r;
}

/* ---- a run ---- */

static void make_waiters(struct stress *s)
{
	if (s->opts.own_faults > 0) {
		s->own_first = s->waiter_count;
		s->own_count = OWN_FAULTS_MAX;
		for (unsigned i = 0; i < OWN_FAULTS_MAX; i++)
			waiter_new(s, "own access %u", i);
	}
	s->remover = waiter_new(s, "event thread", 0);
}

struct threads {
	pthread_t each[TOUCHERS_MAX + 3];
	unsigned count;
};

static int thread_add(struct threads *threads, void *(*fn)(void *), void *arg)
{
	int r = -pthread_create(&threads->each[threads->count], NULL, fn, arg);

	threads->count += r == 0;
	return r;
}

/* Signals are for the main thread, which is the engine's. */
static int make_threads(struct stress *s, struct threads *threads)
{
	sigset_t all, before;
	int r = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	s->participants = s->opts.touchers + events_any(s) + (s->opts.pattern == PATTERN_RACING);
	for (unsigned i = 0; r == 0 && i < s->opts.touchers; i++)
		r = thread_add(threads, toucher_main, &s->touchers[i]);
	if (r == 0 && events_any(s))
		r = thread_add(threads, events_main, s);
	if (r == 0 && s->opts.pattern == PATTERN_RACING)
		r = thread_add(threads, rival_main, s);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

static int drive(struct stress *s)
{
	struct threads threads = { .count = 0 };
	double engine_ms, all_ms, engine_end_ms, all_end_ms;
	struct group conductor, beats;
	pthread_t watcher;
	int r = make_threads(s, &threads);

	if (r < 0)
		return fail("stress: %u threads cannot be had: %s", s->opts.touchers, strerror(-r)), r;
	tally_cpu(s, &engine_ms, &all_ms);
	s->begin_ns = clock_now_ns();
	s->beats = &beats;
	group_init(&conductor, &s->reactor->sched, "stress");
	group_init(&beats, &s->reactor->sched, "beats");
	r = group_spawn(&beats, "beats", run_beats, s);
	if (r == 0)
		r = group_spawn(&conductor, "conductor", conduct, s);
	if (r == 0)
		r = -pthread_create(&watcher, NULL, watcher_main, s);
	if (r < 0)
		return fail("stress: %s", strerror(-r)), r;
	r = reactor_run(s->reactor, &conductor, DEADLINE_NEVER); /* the watcher sees to it that it ends */
	if (r == 0)
		r = reactor_run(s->reactor, &beats, DEADLINE_NEVER);
	if (r < 0)
		return fail("stress: the reactor: %s", strerror(-r)), r;
	atomic_store(&s->over, true);
	pthread_join(watcher, NULL);
	tally_cpu(s, &engine_end_ms, &all_end_ms);
	s->result.engine_cpu_ms = engine_end_ms - engine_ms;
	s->result.cpu_ms = all_end_ms - all_ms;
	for (unsigned i = 0; i < threads.count; i++)
		pthread_join(threads.each[i], NULL);
	tally_threads(s);
	return 0;
}

static int make(struct stress *s)
{
	int r = reactor_new(&s->reactor, &ring_uring, 0);

	if (r < 0)
		return fail("stress: no io_uring: %s", strerror(-r)), r;
	s->pc = calloc(1, sizeof(*s->pc));
	s->arrived_fd = eventfd(0, EFD_CLOEXEC);
	if (!s->pc || s->arrived_fd < 0)
		return fail("stress: no memory, or no descriptor"), -ENOMEM;
	r = world_make(s);
	if (r < 0)
		return r;
	r = source_make(s);
	if (r == 0)
		r = touchers_make(s);
	make_waiters(s);
	if (r < 0)
		return fail("stress: %s", strerror(-r)), r;
	return s->opts.kvm ? kvm_make(s) : 0;
}

static void unmake(struct stress *s)
{
	kvm_free(s);
	touchers_free(s);
	source_free(s);
	world_free(s);
	if (s->arrived_fd >= 0)
		close(s->arrived_fd);
	free(s->pc);
	reactor_free(s->reactor);
}

int stress_run(const struct stress_options *opts, struct stress_result *ret)
{
	struct stress *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return fail("stress: no memory"), -ENOMEM;
	s->opts = *opts;
	s->arrived_fd = s->kvm_fd = s->vm_fd = -1;
	pthread_mutex_init(&s->phase_lock, NULL);
	pthread_mutex_init(&s->wrong_lock, NULL);
	pthread_mutex_init(&s->rival_lock, NULL);
	pthread_cond_init(&s->phase_changed, NULL);
	progress_init(&s->progress, (enum progress_mode)opts->progress);
	memcpy(s->result.limit, ret->limit, sizeof(s->result.limit));
	r = make(s);
	if (r == 0)
		r = drive(s);
	progress_stop(&s->progress);
	*ret = s->result;
	unmake(s);
	free(s);
	return r;
}
