/*
 * api_look.c - what the embedder may ask: the state, the error, and all numbers
 */
#include "inmigrate.h"

#include "base/clock.h"
#include "engine/call.h"
#include "engine/channel/channel.h"
#include "engine/inm.h"
#include "engine/last_error.h"

#include <errno.h>
#include <string.h>

enum inm_state inm_get_state(const struct inm *inm)
{
	return inm ? __atomic_load_n(&inm->story.state, __ATOMIC_RELAXED) : INM_STATE_NONE;
}

const char *inm_error(const struct inm *inm)
{
	const char *text;
	int claimed;

	/* Why there is none. */
	if (!inm)
		return last_error_text();
	claimed = call_look(inm, __func__);
	if (claimed < 0)
		return last_error_text();
	text = inm->story.text[0] ? inm->story.text : LAST_ERROR_NONE;
	call_unlook(inm, claimed);
	return text;
}

/* These two from any thread. */
int inm_stuck_fd(const struct inm *inm)
{
	return inm ? inm->callbacks.stuck.fd : -EINVAL;
}

int inm_stuck_text(struct inm *inm, char *buf, size_t bytes)
{
	if (!inm || (!buf && bytes > 0))
		return -EINVAL;
	return (int)stuck_text(&inm->callbacks.stuck, buf, bytes);
}

const char *inm_last_error(void)
{
	return last_error_text();
}

static void add_ram(const struct inm *inm, struct inm_stats *st)
{
	const struct ram *ram = &inm->ram;

	st->ram_bytes = ram->total_bytes;
	st->ram_blocks = (uint32_t)ram->count;
	st->page_bytes = ram->count > 0 ? ram_tpage_bytes(ram) : 0;
	st->received_pages = ram->received_tpages;
	st->remaining_pages = ram_missing_tpages(ram);
}

static void add_load(const struct inm *inm, struct inm_stats *st)
{
	const struct load *l = &inm->load;
	const struct ram_counts *c = &l->ram_loader.counts;

	st->normal_pages = c->normal + inm->multifd.counts.normal_pages;
	st->zero_pages = c->zero + inm->multifd.counts.zero_pages;
	st->multifd_bytes = inm->multifd.counts.bytes;
	st->xbzrle_pages = c->xbzrle;
	st->compressed_pages = c->compressed;
	st->rounds = c->rounds;
	st->devices = l->devices;
	st->split = l->split_by_footers ? INM_SPLIT_FOOTERS : INM_SPLIT_DESCRIPTION;
}

static void add_postcopy(const struct inm *inm, struct inm_stats *st, uint64_t end_ns)
{
	const struct postcopy *pc = &inm->postcopy;
	const struct blocktime *bt = &pc->blocktime;

	st->postcopy_ns = inm->owner.runs_ns ? end_ns - inm->owner.runs_ns : 0;
	st->preempt_bytes = preempt_total_bytes(&inm->preempt);
	st->postcopy_pages = pc->counts.pages;
	st->duplicate_pages = pc->counts.duplicates;
	st->discarded_pages = pc->counts.discarded;
	st->requests = pc->ledger.requests;
	st->requested_pages = pc->ledger.requested_pages;
	st->faults = pc->counts.faults;
	st->faults_local = pc->counts.faults_local;
	st->engine_faults = pc->counts.engine_faults;
	st->outstanding_faults = pc->ledger.outstanding;
	st->place_retries = pc->counts.place_retries;
	st->prefetch_pages = pc->ledger.guessed_pages;
	st->prefetch_hits = pc->prefetch.hits;
	st->prefetch_waste = pc->prefetch.waste;
	st->fault_count = bt->count;
	st->fault_mean_ns = bt->count ? bt->sum_ns / bt->count : 0;
	st->fault_p50_ns = blocktime_quantile(bt, 500);
	st->fault_p99_ns = blocktime_quantile(bt, 990);
	st->fault_max_ns = bt->max_ns;
	for (unsigned i = 0; i < INM_LATENCY_BUCKETS; i++)
		st->fault_log2_ns[i] = blocktime_bucket(bt, i);
	st->blocktime_ns = bt->all_ns;
	st->pauses = inm->pause.count;
	st->recoveries = inm->pause.recovered;
	st->paused_ns = pause_total_ns(&inm->pause, end_ns);
	st->recover_page_ns = pc->ledger.served_ns;
}

_Static_assert(INM_LATENCY_BUCKETS == BLOCKTIME_BUCKETS, "one histogram");

size_t inm_get_blocktime(const struct inm *inm, struct inm_blocktime *ret, size_t count)
{
	int claimed = call_look(inm, __func__);
	const struct blocktime *bt;
	size_t threads;

	if (claimed < 0)
		return 0;
	bt = &inm->postcopy.blocktime;
	for (size_t i = 0; ret && i < BLOCKTIME_THREADS; i++) {
		const struct fault_thread *t = &bt->threads[i];

		if (t->tid && t->order < count)
			ret[t->order] = (struct inm_blocktime){ t->tid, t->faults, t->blocked_ns };
	}
	threads = bt->thread_count;
	call_unlook(inm, claimed);
	return threads;
}

static void collect(const struct inm *inm, struct inm_stats *st)
{
	uint64_t end_ns = inm->story.end_ns ? inm->story.end_ns : clock_now_ns();

	st->state = inm->story.state;
	if (inm->story.begin_ns)
		st->total_ns = end_ns - inm->story.begin_ns;
	if (inm->story.switchover_ns)
		st->downtime_ns = (inm->owner.runs_ns ? inm->owner.runs_ns : end_ns) - inm->story.switchover_ns;
	st->main_bytes = contest_main_bytes(&inm->contest);
	add_ram(inm, st);
	add_load(inm, st);
	add_postcopy(inm, st, end_ns);
}

/* A later version has more numbers than we know. What is far longer has not had its size set. */
#define STATS_BYTES_MAX 4096

static int check_stats_size(const struct inm_stats *st, struct err *err)
{
	if (!st)
		return err_set(err, -EINVAL, "NULL was given for the result");
	if (st->size < sizeof(st->size) || st->size > STATS_BYTES_MAX)
		return err_set(err, -EINVAL,
		               "the size in struct inm_stats is %zu, and must be "
		               "sizeof(struct inm_stats), here %zu",
		               st->size, sizeof(*st));
	return 0;
}

int inm_get_stats(const struct inm *inm, struct inm_stats *ret_stats)
{
	struct inm_stats st = { .state = INM_STATE_NONE };
	struct err err = ERR_NONE;
	int claimed, r = check_stats_size(ret_stats, &err);

	if (r < 0)
		return last_error_set(__func__, r, &err);
	claimed = call_look(inm, __func__);
	if (claimed >= 0) {
		collect(inm, &st);
		call_unlook(inm, claimed);
	} else {
		st.state = inm_get_state(inm);
	}
	st.size = ret_stats->size;
	memset(ret_stats, 0, st.size);
	memcpy(ret_stats, &st, st.size < sizeof(st) ? st.size : sizeof(st));
	return claimed < 0 ? claimed : 0;
}
