#include "engine/recovery.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/probe.h"
#include "engine/arrival.h"
#include "engine/channel/channel.h"
#include "engine/incoming.h"
#include "engine/switchover.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

/*
 * We wait for the embedder indefinitely; this timeout only keeps the deadlock detector quiet. Where nobody listens
 * (after fd:, or an inm_recover that failed) the reactor would say that nothing can wake us.
 */
#define LOOK_NS (60 * NS_PER_S)

void recovery_init(struct inm *inm)
{
	event_init(&inm->paused, &inm->reactor->sched, "a pause");
}

/* ---- paused ---- */

/*
 * A recovery that fails can be anybody's, and there may be many. They have a topic of their own, so that they do not
 * use up what a loss has: that is told, unless one source comes and goes all the time.
 */
static void say_paused(struct inm *inm, bool again)
{
	log_often(&inm->log, again ? LOG_RECOVERIES : LOG_LOSSES, LOG_INFO,
	          "postcopy is paused with %" PRIu64 " pages missing%s: %s", inm->postcopy.missing_tpages,
	          inm->running ? "" : ", and devices still to load", inm->err.text);
}

static void begin_pause(struct inm *inm)
{
	bool again = inm->recovering;

	/* A recovery that failed is a part of the same pause. */
	if (!inm->recovering)
		inm->paused_ns = clock_now_ns();
	inm->recovering = true;
	inm->pauses++;
	postcopy_pause(&inm->postcopy);
	/* Both sides close all, so that the other one notices (doc/wire/stream.md 5.8). */
	switchover_close_preempt(inm);
	load_disconnect(&inm->load);
	incoming_close_main(inm);
	inm->preempt_done = false;
	contest_free(inm);
	group_init(&inm->loading, &inm->reactor->sched, "loading");
	arrival_forget_silent(inm);
	say_paused(inm, again);
	snprintf(inm->error_text, sizeof(inm->error_text), "incoming: %s (%s)", inm->err.text, err_name(inm->err.code));
	inm->err = ERR_NONE;
	incoming_set_state(inm, INM_STATE_POSTCOPY_PAUSED);
	event_set(&inm->paused);
}

bool recovery_is_possible(const struct inm *inm)
{
	return inm->running || (inm->listening.set && !inm->load.package.has_owner_ping && inm->refusal.code == 0);
}

bool recovery_begin(struct inm *inm)
{
	/* Whether the guest is ours depends on whether that can be written; if so, it runs when this returns. */
	if (inm->load.package.pledging)
		load_disconnect(&inm->load);
	return recovery_is_possible(inm);
}

int recovery_pause(struct inm *inm)
{
	struct postcopy *pc = &inm->postcopy;
	int e = 0;

	begin_pause(inm);
	/* A cancel that was heard while something else failed is not heard again. */
	while (e == 0 && inm->refusal.code == 0 && !atomic_load(&inm->cancel_asked)) {
		event_clear(&pc->all_here);
		if (inm->reopened)
			arrival_move(inm);
		if (inm->main.ch)
			break;
		/* What was missing has been discarded by the embedder, or has been on its way already. */
		if (inm->running && postcopy_all_here(pc))
			return 1;
		e = event_wait(&pc->all_here, deadline_after_ns(LOOK_NS));
		if (e == -ETIMEDOUT)
			e = 0;
	}
	if (e < 0 || atomic_load(&inm->cancel_asked))
		return -ECANCELED;
	if (inm->refusal.code < 0)
		return inm->refusal.code;
	event_clear(&inm->paused);
	pc->ledger.back_ns = clock_now_ns();
	incoming_set_state(inm, INM_STATE_POSTCOPY_RECOVER);
	return 0;
}

int recovery_reopen(struct inm *inm, const struct address *addr, struct err *err)
{
	int e = arrival_reopen(inm, addr, err);

	event_set(&inm->postcopy.all_here);
	return e;
}

void recovery_force_pause(struct inm *inm)
{
	struct err err = ERR_NONE;

	/* It may have changed since inm_pause looked. */
	if (inm->complete || !recovery_may_pause(inm->state))
		return;
	if (!recovery_is_possible(inm)) {
		log_warn(&inm->log, "inm_pause: the guest has not started here, and its source would start it again "
		                    "if the connection were lost; nothing is done");
		return;
	}
	err_set(&err, -ECONNABORTED, "inm_pause was called");
	incoming_lost(inm, -ECONNABORTED, &err);
}

/* ---- the source is back ---- */

/* An attempt that has lost its place, or its preempt channel, does not go on. */
static int check_attempt(const struct inm *inm, struct err *err)
{
	int e = contest_check(inm, err);

	return e < 0 ? e : switchover_check_preempt(inm, err);
}

/* Its pages can be taken: the last word of the recovery. */
static may_park int resume(void *opaque, struct err *err)
{
	struct inm *inm = opaque;
	struct postcopy *pc = &inm->postcopy;
	int e;

	contest_extend(inm);
	e = switchover_await_preempt(inm, err);
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
	inm->recovering = false;
	event_set(&inm->contest.news);
	inm->paused_sum_ns += clock_now_ns() - inm->paused_ns;
	inm->recoveries++;
	inm->error_text[0] = '\0';
	log_often(&inm->log, LOG_LOSSES, LOG_INFO, "postcopy goes on: %" PRIu64 " pages are still to come",
	          pc->missing_tpages);
	incoming_set_state(inm, INM_STATE_POSTCOPY_ACTIVE);
	return 0;
}

void recovery_ops(struct load_ops *ops)
{
	ops->resume = resume;
}

int recovery_load(struct inm *inm, struct err *err)
{
	uint64_t patience_ns = inm->opts.connect_deadline_s * NS_PER_S;
	int e = incoming_secure_main(inm, err);

	if (e == 0)
		e = load_reconnect(&inm->load, inm->main.ch, inm->main.first, inm->main.got, err);
	if (e == 0 && multifd_drain(&inm->multifd) < 0)
		e = err_set(err, -ENOMEM, "no memory for a coroutine");
	if (e == 0)
		e = load_recover(&inm->load, patience_ns, err);
	if (e < 0 && inm->recovering)
		err_up(err, e, "recovery");
	return e;
}
