#include "programs/stress/watch.h"

#include "base/clock.h"
#include "postcopy/postcopy.h"
#include "postcopy/uffd.h"
#include "programs/cli/complain.h"
#include "programs/cli/human.h"
#include "programs/cli/progress.h"
#include "programs/stress/block.h"
#include "programs/stress/check.h"
#include "programs/stress/latency.h"
#include "programs/stress/result.h"
#include "programs/stress/stress.h"
#include "programs/stress/tally.h"
#include "programs/stress/toucher.h"
#include "programs/stress/waiter.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * A waiting thread is stranded when, for BEATS_MAX beats of the engine's thread, nothing has happened that could end
 * its wait: it sleeps in the same access and has not been woken, no answer is due or being placed, and nothing was done
 * for its page. We count beats and not only time, because a machine that is busy with something else must not look like
 * a lost wake-up. A thread that is woken again and again, or whose answer cannot be placed, is starved; it takes longer
 * to be sure of that.
 */
#define LOOK_NS (40 * NS_PER_MS)
#define PATIENCE_NS (400 * NS_PER_MS)
#define BEATS_MAX 12u /* of 20 ms */
#define STARVED_NS (15 * NS_PER_S)

/* The engine's own thread must get to run at all. */
#define ENGINE_PATIENCE_NS (20 * NS_PER_S)

#define INTERVAL_MS_FIRST 100u

struct watch {
	struct stress *s;
	uint64_t beat, beat_ns; /* the last change of it */
	uint64_t interval_ns;   /* when the one under way began */
	uint64_t interval_faults;
	struct stress_latency sum, before, since; /* of all touchers */
};

/* ---- waiters ---- */

/* Return: how often it has slept; UINT64_MAX when it runs, or waits for a CPU: then not for a page. */
static uint64_t sleeps_of(uint32_t tid)
{
	uint64_t sleeps = UINT64_MAX;
	char path[64], line[256];
	bool runs = false;
	FILE *f;

	if (!tid)
		return 0;
	snprintf(path, sizeof(path), "/proc/self/task/%" PRIu32 "/status", tid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		runs |= strncmp(line, "State:\tR", 8) == 0;
		sscanf(line, "voluntary_ctxt_switches: %" SCNu64, &sleeps);
	}
	if (f)
		fclose(f);
	return runs ? UINT64_MAX : sleeps;
}

static bool is_suspect(const struct waiter *w, const struct suspicion *now)
{
	const struct suspicion *was = &w->suspicion;

	return was->turn == now->turn && was->change_ns == now->change_ns && was->sleeps == now->sleeps &&
	       now->sleeps != UINT64_MAX && !now->pending;
}

enum verdict { WAITS, STRANDED, STARVED };

static enum verdict judge(struct stress *s, struct waiter *w, uint64_t now_ns, uint64_t *ret_waited_ns)
{
	uint64_t since_ns = atomic_load_explicit(&w->since_ns, memory_order_acquire), due_ns;
	struct sblock *sb = &s->blocks[atomic_load(&w->block)];
	uint32_t unit = atomic_load(&w->page) / sb->unit_pages;
	struct suspicion now;

	if (!since_ns || now_ns < since_ns + PATIENCE_NS)
		return WAITS;
	*ret_waited_ns = now_ns - since_ns;
	now = (struct suspicion){ .turn = atomic_load(&w->turn),
		                  .change_ns = atomic_load(&sb->change_ns[unit]),
		                  .beat = atomic_load(&s->beat),
		                  .sleeps = sleeps_of(atomic_load(&w->tid)),
		                  .pending = atomic_load(&sb->pending[unit]) > 0 };
	due_ns = atomic_load(&sb->due_ns[unit]);
	if (due_ns > now_ns || since_ns != atomic_load(&w->since_ns))
		return WAITS;
	if (!is_suspect(w, &now)) {
		w->suspicion = now;
		return now_ns > since_ns + STARVED_NS && now_ns > due_ns + STARVED_NS ? STARVED : WAITS;
	}
	return now.beat - w->suspicion.beat >= BEATS_MAX ? STRANDED : WAITS;
}

/* What has been found is told now: nobody can be joined any more, and a process that ends takes them along. */
static _Noreturn void end_here(struct stress *s)
{
	tally_unfinished(s);
	progress_stop(&s->progress);
	if (s->opts.report_and_exit)
		s->opts.report_and_exit(&s->opts, &s->result);
	_exit(EXIT_FAILED);
}

/* Would a wake alone have freed it? */
static void try_wake(struct stress *s, struct waiter *w, struct sblock *sb, uint32_t page)
{
	size_t len = strlen(s->result.wrong);
	uint64_t turn = atomic_load(&w->turn), off = (uint64_t)page / sb->unit_pages * sb->hpage_bytes;
	const char *said = "no wake was tried: it waits in the engine's thread";

	if (atomic_load(&w->tid)) {
		uffd_wake(&s->pc->guest, atomic_load(&sb->guest) + off, sb->hpage_bytes);
		usleep(100000);
		said = atomic_load(&w->turn) != turn || !atomic_load(&w->since_ns) ?
		               "a UFFDIO_WAKE alone has freed it: a wake-up was lost" :
		               "a UFFDIO_WAKE did not free it: the page is not coming";
	}
	snprintf(s->result.wrong + len, sizeof(s->result.wrong) - len, "\n  %s", said);
}

static void look_at_waiters(struct stress *s, uint64_t now_ns)
{
	for (unsigned i = 0; i < s->waiter_count; i++) {
		struct waiter *w = &s->waiters[i];
		uint64_t waited_ns;
		enum verdict verdict = judge(s, w, now_ns, &waited_ns);

		if (verdict == WAITS)
			continue;
		check_stranded(s, &s->blocks[w->block], w->page, w->name, waited_ns, verdict == STARVED);
		try_wake(s, w, &s->blocks[w->block], w->page);
		end_here(s);
	}
}

static void look_at_engine(struct watch *w, uint64_t now_ns)
{
	uint64_t beat = atomic_load(&w->s->beat);

	if (beat != w->beat) {
		w->beat = beat;
		w->beat_ns = now_ns;
	} else if (now_ns - w->beat_ns > ENGINE_PATIENCE_NS) {
		check_failed(w->s, "the engine's thread has not come round for %llu s: it is stuck, or stopped",
		             ENGINE_PATIENCE_NS / NS_PER_S);
		end_here(w->s);
	}
}

/* ---- how it goes ---- */

/* Twice as long, half as many. */
static void halve_intervals(struct stress_result *r)
{
	for (uint32_t i = 0; i < r->interval_count / 2; i++) {
		const struct stress_interval *a = &r->intervals[2 * i], *b = a + 1;
		struct stress_interval sum = *b;

		sum.faults_rate = (a->faults_rate + b->faults_rate) / 2;
		sum.count = a->count + b->count;
		if (a->count > b->count) {
			sum.p50_ns = a->p50_ns;
			sum.p99_ns = a->p99_ns;
			sum.p999_ns = a->p999_ns;
		}
		sum.max_ns = a->max_ns > b->max_ns ? a->max_ns : b->max_ns;
		r->intervals[i] = sum;
	}
	r->interval_count /= 2;
	r->interval_ms *= 2;
}

static uint32_t fit32(uint64_t n)
{
	return n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

static void note_interval(struct watch *w, uint64_t now_ns)
{
	struct stress_result *r = &w->s->result;
	uint64_t faults = atomic_load(&w->s->faults), ns = now_ns - w->interval_ns;

	memset(&w->sum, 0, sizeof(w->sum));
	for (unsigned i = 0; i < w->s->opts.touchers; i++)
		latency_merge(&w->sum, &w->s->touchers[i].latency);
	w->since = w->sum;
	latency_subtract(&w->since, &w->before);
	w->before = w->sum;
	if (r->interval_count == INTERVALS_MAX)
		halve_intervals(r);
	r->intervals[r->interval_count++] = (struct stress_interval){
		.at_ms = (uint32_t)((now_ns - w->s->begin_ns) / NS_PER_MS),
		.faults_rate = fit32((faults - w->interval_faults) * NS_PER_S / (ns ? ns : 1)),
		.count = fit32(w->since.count),
		.p50_ns = fit32(latency_quantile(&w->since, 500)),
		.p99_ns = fit32(latency_quantile(&w->since, 990)),
		.p999_ns = fit32(latency_quantile(&w->since, 999)),
		.max_ns = fit32(w->since.max_ns),
	};
	w->interval_ns = now_ns;
	w->interval_faults = faults;
}

static void show(struct watch *w, uint64_t now_ns)
{
	const struct stress_result *r = &w->s->result;
	const struct stress_interval *last = r->interval_count ? &r->intervals[r->interval_count - 1] : NULL;
	char p50[32], p99[32], max[32];
	uint64_t faults = atomic_load(&w->s->faults);

	if (!last || !progress_due(&w->s->progress))
		return;
	progress_say(&w->s->progress,
	             "%.0f s: %" PRIu64 " faults, %" PRIu32 "/s; round %" PRIu32
	             "; latency %s, p99 %s, longest %s; nothing wrong",
	             (double)(now_ns - w->s->begin_ns) / 1e9, faults, last->faults_rate,
	             __atomic_load_n(&w->s->round, __ATOMIC_RELAXED), human_time(p50, last->p50_ns),
	             human_time(p99, last->p99_ns), human_time(max, last->max_ns));
}

static bool has_had_enough(const struct stress *s, uint64_t now_ns)
{
	if (s->opts.interrupted && *s->opts.interrupted)
		return true;
	if (s->opts.faults)
		return atomic_load(&s->faults) >= s->opts.faults;
	return now_ns - s->begin_ns >= s->opts.duration_ns;
}

void *watcher_main(void *arg)
{
	struct stress *s = arg;
	struct watch *w = calloc(1, sizeof(*w));
	uint64_t now_ns = clock_now_ns();

	if (!w) {
		check_failed(s, "no memory");
		return NULL;
	}
	*w = (struct watch){ .s = s, .beat_ns = now_ns, .interval_ns = now_ns };
	s->result.interval_ms = INTERVAL_MS_FIRST;
	while (!atomic_load(&s->over)) {
		usleep(LOOK_NS / NS_PER_US);
		now_ns = clock_now_ns();
		look_at_waiters(s, now_ns);
		look_at_engine(w, now_ns);
		if (now_ns - w->interval_ns >= s->result.interval_ms * NS_PER_MS)
			note_interval(w, now_ns);
		show(w, now_ns);
		if (has_had_enough(s, now_ns))
			atomic_store(&s->stop, true);
	}
	free(w);
	return NULL;
}
