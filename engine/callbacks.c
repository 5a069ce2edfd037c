#include "engine/callbacks.h"

#include "base/assert.h"
#include "base/err.h"
#include "base/log.h"
#include "base/probe.h"
#include "base/text.h"
#include "engine/answer.h"
#include "postcopy/postcopy.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- callbacks that have no business with guest memory ---- */

/* Return: false when there is nothing to time (in another callback, that one is); else time_over is due. */
static bool time_callback(struct callbacks *e, const char *what)
{
	const struct postcopy *pc = e->postcopy;

	if (!pc->listening || stuck_is_entered(&e->stuck))
		return false;
	stuck_enter(&e->stuck, what, pc->stuck_after_ns, ": busy or blocked");
	return true;
}

/* Return: a line for the log, or NULL. */
static const char *time_over(struct callbacks *e)
{
	stuck_leave(&e->stuck);
	return stuck_line(&e->stuck);
}

void callbacks_tell_state(struct callbacks *e, enum inm_state state)
{
	const char *line;
	bool timed;

	if (!e->ops.state_changed)
		return;
	timed = time_callback(e, "the callback state_changed");
	e->ops.state_changed(e->opaque, state);
	line = timed ? time_over(e) : NULL;
	if (line)
		log_write(e->log, LOG_ERROR, "%s", line);
}

void callbacks_log(struct callbacks *e, enum inm_log_level level, const char *text)
{
	bool timed = time_callback(e, "the callback log");
	const char *line;

	e->ops.log(e->opaque, level, text);
	line = timed ? time_over(e) : NULL;
	if (line)
		e->ops.log(e->opaque, INM_LOG_ERROR, line);
}

/* A cancel from inside a callback, or while no coroutine parks, is heard here. */
static int take_answer(const struct callbacks *e, const struct answer *answer, struct err *err)
{
	if (atomic_load(e->cancel_asked))
		return err_set(err, -ECANCELED, "cancelled");
	return answer_check(answer, err);
}

int callbacks_ram_block(struct callbacks *e, struct inm_ram_block *block, struct err *err)
{
	struct answer answer = { .code = e->ops.ram_block(e->opaque, block) };

	answer_name(&answer, "the callback for block '%s'", TEXT_QUOTE(block->name, strlen(block->name)));
	return take_answer(e, &answer, err);
}

int callbacks_ram_listed(struct callbacks *e, struct err *err)
{
	struct answer answer = { .code = e->ops.ram_listed(e->opaque) };

	answer_name(&answer, "the callback for the list of RAM blocks");
	return take_answer(e, &answer, err);
}

int callbacks_live_state(struct callbacks *e, const struct inm_live_state *piece, struct err *err)
{
	struct answer answer = { .code = e->ops.live_state(e->opaque, piece) };

	answer_name(&answer, "the callback for live section '%s'", TEXT_QUOTE(piece->name, strlen(piece->name)));
	return take_answer(e, &answer, err);
}

int callbacks_early_described(struct callbacks *e, const struct inm_device *device, struct err *err)
{
	struct answer answer = { .code = e->ops.early_described(e->opaque, device) };

	answer_name(&answer, "the callback for early device '%s'", TEXT_QUOTE(device->name, strlen(device->name)));
	return take_answer(e, &answer, err);
}

/* ---- callbacks that may touch guest memory that is missing ---- */

/* @what lives until leave. */
static void enter(struct callbacks *e, const char *what)
{
	if (e->postcopy->listening)
		yield_watch(&e->postcopy->yield, what);
}

static void leave(struct callbacks *e)
{
	const char *line;

	if (e->postcopy->listening)
		yield_unwatch(&e->postcopy->yield);
	/* Now, and not when it was found out: the callback may have held what the log callback needs. */
	line = stuck_line(&e->stuck);
	if (line)
		log_write(e->log, LOG_ERROR, "%s", line);
}

int callbacks_device(struct callbacks *e, const struct inm_device *device, struct err *err)
{
	struct answer answer = { .code = 0 };
	char what[STUCK_WHAT_BYTES];

	PROBE2(engine__device, device->instance_id, device->bytes);
	answer_name(&answer, "the callback for device '%s'", TEXT_QUOTE(device->name, strlen(device->name)));
	if (e->ops.device) {
		snprintf(what, sizeof(what), "the callback for device '%s' instance %u",
		         TEXT_QUOTE(device->name, strlen(device->name)), device->instance_id);
		enter(e, what);
		answer.code = e->ops.device(e->opaque, device);
		leave(e);
	}
	return take_answer(e, &answer, err);
}

int callbacks_ready(struct callbacks *e, const char *run_state, struct err *err)
{
	struct answer answer = { .code = 0, .name = "the callback ready" };
	int r;

	if (e->ops.ready) {
		enter(e, answer.name);
		answer.code = e->ops.ready(e->opaque, run_state);
		leave(e);
	}
	r = take_answer(e, &answer, err);
	return r < 0 ? err_up(err, r, "the guest is complete") : 0;
}

void callbacks_start_vcpus(struct callbacks *e, const char *run_state)
{
	if (!e->ops.start_vcpus)
		return;
	enter(e, "the callback start_vcpus");
	e->ops.start_vcpus(e->opaque, run_state);
	leave(e);
}
