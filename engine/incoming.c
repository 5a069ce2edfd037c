#include "engine/incoming.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/probe.h"
#include "base/text.h"
#include "coroutine/io.h"
#include "engine/answer.h"
#include "engine/arrival.h"
#include "engine/channel/channel.h"
#include "engine/landed.h"
#include "engine/load/tail.h"
#include "engine/onlooker.h"
#include "engine/recovery.h"
#include "engine/state.h"
#include "engine/switchover.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Told how it went, a source closes at once; one that does not is not waited for longer. */
#define FAREWELL_NS (2 * NS_PER_S)

bool incoming_time_callback(struct inm *inm, const char *what)
{
	const struct postcopy *pc = &inm->postcopy;

	if (!pc->listening || stuck_is_entered(&inm->stuck))
		return false;
	stuck_enter(&inm->stuck, what, pc->stuck_after_ns, ": busy or blocked");
	return true;
}

const char *incoming_time_over(struct inm *inm)
{
	stuck_leave(&inm->stuck);
	return stuck_line(&inm->stuck);
}

static void tell_state(struct inm *inm, enum inm_state state)
{
	bool timed = incoming_time_callback(inm, "the callback state_changed");
	const char *line;

	inm->ops.state_changed(inm->opaque, state);
	line = timed ? incoming_time_over(inm) : NULL;
	if (line)
		log_write(&inm->log, LOG_ERROR, "%s", line);
}

void incoming_set_state(struct inm *inm, enum inm_state state)
{
	ASSERT(state_may_change(inm->state, state));
	ASSERT(!inm->reactor->sched.current->in_handler); /* by (5) of yield.h */
	PROBE3(engine__state, inm, (int)inm->state, (int)state);
	/* Other threads look at it: inm_pause. */
	__atomic_store_n(&inm->state, state, __ATOMIC_RELAXED);
	if (state_is_final(state))
		inm->end_ns = clock_now_ns();
	if (inm->ops.state_changed)
		tell_state(inm, state);
}

bool incoming_under_way(const struct inm *inm)
{
	return inm->root.sched && !group_empty(&inm->root);
}

int incoming_result(const struct inm *inm)
{
	if (inm->state == INM_STATE_COMPLETED)
		return 0;
	return inm->state == INM_STATE_CANCELLED ? -ECANCELED : inm->err.code;
}

/* ---- the embedder's side of the stream ---- */

/* A cancel from inside a callback, or while no coroutine parks, is heard here. */
static int take_answer(const struct inm *inm, const struct answer *answer, struct err *err)
{
	if (atomic_load(&inm->cancel_asked))
		return err_set(err, -ECANCELED, "cancelled");
	return answer_check(answer, err);
}

static int ask_ram_block(void *opaque, struct inm_ram_block *block, struct err *err)
{
	struct inm *inm = opaque;
	struct answer answer = { .code = 0 };
	int e = contest_commit(inm, err);

	if (e < 0)
		return e;
	answer.code = inm->ops.ram_block(inm->opaque, block);
	answer_name(&answer, "the callback for block '%s'", TEXT_QUOTE(block->name, strlen(block->name)));
	return take_answer(inm, &answer, err);
}

static int tell_ram_listed(void *opaque, struct err *err)
{
	struct inm *inm = opaque;
	struct answer answer = { .code = inm->ops.ram_listed(inm->opaque) };

	answer_name(&answer, "the callback for the list of RAM blocks");
	return take_answer(inm, &answer, err);
}

/* Between these two a callback may touch guest memory that is missing. @what lives as long. */
void incoming_enter_callback(struct inm *inm, const char *what)
{
	if (inm->postcopy.listening)
		yield_watch(&inm->postcopy.yield, what);
}

void incoming_leave_callback(struct inm *inm)
{
	const char *line;

	if (inm->postcopy.listening)
		yield_unwatch(&inm->postcopy.yield);
	/* Now, and not when it was found out: the callback may have held what the log callback needs. */
	line = stuck_line(&inm->stuck);
	if (line)
		log_write(&inm->log, LOG_ERROR, "%s", line);
}

static int give_device(void *opaque, const struct inm_device *device, struct err *err)
{
	struct inm *inm = opaque;
	struct answer answer = { .code = 0 };
	char what[STUCK_WHAT_BYTES];
	int e = contest_commit(inm, err);

	if (e < 0)
		return e;
	PROBE2(engine__device, device->instance_id, device->bytes);
	answer_name(&answer, "the callback for device '%s'", TEXT_QUOTE(device->name, strlen(device->name)));
	if (inm->ops.device) {
		snprintf(what, sizeof(what), "the callback for device '%s' instance %u",
		         TEXT_QUOTE(device->name, strlen(device->name)), device->instance_id);
		incoming_enter_callback(inm, what);
		answer.code = inm->ops.device(inm->opaque, device);
		incoming_leave_callback(inm);
	}
	return take_answer(inm, &answer, err);
}

static int give_live_state(void *opaque, const struct inm_live_state *piece, struct err *err)
{
	struct inm *inm = opaque;
	struct answer answer = { .code = inm->ops.live_state(inm->opaque, piece) };

	answer_name(&answer, "the callback for live section '%s'", TEXT_QUOTE(piece->name, strlen(piece->name)));
	return take_answer(inm, &answer, err);
}

static int give_early_described(void *opaque, const struct inm_device *device, struct err *err)
{
	struct inm *inm = opaque;
	struct answer answer = { .code = inm->ops.early_described(inm->opaque, device) };

	answer_name(&answer, "the callback for early device '%s'", TEXT_QUOTE(device->name, strlen(device->name)));
	return take_answer(inm, &answer, err);
}

static int sync_multifd(void *opaque, struct err *err)
{
	struct inm *inm = opaque;

	return multifd_sync(&inm->multifd, err);
}

static void note_switchover(void *opaque)
{
	struct inm *inm = opaque;

	inm->switchover_ns = clock_now_ns();
}

/* The first error is kept: what comes after it is its consequence. */
static void keep_first(struct err *kept, int result, const struct err *err)
{
	if (kept->code == 0 && result != -ECANCELED) {
		*kept = *err;
		kept->code = result;
	}
}

static void note_failure(void *opaque, int result, const struct err *err)
{
	struct inm *inm = opaque;

	keep_first(&inm->err, result, err);
}

void incoming_lost(void *opaque, int result, const struct err *err)
{
	struct inm *inm = opaque;

	note_failure(inm, result, err);
	group_cancel(&inm->loading);
}

static void note_refusal(void *opaque, int result, const struct err *err)
{
	struct inm *inm = opaque;

	keep_first(&inm->refusal, result, err);
	group_cancel(&inm->loading);
	event_set(&inm->postcopy.all_here); /* for the story, where it waits for the source */
}

/* ---- the story ---- */

const char *incoming_run_state(const struct inm *inm)
{
	return inm->load.has_run_state ? inm->load.run_state : NULL;
}

int incoming_ask_ready(struct inm *inm, struct err *err)
{
	struct answer answer = { .code = 0, .name = "the callback ready" };
	int e;

	if (inm->ops.ready) {
		incoming_enter_callback(inm, answer.name);
		answer.code = inm->ops.ready(inm->opaque, incoming_run_state(inm));
		incoming_leave_callback(inm);
	}
	e = take_answer(inm, &answer, err);
	return e < 0 ? err_up(err, e, "the guest is complete") : 0;
}

int incoming_secure_main(struct inm *inm, struct err *err)
{
	/* fd:, exec: and file: have not been met (HELLO_BYTES read) before. */
	if (inm->main.got > 0)
		return 0;
	return arrival_secure(inm, &inm->main, deadline_after_ns(inm->opts.connect_deadline_s * NS_PER_S), err);
}

static int load_main(struct inm *inm, struct err *err)
{
	struct load *l = &inm->load;
	int e = incoming_secure_main(inm, err);

	if (e < 0)
		return e;
	inm->load_ops = (struct load_ops){ .ram_block = ask_ram_block,
		                           .ram_listed = inm->ops.ram_listed ? tell_ram_listed : NULL,
		                           .device = give_device,
		                           .live_state = inm->ops.live_state ? give_live_state : NULL,
		                           .early_described = inm->ops.early_described ? give_early_described : NULL,
		                           .sync = sync_multifd,
		                           .switchover = note_switchover,
		                           .lost = incoming_lost,
		                           .refused = note_refusal };
	switchover_ops(&inm->load_ops);
	recovery_ops(&inm->load_ops);
	if (inm->opts.looking)
		onlooker_ops(&inm->load_ops);
	l->opts = &inm->opts;
	l->trace = &inm->trace;
	l->log = &inm->log;
	l->ops = &inm->load_ops;
	l->ops_opaque = inm;
	l->ram = &inm->ram;
	l->postcopy = &inm->postcopy;
	l->tasks = &inm->package;
	l->channels = &inm->loading;
	e = load_init(l, &inm->reactor->sched, inm->main.ch, inm->main.first, inm->main.got);
	if (e < 0)
		return err_set(err, e, "no memory for the stream's buffer");
	inm->load_made = true;
	l->reply.mute = inm->opts.looking;
	/* What comes by fd:, exec: or file: may take its time to begin. */
	e = reader_need(&l->reader, 1, err);
	inm->begin_ns = clock_now_ns();
	if (e == 0)
		e = load_stream(l, err);
	if (e == 0)
		e = landed_check(inm, err);
	if (e < 0)
		return e;
	log_info(&inm->log, "guest complete: %zu RAM blocks, %u devices, divided by %s", inm->ram.count, l->devices,
	         l->split_by_footers ? "footers" : "the stream's description");
	if (inm->running)
		return 0;
	e = incoming_ask_ready(inm, err);
	if (e < 0)
		return e;
	/* That may have taken long. A source that did not wait for it runs its guest again. */
	return reply_is_awaited(&l->reply) ? tail_check_end(l, err) : 0;
}

/*
 * The source hears how it went. A success that cannot be told is a failure: without SHUT 0 the source runs its guest
 * again, and there must not be two. Once it is being told, a cancel is too late: the write is not left halfway.
 */
static int tell_source(struct inm *inm, int result)
{
	struct err err = ERR_NONE;
	int e;

	/* Nothing parks between this and the word. */
	if (result == 0 && (result = landed_check(inm, &err)) < 0)
		note_failure(inm, result, &err);
	if (!inm->load_made || !reply_is_awaited(&inm->load.reply))
		return result;
	/* Where half of the guest runs, nobody is told that it may run elsewhere. */
	if (result < 0 && inm->running)
		return result;
	/* It was there at the end of its stream, and we have parked since. */
	if (result == 0 && !inm->running && chan_hung_up(inm->main.ch)) {
		result = err_set(&err, -ENODATA, "the source closed its connection without waiting to be told");
		note_failure(inm, result, &err);
	}
	if (result < 0) {
		reply_shut(&inm->load.reply, 1, deadline_after_ns(FAREWELL_NS), &err);
		return result;
	}
	co_shield(&inm->reactor->sched, true);
	e = reply_shut(&inm->load.reply, 0, deadline_after_ns(REPLY_TIMEOUT_NS), &err);
	co_shield(&inm->reactor->sched, false);
	if (e < 0 && inm->running) {
		/* It runs here, and is complete: the source has nothing that could run. */
		log_warn(&inm->log, "the source could not be told that all is here: %s", err.text);
		return 0;
	}
	if (e < 0)
		inm->err = err;
	return e;
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
		n = chan_readv(inm->main.ch, &iov, 1, deadline_ns, &ignored);
	}
}

void incoming_close_main(struct inm *inm)
{
	if (inm->main.ch)
		inm->main_bytes += inm->main.ch->bytes_in;
	chan_close(inm->main.ch);
	inm->main.ch = NULL;
}

/* The first main channel: the first one whose stream gets as far as the guest. */
static may_park int load_first(struct inm *inm, struct err *err)
{
	int e;

	do {
		/* No deadline: a source may come at any time; the embedder's patience is inm_run_until's. */
		e = event_wait(&inm->main_there, DEADLINE_NEVER);
		if (e == 0)
			e = load_main(inm, err);
	} while (e < 0 && e != -ECANCELED && contest_drop(inm, e, err));
	return e;
}

/* The first main channel, or that of a source that is back. */
static int run_main(void *arg)
{
	struct inm *inm = arg;
	struct err err = ERR_NONE;
	int e = inm->recovering ? recovery_load(inm, &err) : load_first(inm, &err);

	/* The callback ready may have taken long. In postcopy a "no" is a pause here, and no later. */
	if (e == 0)
		e = landed_check(inm, &err);
	if (e < 0) {
		note_failure(inm, e, &err);
		return e;
	}
	inm->complete = true;
	/* Everything has come: what the multifd channels might still say is their end. */
	group_cancel(&inm->loading);
	return 0;
}

/* Until the main stream has ended, in one way or the other. */
static int load_guest(struct inm *inm)
{
	int joined, e = group_spawn(&inm->loading, "main stream", run_main, inm);

	if (e < 0)
		group_cancel(&inm->loading);
	joined = group_join(&inm->loading);
	if (inm->complete)
		return 0;
	/* Whoever failed first has said so; then all were cancelled. */
	if (inm->running && postcopy_all_here(&inm->postcopy)) {
		if (inm->err.code < 0)
			log_warn(&inm->log, "the source was lost after the last page: %s", inm->err.text);
		else
			log_warn(&inm->log, "cancelled after the last page: the guest is whole, and stays");
		inm->err = ERR_NONE;
		return 0;
	}
	if (e < 0 && e != -ECANCELED && inm->err.code == 0)
		err_set(&inm->err, e, "no memory for a coroutine");
	if (inm->err.code < 0)
		return inm->err.code;
	if (e < 0)
		return e;
	return joined < 0 ? joined : -ECANCELED;
}

/* Half of the guest is here: whatever the error, only the embedder may give it up. */
static may_park int recover_guest(struct inm *inm, int e)
{
	while (e < 0 && inm->err.code < 0 && recovery_begin(inm)) {
		e = recovery_pause(inm);
		if (e == 0)
			e = load_guest(inm);
	}
	if (e < 0 && inm->refusal.code < 0) {
		inm->err = inm->refusal;
		e = inm->err.code;
	}
	return e;
}

/* Return: 0 the guest is complete and accepted; a cancel that comes later is too late. */
static int receive_guest(struct inm *inm)
{
	int e = recover_guest(inm, load_guest(inm));

	group_cancel(&inm->package);
	group_join(&inm->package);
	/* A channel that came while the source was waited for. */
	group_cancel(&inm->loading);
	group_join(&inm->loading);
	return e < 0 ? e : 0;
}

static void finish(struct inm *inm, int result)
{
	struct err why = ERR_NONE;

	if (result == 0) {
		/* What a caller's mistake may have left there on the way. */
		inm->error_text[0] = '\0';
		if (inm->ops.start_vcpus && !inm->running)
			inm->ops.start_vcpus(inm->opaque, incoming_run_state(inm));
		incoming_set_state(inm, INM_STATE_COMPLETED);
	} else if (result == -ECANCELED) {
		/* Why it was paused, if it was, may be why the embedder has given up. */
		if (inm->recovering)
			err_set(&why, -EINTR, "; paused before: %s", inm->error_text);
		snprintf(inm->error_text, sizeof(inm->error_text), "incoming: cancelled (ECANCELED)%s", why.text);
		incoming_set_state(inm, INM_STATE_CANCELLED);
	} else {
		snprintf(inm->error_text, sizeof(inm->error_text), "incoming: %s%s (%s)", inm->err.text, inm->hint,
		         err_name(result));
		/* -ETIMEDOUT of inm_run_until means "still under way", and nothing else. */
		inm->err.code = result == -ETIMEDOUT ? -ECONNABORTED : result;
		incoming_set_state(inm, INM_STATE_FAILED);
	}
}

/* inm_cancel and inm_pause, from wherever. Background: the embedder may never call them. */
static int watch_wishes(void *arg)
{
	struct inm *inm = arg;
	uint64_t count;
	ssize_t n = 1;

	while (n > 0 && !atomic_load(&inm->cancel_asked)) {
		n = io_read(inm->reactor, inm->wish_fd, &count, sizeof(count), RING_OFF_CURRENT, DEADLINE_NEVER);
		if (n > 0 && atomic_exchange(&inm->pause_asked, false))
			recovery_force_pause(inm);
	}
	if (n > 0)
		group_cancel(&inm->root);
	return 0;
}

/* What must go on beside the story. Return: 0 or -ENOMEM. */
static int start_company(struct inm *inm)
{
	int e = group_spawn_background(&inm->root, "wishes", watch_wishes, inm);

	if (e == 0)
		e = arrival_start(inm);
	return e;
}

static int incoming_story(void *arg)
{
	struct inm *inm = arg;
	int e = start_company(inm);

	if (e < 0)
		err_set(&inm->err, e, "no memory for a coroutine");
	else
		e = tell_source(inm, receive_guest(inm));
	/* From here on nothing can change the outcome. */
	switchover_end(inm);
	log_held_back(&inm->log);
	finish(inm, e);
	if (e == 0)
		await_close(inm);
	if (inm->load_made)
		load_fini(&inm->load);
	inm->load_made = false;
	incoming_close_main(inm);
	multifd_fini(&inm->multifd);
	arrival_end(inm, e);
	switchover_end(inm);
	tls_creds_free(inm->tls);
	inm->tls = NULL;
	group_cancel(&inm->root);
	return 0;
}

/* ---- the beginning ---- */

static void prepare(struct inm *inm)
{
	struct sched *s = &inm->reactor->sched;

	group_init(&inm->root, s, "migration");
	group_init(&inm->arrival, s, "arrival");
	group_init(&inm->acceptors, s, "acceptors");
	group_init(&inm->loading, s, "loading");
	group_init(&inm->package, s, "package");
	event_init(&inm->main_there, s, "main channel");
	contest_init(inm);
	list_init(&inm->unknown);
	inm->exec.pidfd = -1;
	inm->multifd = (struct multifd){ .opts = &inm->opts,
		                         .ram = &inm->ram,
		                         .log = &inm->log,
		                         .main = &inm->main,
		                         .readers = &inm->loading,
		                         .failed = note_failure,
		                         .failed_opaque = inm };
	multifd_init(&inm->multifd, s);
	switchover_init(inm);
	recovery_init(inm);
}

int incoming_start(struct inm *inm, const struct address *addr, struct err *err)
{
	struct tls_options o;
	int e;

	if (inm->opts.looking)
		onlooker_options(&inm->opts);
	prepare(inm);
	if (inm->opts.tls_creds[0]) {
		o = tls_options_of(&inm->opts);
		e = tls_creds_load(&inm->tls, &o, err);
		if (e < 0)
			return e;
	}
	e = arrival_open(inm, addr, err);
	if (e < 0) {
		arrival_undo(inm);
		return e;
	}
	/* The story starts everything else: so there is one thing to start here, and nothing to undo but what was
	 * opened. */
	e = group_spawn(&inm->root, "incoming", incoming_story, inm);
	if (e < 0) {
		arrival_undo(inm);
		return err_set(err, e, "no memory for a coroutine");
	}
	incoming_set_state(inm, INM_STATE_SETUP);
	return 0;
}
