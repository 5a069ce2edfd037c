#include "engine/incoming.h"

#include "base/clock.h"
#include "coroutine/io.h"
#include "coroutine/reactor.h"
#include "engine/channel/channel.h"
#include "engine/channels.h"
#include "engine/delivery.h"
#include "engine/inm.h"
#include "engine/landed.h"
#include "engine/load/tail.h"
#include "engine/onlooker.h"
#include "engine/recovery.h"
#include "engine/switchover.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Told how it went, a source closes at once; one that does not is not waited for longer. */
#define FAREWELL_NS (2 * NS_PER_S)

/* ---- what others find out ---- */

static void note_failure(void *opaque, int result, const struct err *err)
{
	struct inm *inm = opaque;

	story_fail(&inm->story, result, err);
}

static void lose_connection(void *opaque, int result, const struct err *err)
{
	struct inm *inm = opaque;

	story_lost(&inm->story, result, err);
}

/* ---- the story ---- */

static void set_ops(struct inm *inm)
{
	inm->load_ops = (struct load_ops){ .ram_block = NULL };
	delivery_ops(inm, &inm->load_ops);
	switchover_ops(&inm->load_ops);
	recovery_ops(&inm->load_ops);
	if (inm->opts.looking)
		onlooker_ops(&inm->load_ops);
}

static int make_load(struct inm *inm, struct err *err)
{
	const struct hello *main = &inm->contest.main;
	struct load *l = &inm->load;
	int e;

	set_ops(inm);
	l->opts = &inm->opts;
	l->trace = &inm->trace;
	l->log = &inm->log;
	l->ops = &inm->load_ops;
	l->ops_opaque = inm;
	l->ram = &inm->ram;
	l->postcopy = &inm->postcopy;
	l->tasks = &inm->story.package;
	e = load_init(l, &inm->reactor->sched, main->ch, main->first, main->got);
	if (e < 0)
		return err_set(err, e, "no memory for the stream's buffer");
	inm->load_made = true;
	l->reply.mute = inm->opts.looking;
	return 0;
}

/* The guest is complete. The embedder may refuse it, unless it runs. */
static may_park int accept_guest(struct inm *inm, struct err *err)
{
	struct load *l = &inm->load;
	int e;

	log_info(&inm->log, "guest complete: %zu RAM blocks, %u devices, divided by %s", inm->ram.count, l->devices,
	         l->split_by_footers ? "footers" : "the stream's description");
	if (inm->owner.runs)
		return 0;
	e = callbacks_ready(&inm->callbacks, load_run_state(l), err);
	if (e < 0)
		return e;
	/* That may have taken long. A source that did not wait for it runs its guest again. */
	return reply_is_awaited(&l->reply) ? tail_check_end(l, err) : 0;
}

static may_park int load_main(struct inm *inm, struct err *err)
{
	struct load *l = &inm->load;
	int e = channels_secure_main(inm, err);

	if (e == 0)
		e = make_load(inm, err);
	if (e < 0)
		return e;
	/* What comes by fd:, exec: or file: may take its time to begin. */
	e = reader_need(&l->reader, 1, err);
	inm->story.begin_ns = clock_now_ns();
	if (e == 0)
		e = load_stream(l, err);
	if (e == 0)
		e = landed_check(&inm->multifd, &inm->postcopy, err);
	return e < 0 ? e : accept_guest(inm, err);
}

/*
 * The source hears how it went. A success that cannot be told is a failure: without SHUT 0 the source runs its guest
 * again, and there must not be two. Once it is being told, a cancel is too late: the write is not left halfway.
 */
static may_park int tell_success(struct inm *inm)
{
	struct sched *s = &inm->reactor->sched;
	struct owner *owner = &inm->owner;
	struct err err = ERR_NONE;
	int e = 0;

	/* It was there at the end of its stream, and we have parked since. */
	if (owner->state == OWNER_SOURCE && chan_hung_up(inm->contest.main.ch)) {
		e = err_set(&err, -ENODATA, "the source closed its connection without waiting to be told");
		story_fail(&inm->story, e, &err);
		return e;
	}
	if (owner->state == OWNER_SOURCE)
		owner_set(owner, OWNER_PLEDGING);
	co_shield(s, !owner_may_cancel(owner));
	e = reply_shut(&inm->load.reply, 0, deadline_after_ns(REPLY_TIMEOUT_NS), &err);
	co_shield(s, false);
	if (owner->state == OWNER_PLEDGING)
		owner_set(owner, e == 0 ? OWNER_OURS : OWNER_SOURCE);
	if (e < 0 && owner_may_end(owner)) {
		inm->story.err = err;
		return e;
	}
	/* The source has nothing that could run. */
	if (e < 0)
		log_warn(&inm->log, "the source could not be told that all is here: %s", err.text);
	return 0;
}

static may_park int tell_source(struct inm *inm, int result)
{
	struct err err = ERR_NONE;

	/* Nothing parks between this and the word. */
	if (result == 0 && (result = landed_check(&inm->multifd, &inm->postcopy, &err)) < 0)
		story_fail(&inm->story, result, &err);
	if (!inm->load_made || !reply_is_awaited(&inm->load.reply)) {
		/* One without a return path lets go of its guest when its stream is out. */
		if (result == 0 && inm->owner.state == OWNER_SOURCE)
			owner_set(&inm->owner, OWNER_OURS);
		return result;
	}
	if (result == 0)
		return tell_success(inm);
	if (owner_may_return(&inm->owner))
		reply_shut(&inm->load.reply, 1, deadline_after_ns(FAREWELL_NS), &err);
	return result;
}

/* Close after the source: bytes of it that come later would turn our close into a reset, which may overtake SHUT 0. */
static void await_close(struct inm *inm)
{
	uint64_t deadline_ns = deadline_after_ns(FAREWELL_NS);
	struct err ignored = ERR_NONE;
	uint8_t scrap[4096];
	struct iovec iov;
	ssize_t n = 1;

	if (!inm->load_made || !reply_is_awaited(&inm->load.reply) || inm->load.reader.ended)
		return;
	while (n > 0) {
		iov = (struct iovec){ scrap, sizeof(scrap) };
		n = chan_readv(inm->contest.main.ch, &iov, 1, deadline_ns, &ignored);
	}
}

/* The provisional stream is forgotten: the next source is welcome. The embedder has not heard of this one. */
static may_park void drop_attempt(struct inm *inm, const struct err *err)
{
	struct contest *c = &inm->contest;

	snprintf(inm->story.text, sizeof(inm->story.text),
	         "incoming: %s began a migration and did not go on: %s; the next source is welcome", c->main.ch->name,
	         c->displaced ? "no list of RAM blocks, and another one has come" : err->text);
	/* Once is news; a stranger that does it again and again is not. */
	log_often(&inm->log, LOG_CONNECTIONS, c->drops++ ? LOG_INFO : LOG_WARN, "%s", inm->story.text);
	if (inm->load_made)
		load_fini(&inm->load);
	inm->load_made = false;
	inm->load = (struct load){ .opts = NULL };
	ram_fini(&inm->ram);
	inm->story.switchover_ns = 0;
	contest_free(c);
}

/* The first main channel: the first one whose stream gets as far as the guest. */
static may_park int load_first(struct inm *inm, struct err *err)
{
	int e;

	for (;;) {
		/* No deadline: a source may come at any time; the embedder's patience is inm_run_until's. */
		e = event_wait(&inm->contest.main_there, DEADLINE_NEVER);
		if (e == 0)
			e = load_main(inm, err);
		if (e >= 0 || e == -ECANCELED || inm->story.loading.cancelled || !contest_may_drop(&inm->contest, e))
			return e;
		drop_attempt(inm, err);
	}
}

/* The first main channel, or that of a source that is back. */
static int run_main(void *arg)
{
	struct inm *inm = arg;
	struct err err = ERR_NONE;
	int e = inm->pause.on ? recovery_load(inm, &err) : load_first(inm, &err);

	/* The callback ready may have taken long. In postcopy a "no" is a pause here, and no later. */
	if (e == 0)
		e = landed_check(&inm->multifd, &inm->postcopy, &err);
	if (e < 0) {
		story_fail(&inm->story, e, &err);
		return e;
	}
	inm->story.complete = true;
	if (inm->owner.state == OWNER_SPLIT)
		owner_set(&inm->owner, OWNER_OURS);
	/* Everything has come: what the multifd channels might still say is their end. */
	group_cancel(&inm->story.loading);
	return 0;
}

/* The connection is lost, or a cancel has come, after the last page: too late to change anything. */
static void forget_error(struct inm *inm)
{
	struct story *story = &inm->story;

	if (story->err.code < 0)
		log_warn(&inm->log, "the source was lost after the last page: %s", story->err.text);
	else
		log_warn(&inm->log, "cancelled after the last page: the guest is whole, and stays");
	story->err = ERR_NONE;
}

/* Until the main stream has ended, in one way or the other. */
static may_park int load_guest(struct inm *inm)
{
	struct story *story = &inm->story;
	int joined, e = group_spawn(&story->loading, "main stream", run_main, inm);

	if (e < 0)
		group_cancel(&story->loading);
	joined = group_join(&story->loading);
	if (story->complete)
		return 0;
	/* Whatever failed first has said so; then all were cancelled. */
	if (inm->owner.state == OWNER_SPLIT && inm->owner.runs && postcopy_all_here(&inm->postcopy))
		owner_set(&inm->owner, OWNER_OURS);
	if (inm->owner.state == OWNER_OURS) {
		forget_error(inm);
		return 0;
	}
	if (e < 0 && e != -ECANCELED && story->err.code == 0)
		err_set(&story->err, e, "no memory for a coroutine");
	if (story->err.code < 0)
		return story->err.code;
	if (e < 0)
		return e;
	return joined < 0 ? joined : -ECANCELED;
}

/* Where the guest is split, whatever the error: only the embedder may give it up. */
static may_park int recover_guest(struct inm *inm, int e)
{
	struct story *story = &inm->story;

	while (e < 0 && story->err.code < 0 && recovery_begin(inm)) {
		e = recovery_pause(inm);
		/* 1: nothing is missing any more, and the guest runs. */
		if (e == 1)
			owner_set(&inm->owner, OWNER_OURS);
		if (e == 0)
			e = load_guest(inm);
	}
	if (e < 0 && story->refusal.code < 0) {
		story->err = story->refusal;
		e = story->err.code;
	}
	return e;
}

/* Return: 0 the guest is complete and accepted; a cancel that comes later is too late. */
static may_park int receive_guest(struct inm *inm)
{
	int e = recover_guest(inm, load_guest(inm));

	group_cancel(&inm->story.package);
	group_join(&inm->story.package);
	/* A channel that came while we waited for the source. */
	group_cancel(&inm->story.loading);
	group_join(&inm->story.loading);
	return e < 0 ? e : 0;
}

static void finish(struct inm *inm, int result)
{
	struct story *story = &inm->story;
	struct err why = ERR_NONE;

	if (result < 0 && inm->owner.state == OWNER_SPLIT)
		owner_set(&inm->owner, OWNER_GIVEN_UP);
	if (result == 0) {
		/* What a caller's mistake may have left there on the way. */
		story->text[0] = '\0';
		if (!inm->owner.runs) {
			owner_runs(&inm->owner, 0);
			callbacks_start_vcpus(&inm->callbacks, load_run_state(&inm->load));
		}
		story_set_state(story, INM_STATE_COMPLETED);
	} else if (result == -ECANCELED) {
		/* Why it was paused, if it was, may be why the embedder has given up. */
		if (inm->pause.on)
			err_set(&why, -EINTR, "; paused before: %s", story->text);
		snprintf(story->text, sizeof(story->text), "incoming: cancelled (ECANCELED)%s", why.text);
		story_set_state(story, INM_STATE_CANCELLED);
	} else {
		snprintf(story->text, sizeof(story->text), "incoming: %s%s (%s)", story->err.text, story->hint,
		         err_name(result));
		/* -ETIMEDOUT of inm_run_until means "still under way", and nothing else. */
		story->err.code = result == -ETIMEDOUT ? -ECONNABORTED : result;
		story_set_state(story, INM_STATE_FAILED);
	}
}

/* inm_cancel and inm_pause, from wherever. Background: the embedder may never call them. */
static int watch_wishes(void *arg)
{
	struct inm *inm = arg;
	struct story *story = &inm->story;
	uint64_t count;
	ssize_t n = 1;

	while (n > 0 && !atomic_load(&story->cancel_asked)) {
		n = io_read(inm->reactor, story->wish_fd, &count, sizeof(count), RING_OFF_CURRENT, DEADLINE_NEVER);
		if (n > 0 && atomic_exchange(&story->pause_asked, false))
			recovery_force_pause(inm);
	}
	if (n > 0)
		group_cancel(&inm->story.root);
	return 0;
}

/* What must go on beside the story. Return: 0 or -ENOMEM. */
static int start_company(struct inm *inm)
{
	int e = group_spawn_background(&inm->story.root, "wishes", watch_wishes, inm);

	if (e == 0)
		e = arrival_start(&inm->arrival);
	return e;
}

static may_park void close_all(struct inm *inm, int result)
{
	if (inm->load_made)
		load_fini(&inm->load);
	inm->load_made = false;
	contest_close(&inm->contest);
	multifd_fini(&inm->multifd);
	arrival_end(&inm->arrival, result);
	switchover_end(inm);
}

static int incoming_story(void *arg)
{
	struct inm *inm = arg;
	int e = start_company(inm);

	if (e < 0)
		err_set(&inm->story.err, e, "no memory for a coroutine");
	else
		e = tell_source(inm, receive_guest(inm));
	/* From here on nothing can change the outcome. */
	switchover_end(inm);
	log_held_back(&inm->log);
	finish(inm, e);
	if (e == 0)
		await_close(inm);
	close_all(inm, e);
	group_cancel(&inm->story.root);
	return 0;
}

/* ---- the beginning ---- */

/* Each part is handed what it needs of the others. */
static void prepare_connections(struct inm *inm)
{
	inm->contest = (struct contest){
		.opts = &inm->opts, .ram = &inm->ram, .pause = &inm->pause, .lost = lose_connection, .opaque = inm
	};
	inm->arrival = (struct arrival){ .reactor = inm->reactor,
		                         .log = &inm->log,
		                         .opts = &inm->opts,
		                         .main = &inm->contest.main,
		                         .paused = &inm->pause.waiting,
		                         .ops = &channels_ops,
		                         .opaque = inm };
	inm->preempt = (struct preempt){ .reactor = inm->reactor,
		                         .log = &inm->log,
		                         .opts = &inm->opts,
		                         .trace = &inm->trace,
		                         .ram = &inm->ram,
		                         .postcopy = &inm->postcopy,
		                         .story = &inm->story,
		                         .arrival = &inm->arrival,
		                         .main = &inm->contest.main };
	inm->multifd = (struct multifd){ .opts = &inm->opts,
		                         .ram = &inm->ram,
		                         .log = &inm->log,
		                         .main = &inm->contest.main,
		                         .readers = &inm->story.loading,
		                         .failed = note_failure,
		                         .failed_opaque = inm };
}

static void prepare(struct inm *inm)
{
	struct sched *s = &inm->reactor->sched;

	story_init(&inm->story, s);
	pause_init(&inm->pause, s);
	prepare_connections(inm);
	contest_init(&inm->contest, s);
	arrival_init(&inm->arrival);
	preempt_init(&inm->preempt);
	multifd_init(&inm->multifd, s);
	switchover_init(inm);
}

static void undo(struct inm *inm)
{
	arrival_undo(&inm->arrival);
	contest_free(&inm->contest);
}

int incoming_start(struct inm *inm, const struct address *addr, struct err *err)
{
	struct hello single;
	int e;

	if (inm->opts.looking)
		onlooker_options(&inm->opts);
	prepare(inm);
	e = arrival_open(&inm->arrival, addr, &single, err);
	if (e < 0) {
		undo(inm);
		return e;
	}
	inm->contest.single = single.ch != NULL;
	if (single.ch)
		channels_take_main(inm, &single);
	/* The story starts everything else: so there is one thing to start here, and nothing to undo but what was
	 * opened. */
	e = group_spawn(&inm->story.root, "incoming", incoming_story, inm);
	if (e < 0) {
		undo(inm);
		return err_set(err, e, "no memory for a coroutine");
	}
	story_set_state(&inm->story, INM_STATE_SETUP);
	return 0;
}
