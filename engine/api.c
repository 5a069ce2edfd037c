/*
 * api.c - include/inmigrate.h, made of what is below
 */
#include "inmigrate.h"

#include "base/assert.h"
#include "base/clock.h"
#include "engine/channel/channel.h"
#include "engine/incoming.h"
#include "engine/recovery.h"
#include "engine/state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

_Static_assert((int)INM_LOG_ERROR == (int)LOG_ERROR && (int)INM_LOG_DEBUG == (int)LOG_DEBUG, "one list of levels");

struct inm_reactor {
	struct reactor *reactor;
};

#define STRING_(x) #x
#define STRING(x) STRING_(x)

const char *inm_version(void)
{
	return STRING(INM_VERSION_MAJOR) "." STRING(INM_VERSION_MINOR);
}

/* ---- reactor ---- */

int inm_reactor_new(struct inm_reactor **ret_reactor, const struct inm_reactor_config *config)
{
	struct inm_reactor_config own = { .size = 0 };
	struct inm_reactor *ir;
	int r;

	if (config && (config->size < sizeof(config->size) || config->size > sizeof(*config)))
		return -EINVAL;
	/* An older caller's structure is shorter: what it does not have is zero. */
	if (config)
		memcpy(&own, config, config->size);
	config = &own;
	if (config->ring && strcmp(config->ring, ring_uring.name) != 0)
		return -EINVAL;
	ir = calloc(1, sizeof(*ir));
	if (!ir)
		return -ENOMEM;
	r = reactor_new(&ir->reactor, &ring_uring, config->stack_bytes);
	if (r < 0) {
		free(ir);
		return r;
	}
	*ret_reactor = ir;
	return 0;
}

void inm_reactor_free(struct inm_reactor *reactor)
{
	if (reactor)
		reactor_free(reactor->reactor);
	free(reactor);
}

/* ---- making and freeing ---- */

static void write_log(void *opaque, enum log_level level, const char *text)
{
	struct inm *inm = opaque;

	ASSERT(!inm->reactor || !inm->reactor->sched.current->in_handler); /* by (5) of yield.h */
	inm->ops.log(inm->opaque, (enum inm_log_level)level, text);
}

static void set_up_voice(struct inm *inm, const struct inm_config *config)
{
	inm->log.level_max = (enum log_level)config->log_level;
	if (inm->ops.log) {
		inm->log.write = write_log;
		inm->log.opaque = inm;
	}
	if (inm->ops.trace) {
		inm->trace.line = inm->ops.trace;
		inm->trace.opaque = inm->opaque;
	}
}

static int apply_config(struct inm *inm, const struct inm_config *config)
{
	static const uint8_t none[16];

	if (memcmp(config->uuid, none, sizeof(none)) != 0) {
		memcpy(inm->opts.uuid, config->uuid, sizeof(inm->opts.uuid));
		inm->opts.has_uuid = true;
	}
	if (config->machine)
		return options_set_parameter(&inm->opts, "machine", config->machine, &inm->err);
	return 0;
}

static int get_reactor(struct inm *inm, const struct inm_config *config)
{
	if (config->reactor) {
		inm->reactor = config->reactor->reactor;
		return 0;
	}
	inm->reactor_is_ours = true;
	return reactor_new(&inm->reactor, &ring_uring, 0);
}

int inm_new(struct inm **ret_inm, const struct inm_config *config, const struct inm_ops *ops, void *opaque)
{
	struct inm_config own = { .size = 0 };
	struct inm *inm;
	int r;

	if (!ops || ops->size < offsetof(struct inm_ops, device) || ops->size > sizeof(*ops) || !ops->ram_block)
		return -EINVAL;
	if (config && (config->size < sizeof(config->size) || config->size > sizeof(*config)))
		return -EINVAL;
	/* An older caller's structure is shorter: what it does not have is zero, and so is the level of an error. */
	own.log_level = INM_LOG_INFO;
	if (config)
		memcpy(&own, config, config->size);
	config = &own;
	inm = calloc(1, sizeof(*inm));
	if (!inm)
		return -ENOMEM;
	memcpy(&inm->ops, ops, ops->size);
	inm->opaque = opaque;
	inm->stuck = STUCK_NONE;
	options_init(&inm->opts);
	set_up_voice(inm, config);
	inm->wish_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = inm->wish_fd < 0 ? -errno : get_reactor(inm, config);
	if (r == 0)
		r = stuck_init(&inm->stuck);
	if (r == 0)
		r = apply_config(inm, config);
	if (r < 0) {
		inm_free(inm);
		return r;
	}
	*ret_inm = inm;
	return 0;
}

static bool under_way(const struct inm *inm)
{
	return inm->root.sched && !group_empty(&inm->root);
}

void inm_free(struct inm *inm)
{
	if (!inm)
		return;
	if (under_way(inm)) {
		atomic_store(&inm->cancel_asked, true);
		group_cancel(&inm->root);
		/* No deadline: cancelled children end. Other migrations of a shared reactor go on meanwhile. */
		if (reactor_run(inm->reactor, &inm->root, DEADLINE_NEVER) < 0)
			abort(); /* the kernel holds memory of ours and does not answer: nothing safe is left */
	}
	ram_fini(&inm->ram);
	if (inm->reactor && inm->reactor->deadlock_opaque == inm)
		inm->reactor->deadlock = NULL;
	if (inm->wish_fd >= 0)
		close(inm->wish_fd);
	stuck_fini(&inm->stuck);
	if (inm->reactor_is_ours)
		reactor_free(inm->reactor);
	free(inm);
}

/* ---- options ---- */

/* Keeps the error for inm_error; the migration has not failed, and the call may be repeated with better words. */
static int setting_failed(struct inm *inm, int r, const struct err *err)
{
	/* The story of a migration that has ended stays. */
	if (state_is_final(inm->state))
		return r;
	snprintf(inm->error_text, sizeof(inm->error_text), "%s (%s)", err->text, err_name(r));
	return r;
}

int inm_set_capability(struct inm *inm, const char *name, bool on)
{
	struct err err = ERR_NONE;
	int r;

	if (inm->state != INM_STATE_NONE)
		r = err_set(&err, -EBUSY, "capability %s must be set before listening", name);
	else
		r = options_set_capability(&inm->opts, name, on, &err);
	return r < 0 ? setting_failed(inm, r, &err) : 0;
}

int inm_set_parameter(struct inm *inm, const char *name, const char *value)
{
	struct err err = ERR_NONE;
	int r;

	if (inm->state != INM_STATE_NONE)
		r = err_set(&err, -EBUSY, "parameter %s must be set before listening", name);
	else
		r = options_set_parameter(&inm->opts, name, value, &err);
	return r < 0 ? setting_failed(inm, r, &err) : 0;
}

/* ---- running ---- */

int inm_listen(struct inm *inm, const char *uri)
{
	struct err err = ERR_NONE;
	struct address addr;
	int r;

	/* First, because a descriptor in it is ours whatever happens. */
	r = address_parse(&addr, uri, &err);
	if (r < 0)
		return setting_failed(inm, r, &err);
	if (inm->state != INM_STATE_NONE)
		r = err_set(&err, -EBUSY, "this migration has been listening already");
	else
		r = options_check(&inm->opts, &err);
	if (r < 0 && addr.kind == ADDRESS_FD)
		close(addr.fd);
	if (r == 0) {
		r = incoming_start(inm, &addr, &err);
		if (r < 0)
			err_up(&err, r, "%s", uri);
	}
	address_fini(&addr);
	if (r < 0)
		return setting_failed(inm, r, &err);
	/* What went wrong on the way here is mended. */
	inm->error_text[0] = '\0';
	return 0;
}

const char *inm_address(const struct inm *inm, unsigned index)
{
	const struct listener *l = inm->reopened ? &inm->next : &inm->listener;

	if (l->count < 0 || index >= (unsigned)l->count)
		return NULL;
	return l->sockets[index].text;
}

/* From any thread, and from a signal handler. */
static void wake_watch(struct inm *inm)
{
	uint64_t one = 1;
	int saved_errno = errno; /* a signal handler must leave it as it was */
	/* The counter saturates long after the first of them was heard. */
	ssize_t n = write(inm->wish_fd, &one, sizeof(one));

	(void)n;
	errno = saved_errno;
}

static int recover_at(struct inm *inm, const char *uri, struct err *err)
{
	struct address addr;
	int r = address_parse(&addr, uri, err);

	if (r < 0)
		return r;
	if (inm->state != INM_STATE_POSTCOPY_PAUSED)
		r = err_set(err, -EBUSY, "nothing is paused: the state is %s", inm_state_name(inm->state));
	if (r < 0 && addr.kind == ADDRESS_FD)
		close(addr.fd);
	if (r == 0)
		r = recovery_reopen(inm, &addr, err);
	address_fini(&addr);
	return r < 0 ? err_up(err, r, "%s", uri) : 0;
}

int inm_recover(struct inm *inm, const char *uri)
{
	struct err err = ERR_NONE;
	int r = recover_at(inm, uri, &err);

	if (r < 0)
		return setting_failed(inm, r, &err);
	wake_watch(inm); /* the embedder's loop may sleep on inm_fd */
	return 0;
}

/* A bug of ours, if it ever happens: coroutines that wait for each other. Each is named. */
static void report_deadlock(void *opaque, const struct co *co)
{
	struct inm *inm = opaque;

	log_write(&inm->log, LOG_ERROR, "deadlock: coroutine '%s' waits for %s '%s', and nothing will come", co->name,
		  co->wait_kind ? co->wait_kind : "?", co->wait_name ? co->wait_name : "?");
}

static void listen_for_deadlocks(struct inm *inm)
{
	inm->reactor->deadlock = report_deadlock;
	inm->reactor->deadlock_opaque = inm;
}

int inm_run_until(struct inm *inm, uint64_t deadline_ns)
{
	int r;

	if (inm->state == INM_STATE_NONE)
		return -EINVAL;
	listen_for_deadlocks(inm);
	r = reactor_run(inm->reactor, &inm->root, deadline_ns);
	return r < 0 ? r : incoming_result(inm);
}

int inm_run(struct inm *inm)
{
	/* No deadline: that is the difference to inm_run_until. */
	return inm_run_until(inm, DEADLINE_NEVER);
}

int inm_fd(const struct inm *inm)
{
	return reactor_fd(inm->reactor);
}

int inm_dispatch(struct inm *inm)
{
	int r;

	if (inm->state == INM_STATE_NONE)
		return -EINVAL;
	listen_for_deadlocks(inm);
	r = reactor_dispatch(inm->reactor);
	if (r < 0)
		return r;
	return under_way(inm) ? 1 : incoming_result(inm);
}

void inm_cancel(struct inm *inm)
{
	atomic_store(&inm->cancel_asked, true);
	wake_watch(inm);
}

int inm_pause(struct inm *inm)
{
	if (!recovery_may_pause(__atomic_load_n(&inm->state, __ATOMIC_RELAXED)))
		return -EINVAL;
	atomic_store(&inm->pause_asked, true);
	wake_watch(inm);
	return 0;
}

/* ---- looking ---- */

/* These two from any thread. */
int inm_stuck_fd(const struct inm *inm)
{
	return inm ? inm->stuck.fd : -EINVAL;
}

int inm_stuck_text(struct inm *inm, char *buf, size_t bytes)
{
	if (!inm || (!buf && bytes > 0))
		return -EINVAL;
	return (int)stuck_text(&inm->stuck, buf, bytes);
}

enum inm_state inm_get_state(const struct inm *inm)
{
	return inm->state;
}

const char *inm_error(const struct inm *inm)
{
	return inm->error_text[0] ? inm->error_text : NULL;
}

static void add_ram(const struct inm *inm, struct inm_stats *st)
{
	const struct ram *ram = &inm->ram;

	st->ram_bytes = ram->total_bytes;
	st->ram_blocks = (uint32_t)ram->count;
	st->page_bytes = ram->count > 0 ? ram_tpage_bytes(ram) : 0;
	for (size_t i = 0; i < ram->count; i++) {
		if (ram->blocks[i]->ignored)
			continue;
		st->received_pages += ram->blocks[i]->received_tpages;
		st->remaining_pages +=
			(ram->blocks[i]->used_bytes >> ram->tpage_shift) - ram->blocks[i]->received_tpages;
	}
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

	st->postcopy_ns = inm->running_ns ? end_ns - inm->running_ns : 0;
	st->preempt_bytes = inm->preempt_bytes + (inm->preempt.ch ? inm->preempt.ch->bytes_in : 0);
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
	st->pauses = inm->pauses;
	st->recoveries = inm->recoveries;
	st->paused_ns = inm->paused_sum_ns + (inm->recovering ? end_ns - inm->paused_ns : 0);
	st->recover_page_ns = pc->ledger.served_ns;
}

_Static_assert(INM_LATENCY_BUCKETS == BLOCKTIME_BUCKETS, "one histogram");

size_t inm_get_blocktime(const struct inm *inm, struct inm_blocktime *ret, size_t count)
{
	const struct blocktime *bt = &inm->postcopy.blocktime;

	for (size_t i = 0; i < BLOCKTIME_THREADS; i++) {
		const struct fault_thread *t = &bt->threads[i];

		if (t->tid && t->order < count)
			ret[t->order] = (struct inm_blocktime){ t->tid, t->faults, t->blocked_ns };
	}
	return bt->thread_count;
}

void *inm_ram_view(struct inm *inm, void *addr, size_t bytes)
{
	uint64_t off;
	struct block *b = postcopy_find(&inm->postcopy, addr, &off);

	if (!b || off > b->used_bytes || bytes > b->used_bytes - off)
		return NULL;
	return inm->postcopy.listening && b->engine ? b->engine + off : addr;
}

int inm_ram_await(struct inm *inm, const void *addr, size_t bytes)
{
	uint64_t off;
	struct block *b = postcopy_find(&inm->postcopy, addr, &off);

	if (!b || off > b->used_bytes || bytes > b->used_bytes - off)
		return -EFAULT;
	if (!inm->postcopy.listening || bytes == 0)
		return 0;
	return postcopy_await_for_callback(&inm->postcopy, b, off, bytes);
}

void inm_get_stats(const struct inm *inm, struct inm_stats *ret_stats)
{
	struct inm_stats st = { .size = ret_stats->size, .state = inm->state };
	uint64_t end_ns = inm->end_ns ? inm->end_ns : clock_now_ns();

	if (inm->begin_ns)
		st.total_ns = end_ns - inm->begin_ns;
	if (inm->switchover_ns)
		st.downtime_ns = (inm->running_ns ? inm->running_ns : end_ns) - inm->switchover_ns;
	st.main_bytes = inm->main_bytes + (inm->main.ch ? inm->main.ch->bytes_in : 0);
	add_ram(inm, &st);
	add_load(inm, &st);
	add_postcopy(inm, &st, end_ns);
	memset(ret_stats, 0, ret_stats->size);
	memcpy(ret_stats, &st, st.size < sizeof(st) ? st.size : sizeof(st));
}
