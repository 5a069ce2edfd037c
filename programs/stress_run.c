#include "programs/stress.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "coroutine/group.h"
#include "coroutine/io.h"
#include "coroutine/reactor.h"
#include "postcopy/postcopy.h"
#include "programs/cli/complain.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#define BEAT_NS (20 * NS_PER_MS)
#define OWN_FAULTS_MAX 8u
/* All pages have been sent: so long may the last ones take. */
#define LAST_PAGES_NS (5 * NS_PER_S)

/* ---- phases ---- */

enum stress_phase phase_next(struct stress *s, unsigned *seen)
{
	enum stress_phase phase;

	pthread_mutex_lock(&s->phase_lock);
	while (s->phase_number == *seen)
		pthread_cond_wait(&s->phase_changed, &s->phase_lock);
	*seen = s->phase_number;
	phase = s->phase;
	pthread_mutex_unlock(&s->phase_lock);
	return phase;
}

static void tell_conductor(struct stress *s)
{
	/* Cannot fail: it would have to be read less than once in 2^64 writes. */
	if (eventfd_write(s->arrived_fd, 1) < 0)
		abort();
}

void phase_done(struct stress *s)
{
	pthread_mutex_lock(&s->phase_lock);
	if (++s->arrived == s->participants)
		tell_conductor(s);
	pthread_mutex_unlock(&s->phase_lock);
}

void run_give_up(struct stress *s)
{
	atomic_store(&s->given_up, true);
	atomic_store(&s->stop, true);
	tell_conductor(s);
}

static void phase_begin(struct stress *s, enum stress_phase phase)
{
	pthread_mutex_lock(&s->phase_lock);
	s->phase = phase;
	s->phase_number++;
	s->arrived = 0;
	atomic_store(&s->touching, phase == PHASE_TOUCH ? s->opts.touchers : 0);
	pthread_cond_broadcast(&s->phase_changed);
	pthread_mutex_unlock(&s->phase_lock);
}

static bool all_arrived(struct stress *s)
{
	bool all;

	pthread_mutex_lock(&s->phase_lock);
	all = s->arrived == s->participants;
	pthread_mutex_unlock(&s->phase_lock);
	return all;
}

/* Until every thread is through. Parks. */
static may_park int phase_await(struct stress *s)
{
	eventfd_t n;
	ssize_t r;

	while (!all_arrived(s)) {
		/* No deadline: the watcher finds who does not come. */
		r = io_read(s->reactor, s->arrived_fd, &n, sizeof(n), RING_OFF_CURRENT, DEADLINE_NEVER);
		if (r < 0)
			return (int)r;
		/* Wakes whoever waits for a page. */
		if (atomic_load(&s->given_up))
			postcopy_end(s->pc);
	}
	return 0;
}

/* ---- a round ---- */

static void on_log(void *opaque, enum log_level level, const char *text)
{
	/* The library warns of what it did not expect, and nothing here is unexpected. */
	if (level <= LOG_WARN)
		check_failed(opaque, "the library warns: %s", text);
}

static void begin_postcopy(struct stress *s, const struct log *log)
{
	*s->pc = (struct postcopy){ .ram = &s->ram,
		                    .reactor = s->reactor,
		                    .log = log,
		                    .request = source_request,
		                    .opaque = s,
		                    .prefetch_on = !s->opts.prefetch_off };
}

/* The quantiles are those of the last round: a round is long enough. */
static void add_counts(struct stress *s)
{
	struct stress_result *r = &s->result;
	const struct postcopy *pc = s->pc;

	r->rounds++;
	r->faults += pc->counts.faults;
	r->faults_local += pc->counts.faults_local;
	r->engine_faults += pc->counts.engine_faults;
	r->placed += pc->counts.pages;
	r->duplicates += pc->counts.duplicates;
	r->removed += pc->counts.removed;
	r->again += pc->counts.place_retries;
	r->requests += pc->ledger.requests;
	r->requested_pages += pc->ledger.requested_pages;
	r->guessed_pages += pc->ledger.guessed_pages;
	r->guess_hits += pc->prefetch.hits;
	r->guess_waste += pc->prefetch.waste;
	r->placed_mean_ns = pc->blocktime.count ? pc->blocktime.sum_ns / pc->blocktime.count : 0;
	r->placed_p50_ns = blocktime_quantile(&pc->blocktime, 500);
	r->placed_p99_ns = blocktime_quantile(&pc->blocktime, 990);
	r->pages_walked += s->pages;
}

static may_park int await_last_page(struct stress *s)
{
	uint64_t deadline_ns = deadline_after_ns(LAST_PAGES_NS);
	int r = 0;

	while (r == 0 && !postcopy_all_here(s->pc)) {
		event_clear(&s->pc->all_here);
		r = event_wait(&s->pc->all_here, deadline_ns);
	}
	if (r == -ETIMEDOUT)
		check_failed(s, "every page has been sent, and the library says that %lld are missing",
		             (long long)s->pc->missing_tpages);
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
	add_counts(s);
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

struct waiter *waiter_new(struct stress *s, const char *fmt, unsigned number)
{
	struct waiter *w = &s->waiters[s->waiter_count++];

	snprintf(w->name, sizeof(w->name), fmt, number); /* NOLINT: formats of ours */
	w->stress = s;
	return w;
}

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

static void note_cpu(struct stress *s, double *ret_engine_ms, double *ret_all_ms)
{
	struct rusage engine, all;

	getrusage(RUSAGE_THREAD, &engine);
	getrusage(RUSAGE_SELF, &all);
	*ret_engine_ms = (double)(engine.ru_utime.tv_sec + engine.ru_stime.tv_sec) * 1e3 +
	                 (double)(engine.ru_utime.tv_usec + engine.ru_stime.tv_usec) / 1e3;
	*ret_all_ms = (double)(all.ru_utime.tv_sec + all.ru_stime.tv_sec) * 1e3 +
	              (double)(all.ru_utime.tv_usec + all.ru_stime.tv_usec) / 1e3;
	s->result.context_switches = (uint64_t)all.ru_nvcsw;
}

static void sum_up(struct stress *s)
{
	struct stress_result *r = &s->result;

	memset(&r->latency, 0, sizeof(r->latency));
	r->touches = r->waits = r->marks_checked = 0;
	for (unsigned i = 0; i < s->opts.touchers; i++) {
		const struct toucher *t = &s->touchers[i];

		latency_merge(&r->latency, &t->latency);
		r->touches += atomic_load(&t->touches);
		r->waits += atomic_load(&t->waits);
		r->marks_checked += atomic_load(&t->marks_checked);
	}
	r->elapsed_ns = clock_now_ns() - s->begin_ns;
	r->touch_ns = s->touch_ns;
	r->idle_pages = s->idle_pages;
	r->switches = s->reactor->sched.switches;
}

/* For a run that is stopped in the middle: what the round under way has so far. */
void run_sum_up(struct stress *s)
{
	add_counts(s);
	sum_up(s);
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
	note_cpu(s, &engine_ms, &all_ms);
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
	note_cpu(s, &engine_end_ms, &all_end_ms);
	s->result.engine_cpu_ms = engine_end_ms - engine_ms;
	s->result.cpu_ms = all_end_ms - all_ms;
	for (unsigned i = 0; i < threads.count; i++)
		pthread_join(threads.each[i], NULL);
	sum_up(s);
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
