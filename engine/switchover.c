#include "engine/switchover.h"

#include "base/clock.h"
#include "base/log.h"
#include "coroutine/io.h"
#include "engine/arrival.h"
#include "engine/channel/channel.h"
#include "engine/incoming.h"
#include "postcopy/settle.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Of the main channel, so that a page on the preempt channel is not kept waiting while it is worked through. */
#define CHUNK_BYTES (64u << 10)

/* Between two looks at a main channel that nobody reads. */
#define HUNG_UP_NS (100 * NS_PER_MS)

/* Main has ended, and pages are under way on the preempt channel. */
#define LAST_PAGES_NS (30 * NS_PER_S)

/* ---- the preempt channel ---- */

static may_park int read_preempt(struct inm *inm, struct err *err)
{
	int e = event_wait(&inm->listening, DEADLINE_NEVER); /* nothing comes before; a failure ends this wait, too */

	if (e == 0)
		e = ram_load_preempt(&inm->preempt_loader, &inm->preempt_reader, err);
	return e;
}

static int run_preempt(void *arg)
{
	struct inm *inm = arg;
	struct err err = ERR_NONE;
	int e = read_preempt(inm, &err);

	if (e == -ECANCELED)
		return e;
	/* An EOS record, or the end: sources up to 7.2 say so, later ones when they have been told that all is here. */
	inm->preempt_done = true;
	if (e == 0 && inm->postcopy.missing_tpages > 0)
		e = err_set(&err, -ENODATA, "the preempt channel has ended with %" PRIu64 " pages missing",
		            inm->postcopy.missing_tpages);
	if (e < 0) {
		incoming_lost(inm, e, &err);
		return e;
	}
	event_set(&inm->postcopy.all_here); /* so that waiters look again */
	return 0;
}

int switchover_preempt(struct inm *inm, struct hello *h, struct err *err)
{
	struct ram_loader *l = &inm->preempt_loader;
	int e;

	/* Its first bytes and the end of the stream came in the same turn. */
	if (inm->loading.cancelled)
		return -ECANCELED;
	e = reader_init(&inm->preempt_reader, &inm->reactor->sched, h->ch, h->first, h->got);
	if (e < 0)
		return err_set(err, e, "no memory for the preempt channel's buffer");
	inm->preempt = *h;
	h->ch = NULL;
	*l = (struct ram_loader){
		.ram = &inm->ram, .opts = &inm->opts, .trace = &inm->trace, .postcopy = &inm->postcopy, .listed = true
	};
	log_often(&inm->log, LOG_CHANNELS, LOG_INFO, "preempt channel: %s", inm->preempt.ch->name);
	event_set(&inm->preempt_news);
	e = group_spawn(&inm->loading, "preempt channel", run_preempt, inm);
	if (e == 0)
		return 0;
	switchover_close_preempt(inm);
	return err_set(err, e, "no memory for a coroutine");
}

/* Nobody reads the main channel meanwhile, so its end must be looked for. */
static int check_main(const struct inm *inm, struct err *err)
{
	if (!chan_hung_up(inm->main.ch))
		return 0;
	return err_set(err, -ENOTCONN, "the source closed the main channel before its preempt channel had come");
}

static uint64_t sooner(uint64_t a_ns, uint64_t b_ns)
{
	return a_ns < b_ns ? a_ns : b_ns;
}

static bool has_preempt(const struct inm *inm)
{
	return !options_has(&inm->opts, CAP_POSTCOPY_PREEMPT) || inm->preempt.ch || arrival_has_silent(inm);
}

int switchover_check_preempt(const struct inm *inm, struct err *err)
{
#ifdef CONTROL_NO_PREEMPT_WAIT
	return 0; /* as below */
#endif
	if (has_preempt(inm) || inm->postcopy.missing_tpages == 0)
		return 0;
	return err_set(err, -ENODATA, "the preempt channel has ended with %" PRIu64 " pages missing",
	               inm->postcopy.missing_tpages);
}

/*
 * Pages are asked for only when they can come (doc/wire/channels.md 4.4, 6 item 3). A channel that is silent so far
 * counts: when all others are there it can be nothing else, and it has a coroutine that reads it.
 */
int switchover_await_preempt(struct inm *inm, struct err *err)
{
	uint64_t deadline_ns = deadline_after_ns(inm->opts.connect_deadline_s * NS_PER_S);
	int e = 0;

#ifdef CONTROL_NO_PREEMPT_WAIT
	return 0; /* only in the control of test_switchover, which must then fail */
#endif
	while (!has_preempt(inm)) {
		event_clear(&inm->preempt_news);
		e = event_wait(&inm->preempt_news, sooner(deadline_ns, deadline_after_ns(HUNG_UP_NS)));
		if (e == -ETIMEDOUT && clock_now_ns() < deadline_ns)
			e = check_main(inm, err);
		if (e < 0)
			break;
	}
	if (e == -ETIMEDOUT)
		return err_set(err, e, "the preempt channel has not come within %" PRIu64 " s (connect-deadline)",
		               inm->opts.connect_deadline_s);
	return e;
}

/* ---- what the load asks for ---- */

/* Main may not be the first channel whose loss is seen. */
static may_park int await_channels(void *opaque, struct err *err)
{
	struct inm *inm = opaque;
	int e = switchover_await_preempt(inm, err);

	if (e == -ECANCELED && inm->err.code < 0)
		return -ENOTCONN;
	return e;
}

static int switch_memory(void *opaque, struct err *err)
{
	struct inm *inm = opaque;

	return multifd_switch(&inm->multifd, err);
}

/*
 * The source has given its guest away by now. It is a pause when a connection is lost in the middle of this, and not
 * the end: so this is carried out whole, and the loss is heard after it.
 */
static may_park int watch_memory(struct inm *inm, struct err *err)
{
	struct sched *s = &inm->reactor->sched;
	int e;

	co_shield(s, true);
	e = postcopy_listen(&inm->postcopy, err);
	co_shield(s, false);
	return e;
}

/* The preempt channel that was there before may have gone meanwhile, when nobody missed it. */
static void look_for_preempt(struct inm *inm)
{
	struct err err = ERR_NONE;
	int e = switchover_check_preempt(inm, &err);

	if (e < 0)
		incoming_lost(inm, e, &err);
}

static may_park int begin_listening(void *opaque, struct err *err)
{
	struct inm *inm = opaque;
	struct ram_loader *l = &inm->load.ram_loader;
	/* Postcopy of dirty bitmaps alone misses nothing (doc/wire/stream.md 5.1): the kernel is asked for nothing. */
	int e = l->advised ? watch_memory(inm, err) : 0;

	if (e < 0)
		return e;
	if (l->advised)
		l->postcopy = &inm->postcopy;
	else
		l->closed = true;
	inm->load.reader.chunk_bytes = CHUNK_BYTES;
	if (inm->switchover_ns == 0)
		inm->switchover_ns = clock_now_ns();
	incoming_set_state(inm, INM_STATE_POSTCOPY_ACTIVE);
	event_set(&inm->listening);
	log_info(&inm->log, "postcopy: %" PRIu64 " pages are still to come", inm->postcopy.missing_tpages);
	look_for_preempt(inm);
	return 0;
}

static may_park int take_over(void *opaque, struct err *err)
{
	return incoming_ask_ready(opaque, err);
}

static may_park void run(void *opaque)
{
	struct inm *inm = opaque;

	inm->running = true;
	inm->running_ns = clock_now_ns();
	log_info(&inm->log, "the guest runs here, with %" PRIu64 " pages missing", inm->postcopy.missing_tpages);
	if (inm->ops.start_vcpus) {
		incoming_enter_callback(inm, "the callback start_vcpus");
		inm->ops.start_vcpus(inm->opaque, incoming_run_state(inm));
		incoming_leave_callback(inm);
	}
	event_set(&inm->postcopy.all_here); /* for the story, where the source is away: it may not be needed any more */
}

/* Main has ended: can nothing come any more? */
static may_park bool nothing_is_on_its_way(const struct inm *inm)
{
	const struct postcopy *pc = &inm->postcopy;

	if (pc->placing > 0)
		return false;
	return !options_has(&inm->opts, CAP_POSTCOPY_PREEMPT) || inm->preempt_done || settle_is_due(pc);
}

static may_park int settle_pages(struct inm *inm, struct err *err)
{
	int e = settle(&inm->postcopy, err);

	if (e < 0 && !options_has(&inm->opts, CAP_POSTCOPY_PREEMPT))
		err_up(err, e, "is capability postcopy-preempt on at the source? it is off here");
	return e;
}

static may_park int await_pages(void *opaque, struct err *err)
{
	struct inm *inm = opaque;
	struct postcopy *pc = &inm->postcopy;
	uint64_t missing;
	int e = 0;

	while (e == 0) {
		/* Before looking: what is set from here on ends the wait below. */
		event_clear(&pc->all_here);
		if (postcopy_all_here(pc))
			break;
		missing = pc->missing_tpages;
		if (nothing_is_on_its_way(inm))
			return settle_pages(inm, err);
		e = event_wait(&pc->all_here, deadline_after_ns(LAST_PAGES_NS));
		/* In parts that are unplugged, nothing may come although it was asked for. */
		if (e == -ETIMEDOUT && pc->missing_tpages == missing && pc->placing == 0)
			return settle_pages(inm, err);
		if (e == -ETIMEDOUT)
			e = 0;
	}
	return e;
}

void switchover_ops(struct load_ops *ops)
{
	ops->switch_memory = switch_memory;
	ops->await_channels = await_channels;
	ops->listen = begin_listening;
	ops->take_over = take_over;
	ops->run = run;
	ops->await_pages = await_pages;
}

/* ---- postcopy's own wishes ---- */

static may_park int request_pages(void *opaque, const struct page_request *list, size_t count)
{
	struct inm *inm = opaque;
	struct err err = ERR_NONE;
	int e = reply_request(&inm->load.reply, list, count, &err);

	/* The reader of the channel may never find out: a source can be gone in one direction only. */
	if (e < 0 && e != -ECANCELED)
		incoming_lost(inm, e, &err);
	return e;
}

/* Nothing here can go on: it is as if the network had failed. */
static void give_in(void *opaque, int result, const struct err *err)
{
	incoming_lost(opaque, result, err);
}

int switchover_permitted(const struct options *opts, struct err *err)
{
	int r;

	if (!options_has(opts, CAP_POSTCOPY_RAM))
		return 0;
	r = uffd_check_doors(opts->postcopy_kernel_faults, err);
	return r < 0 ? err_up(err, r, "capability 'postcopy-ram'") : 0;
}

void switchover_init(struct inm *inm)
{
	struct sched *s = &inm->reactor->sched;

	event_init(&inm->preempt_news, s, "preempt channel");
	event_init(&inm->listening, s, "POSTCOPY_LISTEN");
	inm->postcopy = (struct postcopy){ .ram = &inm->ram,
		                           .reactor = inm->reactor,
		                           .log = &inm->log,
		                           .request = request_pages,
		                           .failed = give_in,
		                           .opaque = inm,
		                           .kernel_faults = inm->opts.postcopy_kernel_faults,
		                           .stuck = &inm->stuck,
		                           .stuck_after_ns = inm->opts.stuck_after_ms * NS_PER_MS,
		                           .prefetch_on = inm->opts.postcopy_prefetch };
	/* Waited for, and set, also where nothing is missing: postcopy of dirty bitmaps alone. */
	event_init(&inm->postcopy.all_here, s, "the last page");
}

/* ---- the ends ---- */

void switchover_close_preempt(struct inm *inm)
{
	if (!inm->preempt.ch)
		return;
	inm->preempt_bytes += inm->preempt.ch->bytes_in;
	ram_loader_fini(&inm->preempt_loader);
	reader_fini(&inm->preempt_reader);
	chan_close(inm->preempt.ch);
	inm->preempt.ch = NULL;
}

void switchover_end(struct inm *inm)
{
	postcopy_end(&inm->postcopy);
	switchover_close_preempt(inm);
}
