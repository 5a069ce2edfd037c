#include "programs/stress/tally.h"

#include "base/clock.h"
#include "coroutine/reactor.h"
#include "postcopy/postcopy.h"
#include "programs/stress/latency.h"
#include "programs/stress/result.h"
#include "programs/stress/stress.h"
#include "programs/stress/toucher.h"

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>

/* The quantiles are those of the last round: a round is long enough. */
void tally_round(struct stress *s)
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

void tally_threads(struct stress *s)
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

void tally_unfinished(struct stress *s)
{
	tally_round(s);
	tally_threads(s);
}

void tally_cpu(struct stress *s, double *ret_engine_ms, double *ret_all_ms)
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
