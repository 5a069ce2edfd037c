#include "engine/recovery.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "coroutine/reactor.h"
#include "engine/channels.h"
#include "engine/inm.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

/*
 * We wait for the embedder indefinitely; this timeout only keeps the deadlock detector quiet. Where nobody listens
 * (after fd:, or an inm_recover that failed) the reactor would say that nothing can wake us.
 */
#define LOOK_NS (60 * NS_PER_S)

/* ---- paused ---- */

/*
 * A recovery that fails can be anybody's, and there may be many. They have a topic of their own, so that they do not
 * use up what a loss has: that is told, unless one source comes and goes all the time.
 */
static void say_paused(struct inm *inm, bool again)
{
	log_often(&inm->log, again ? LOG_RECOVERIES : LOG_LOSSES, LOG_INFO,
	          "postcopy is paused with %" PRIu64 " pages missing%s: %s", postcopy_missing(&inm->postcopy),
	          inm->owner.runs ? "" : ", and devices still to load", inm->story.err.text);
}

static void begin_pause(struct inm *inm)
{
	struct story *story = &inm->story;
	bool again = pause_begin(&inm->pause);

	postcopy_pause(&inm->postcopy);
	/* Both sides close all, so that the other one notices (doc/wire/stream.md 5.8). */
	preempt_close(&inm->preempt);
	inm->preempt.done = false;
	load_disconnect(&inm->load);
	contest_free(&inm->contest);
	group_init(&story->loading, &inm->reactor->sched, "loading");
	arrival_forget_silent(&inm->arrival);
	say_paused(inm, again);
	snprintf(story->text, sizeof(story->text), "incoming: %s (%s)", story->err.text, err_name(story->err.code));
	story->err = ERR_NONE;
	story_set_state(story, INM_STATE_POSTCOPY_PAUSED);
	event_set(&inm->pause.waiting);
}

bool recovery_begin(struct inm *inm)
{
	/* Whether the guest is ours depends on whether that can be written; if so, it runs when this returns. */
	if (inm->owner.state == OWNER_PLEDGING)
		load_disconnect(&inm->load);
	return owner_may_pause(&inm->owner);
}

int recovery_pause(struct inm *inm)
{
	struct story *story = &inm->story;
	int e = 0;

	begin_pause(inm);
	/* A cancel that was heard while something else failed is not heard again. */
	while (e == 0 && story->refusal.code == 0 && !atomic_load(&story->cancel_asked)) {
		event_clear(&story->news);
		if (inm->arrival.reopened)
			arrival_move(&inm->arrival);
		if (inm->contest.main.ch)
			break;
		/* What was missing has been discarded by the embedder, or has been on its way already. */
		if (inm->owner.runs && postcopy_all_here(&inm->postcopy))
			return 1;
		e = event_wait(&story->news, deadline_after_ns(LOOK_NS));
		if (e == -ETIMEDOUT)
			e = 0;
	}
	if (e < 0 || atomic_load(&story->cancel_asked))
		return -ECANCELED;
	if (story->refusal.code < 0)
		return story->refusal.code;
	event_clear(&inm->pause.waiting);
	inm->postcopy.ledger.back_ns = clock_now_ns();
	story_set_state(&inm->story, INM_STATE_POSTCOPY_RECOVER);
	return 0;
}

int recovery_reopen(struct inm *inm, const struct address *addr, struct err *err)
{
	struct hello single;
	int e = arrival_reopen(&inm->arrival, addr, &single, err);

	if (e == 0 && single.ch)
		channels_take_main(inm, &single);
	event_set(&inm->story.news);
	return e;
}

void recovery_force_pause(struct inm *inm)
{
	struct err err = ERR_NONE;

	/* It may have changed since inm_pause looked. */
	if (inm->story.complete || !recovery_may_pause(inm->story.state))
		return;
	if (!owner_may_pause(&inm->owner)) {
		log_warn(&inm->log, "inm_pause: the guest has not started here, and its source would start it again "
		                    "if the connection were lost; nothing is done");
		return;
	}
	err_set(&err, -ECONNABORTED, "inm_pause was called");
	story_lost(&inm->story, -ECONNABORTED, &err);
}

/* ---- the source is back ---- */

/* An attempt that has lost its place, or its preempt channel, does not go on. */
static int check_attempt(const struct inm *inm, struct err *err)
{
	int e = contest_check(&inm->contest, err);

	return e < 0 ? e : preempt_check(&inm->preempt, err);
}

/* Its pages can be taken: the last word of the recovery. */
static may_park int resume(void *opaque, struct err *err)
{
	struct inm *inm = opaque;
	struct postcopy *pc = &inm->postcopy;
	int e;

	contest_extend(&inm->contest);
	e = preempt_await(&inm->preempt, err);
	if (e == 0)
		e = check_attempt(inm, err);
	if (e == 0)
		e = reply_resume_ack(&inm->load.reply, err);
	/* That may have parked. */
	if (e == 0)
		e = check_attempt(inm, err);
	if (e < 0)
		return e;
	e = postcopy_resume(pc);
	if (e < 0)
		return err_set(err, e, "no memory for a coroutine");
	pause_end(&inm->pause);
	contest_settled(&inm->contest);
	inm->story.text[0] = '\0';
	log_often(&inm->log, LOG_LOSSES, LOG_INFO, "postcopy goes on: %" PRIu64 " pages are still to come",
	          postcopy_missing(pc));
	story_set_state(&inm->story, INM_STATE_POSTCOPY_ACTIVE);
	return 0;
}

void recovery_ops(struct load_ops *ops)
{
	ops->resume = resume;
}

int recovery_load(struct inm *inm, struct err *err)
{
	uint64_t patience_ns = inm->opts.connect_deadline_s * NS_PER_S;
	const struct hello *main = &inm->contest.main;
	int e = channels_secure_main(inm, err);

	if (e == 0)
		e = load_reconnect(&inm->load, main->ch, main->first, main->got, err);
	if (e == 0 && multifd_drain(&inm->multifd) < 0)
		e = err_set(err, -ENOMEM, "no memory for a coroutine");
	if (e == 0)
		e = load_recover(&inm->load, patience_ns, err);
	if (e < 0 && inm->pause.on)
		err_up(err, e, "recovery");
	return e;
}
