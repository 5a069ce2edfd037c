#include "engine/switchover.h"

#include "base/clock.h"
#include "base/log.h"
#include "coroutine/io.h"
#include "coroutine/reactor.h"
#include "engine/inm.h"
#include "engine/stream/wire.h"
#include "postcopy/settle.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Of the main channel, so that a page on the preempt channel is not kept waiting while it is worked through. */
#define CHUNK_BYTES (64u << 10)

/* Main has ended, and pages are under way on the preempt channel. */
#define LAST_PAGES_NS (30 * NS_PER_S)

/* ---- what the load asks for ---- */

/* Main may not be the first channel whose loss is seen. */
static may_park int await_channels(void *opaque, struct err *err)
{
	struct inm *inm = opaque;
	int e = preempt_await(&inm->preempt, err);

	if (e == -ECANCELED && inm->story.err.code < 0)
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
	int e = preempt_check(&inm->preempt, &err);

	if (e < 0)
		story_lost(&inm->story, e, &err);
}

static void note_listening(struct inm *inm)
{
	if (inm->story.switchover_ns == 0)
		inm->story.switchover_ns = clock_now_ns();
	story_set_state(&inm->story, INM_STATE_POSTCOPY_ACTIVE);
	event_set(&inm->preempt.listening);
	log_info(&inm->log, "postcopy: %" PRIu64 " pages are still to come", postcopy_missing(&inm->postcopy));
	look_for_preempt(inm);
}

static may_park int begin_listening(void *opaque, bool takes_back, struct err *err)
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
	if (!takes_back)
		owner_set(&inm->owner, OWNER_SPLIT);
	note_listening(inm);
	return 0;
}

static may_park int take_over(void *opaque, struct err *err)
{
	struct inm *inm = opaque;

	return callbacks_ready(&inm->callbacks, load_run_state(&inm->load), err);
}

/*
 * What is known to have been told, or may have been, is: RUN follows without a park. A loss meanwhile waits for this
 * (recovery_begin). A cancel does not: the word is not out where it is heard, and the source keeps its guest.
 */
static may_park int pledge(void *opaque, struct err *err)
{
	struct inm *inm = opaque;
	struct owner *owner = &inm->owner;
	int e;

	if (owner->state == OWNER_SOURCE)
		owner_set(owner, OWNER_PLEDGING);
	e = reply_pong(&inm->load.reply, WIRE_PING_OWNER, err);
	if (owner->state == OWNER_PLEDGING)
		owner_set(owner, e == 0 ? OWNER_SPLIT : OWNER_SOURCE);
	return e;
}

/*
 * The migration may have ended, or be about to, while a callback waited for a page; or the page may have been
 * impossible to show. What the callback has read since is zeros, and a reply that goes out at once does not park, so
 * nothing else would stop the package before RUN.
 */
static int check_alive(void *opaque, struct err *err)
{
	const struct inm *inm = opaque;
	const struct story *story = &inm->story;

	if (story->package.cancelled || (story->loading.cancelled && owner_may_end(&inm->owner)))
		return -ECANCELED;
	return inm->postcopy.opened ? err_set(err, -EIO, "a page could not be shown to a device") : 0;
}

static may_park void run(void *opaque)
{
	struct inm *inm = opaque;

	/* A source that says RUN, and has not asked for our word before, has let go of its guest. */
	if (inm->owner.state == OWNER_SOURCE)
		owner_set(&inm->owner, OWNER_SPLIT);
	owner_runs(&inm->owner, clock_now_ns());
	log_info(&inm->log, "the guest runs here, with %" PRIu64 " pages missing", postcopy_missing(&inm->postcopy));
	callbacks_start_vcpus(&inm->callbacks, load_run_state(&inm->load));
	event_set(&inm->story.news);
}

/* Main has ended: can nothing come any more? */
static may_park bool nothing_is_on_its_way(const struct inm *inm)
{
	const struct postcopy *pc = &inm->postcopy;

	if (pc->placing > 0)
		return false;
	return !options_has(&inm->opts, CAP_POSTCOPY_PREEMPT) || inm->preempt.done || settle_is_due(pc);
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
	struct event *news = &inm->story.news;
	uint64_t missing;
	int e = 0;

	while (e == 0) {
		/* Before looking: what is set from here on ends the wait below. */
		event_clear(news);
		if (postcopy_all_here(pc))
			break;
		missing = postcopy_missing(pc);
		if (nothing_is_on_its_way(inm))
			return settle_pages(inm, err);
		e = event_wait(news, deadline_after_ns(LAST_PAGES_NS));
		/* In parts that are unplugged, nothing may come although it was asked for. */
		if (e == -ETIMEDOUT && postcopy_missing(pc) == missing && pc->placing == 0)
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
	ops->pledge = pledge;
	ops->check_alive = check_alive;
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
		story_lost(&inm->story, e, &err);
	return e;
}

static void look_again(void *opaque)
{
	struct inm *inm = opaque;

	event_set(&inm->story.news);
}

/* Nothing here can go on: it is as if the network had failed. */
static void give_in(void *opaque, int result, const struct err *err)
{
	struct inm *inm = opaque;

	story_lost(&inm->story, result, err);
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
	inm->postcopy = (struct postcopy){ .ram = &inm->ram,
		                           .reactor = inm->reactor,
		                           .log = &inm->log,
		                           .request = request_pages,
		                           .failed = give_in,
		                           .whole = look_again,
		                           .opaque = inm,
		                           .kernel_faults = inm->opts.postcopy_kernel_faults,
		                           .stuck = &inm->callbacks.stuck,
		                           .stuck_after_ns = inm->opts.stuck_after_ms * NS_PER_MS,
		                           .prefetch_on = inm->opts.postcopy_prefetch };
}

void switchover_end(struct inm *inm)
{
	postcopy_end(&inm->postcopy);
	preempt_close(&inm->preempt);
}
