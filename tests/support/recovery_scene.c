#include "tests/support/recovery_scene.h"

#include <check.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "tests/support/recovery_scene_parts.h"

#define END_MS 20000
#define QUIET_MS 10

void rec_breach(struct rec *r, const char *format, ...)
{
	va_list ap;

	if (r->s.breach[0])
		return;
	va_start(ap, format);
	vsnprintf(r->s.breach, sizeof(r->s.breach), format, ap);
	va_end(ap);
}

/* ---- playing ----------------------------------------------------------------------------------------------------- */

void rec_begin(struct rec *r, const struct pc_opts *o)
{
	memset(r, 0, sizeof(*r));
	r->fd = -1;
	r->act_at = UINT32_MAX;
	pc_begin(&r->s, o);
	for (unsigned b = 0; b < r->s.ram_count; b++) {
		r->received[b] = calloc(1, r->s.ram[b].units * r->s.ram[b].unit_pages);
		ASSERT(r->received[b]);
	}
}

bool rec_turn(struct rec *r)
{
	bool moved;

	if (r->turns++ == r->act_at && r->act)
		r->act(r);
	if (r->s.o.quiet && !r->s.pushing && r->s.result == 1 && pc_touched_all(&r->s))
		pc_push(&r->s);
	moved = pc_turn(&r->s);
	moved |= rec_flush_limited(r);
	moved |= rec_step(r);
	return moved;
}

bool rec_until(struct rec *r, rec_done_fn *done, unsigned ms)
{
	uint64_t deadline_ns = deadline_after_ns(ms * NS_PER_MS);

	while (!done(r) && r->s.result == 1 && clock_now_ns() < deadline_ns) {
		struct pollfd pfd = { .fd = inm_fd(r->s.e.inm), .events = POLLIN };

		if (!rec_turn(r) && r->s.result == 1)
			poll(&pfd, 1, 1);
	}
	return done(r);
}

void rec_settle(struct rec *r)
{
	struct pollfd pfd = { .fd = inm_fd(r->s.e.inm), .events = POLLIN };

	do {
		while (rec_turn(r))
			;
	} while (r->s.result == 1 && poll(&pfd, 1, QUIET_MS) > 0);
}

bool rec_guest_runs(struct rec *r)
{
	return r->s.vcpu_starts > 0;
}

bool rec_is_paused(struct rec *r)
{
	return pc_paused(&r->s);
}

bool rec_is_back(struct rec *r)
{
	return r->stage == REC_BACK;
}

bool rec_is_away(struct rec *r)
{
	return r->stage == REC_AWAY;
}

bool rec_is_stopped(struct rec *r)
{
	return r->stage == REC_AWAY || r->stage == r->o.stop || (r->o.allowed && r->done == r->o.allowed);
}

bool rec_all_wait(struct rec *r)
{
	return pc_all_wait(&r->s);
}

/* ---- the guest --------------------------------------------------------------------------------------------------- */

struct removal {
	struct rec *r;
	unsigned block;
	uint64_t first, end;
	int result;
	atomic_bool done;
};

static void *run_removal(void *arg)
{
	struct removal *m = arg;

	m->result = pc_remove(&m->r->s, m->block, m->first, m->end);
	atomic_store(&m->done, true);
	return NULL;
}

/* The kernel keeps the thread until we have read the event. */
void rec_remove(struct rec *r, unsigned block, uint64_t first, uint64_t end)
{
	struct removal m = { .r = r, .block = block, .first = first, .end = end };
	struct pc_thread thread;

	r->removes = true;
	pc_thread_start(&thread, run_removal, &m);
	while (!atomic_load(&m.done))
		if (!rec_turn(r))
			usleep(100);
	pc_thread_join(&thread);
	ck_assert_int_eq(m.result, 0);
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

static bool never(struct rec *r)
{
	(void)r;
	return false;
}

void rec_end(struct rec *r)
{
	rec_drop_main(r);
	for (unsigned b = 0; b < PC_BLOCKS_MAX; b++)
		free(r->received[b]);
	free(r->in);
	wire_fini(&r->out);
	pc_end(&r->s);
}

static void await_touchers(struct rec *r)
{
	uint64_t deadline_ns = deadline_after_ns(10 * NS_PER_S);

	while (!pc_touched_all(&r->s) && clock_now_ns() < deadline_ns)
		usleep(500);
	ck_assert_msg(pc_touched_all(&r->s), "a thread of the guest is stranded");
}

static void check_hang(struct rec *r)
{
	struct pc *s = &r->s;
	const char *error = inm_error(s->e.inm);

	ck_assert_msg(s->result != 1,
	              "it hangs in state %s, stage %d: %zu requests, %zu answered, %u of %u touchers "
	              "done, %s; %s; said: %s",
	              inm_state_name(inm_get_state(s->e.inm)), (int)r->stage, s->request_count, s->answered_count,
	              atomic_load(&s->touchers_done), s->o.touch.threads, error ? error : "no error", s->breach,
	              s->said);
}

static void check_numbers(struct rec *r)
{
	struct pc *s = &r->s;
	const struct inm_stats *st = &s->e.stats;

	ck_assert_uint_eq(s->vcpu_starts, 1);
	ck_assert_uint_eq(s->ready_calls, 1);
	ck_assert_uint_eq(st->remaining_pages, 0);
	ck_assert_uint_eq(st->outstanding_faults, 0);
	ck_assert_uint_eq(st->pauses, r->losses);
	ck_assert_uint_eq(st->recoveries, r->returns);
	/* The bitmaps were exact: nothing came that was here. */
	if (!r->removes && !s->o.twice && !s->o.twice_percent)
		ck_assert_uint_eq(st->duplicate_pages, 0);
	/* If only the preempt channel was lost, after the last page, main is still there for the result. */
	if (!r->lost_at_end)
		ck_assert_uint_eq(pc_reply_count(s, WIRE_RP_SHUT), 1);
}

static void check_states(struct rec *r)
{
	char states[400];

	embedder_states(&r->s.e, states, sizeof(states));
	ck_assert_msg(!strncmp(states, "setup active postcopy-active", 28), "%s", states);
	ck_assert_msg(r->s.e.state_count > EMB_STATES_MAX || strstr(states, " completed"), "%s", states);
}

void rec_finish(struct rec *r)
{
	struct pc *s = &r->s;

	rec_until(r, never, END_MS);
	check_hang(r);
	ck_assert_msg(s->result == 0, "did not land: %d: %s; said: %s", s->result, inm_error(s->e.inm), s->said);
	await_touchers(r);
	pc_free(s);
	ck_assert_msg(!s->breach[0], "%s", s->breach);
	ck_assert_msg(atomic_load(&s->wrong) == 0, "%lu wrong touches: %s", atomic_load(&s->wrong), s->wrong_text);
	ck_assert_msg(pc_compare(s) == 0, "pages are not what was sent");
	ck_assert_uint_eq(embedder_compare_devices(&s->e, &s->head), 0);
	check_numbers(r);
	check_states(r);
	rec_end(r);
}

void rec_give_up(struct rec *r)
{
	pc_cancel(&r->s);
	rec_until(r, never, 5000);
	rec_drop_main(r);
	pc_check_cancelled(&r->s);
	rec_end(r);
}

/* ---- the usual story --------------------------------------------------------------------------------------------- */

struct pc_opts rec_story(const struct pc_block blocks[static 2], enum rec_style style)
{
	static const enum pc_preempt preempts[] = { PC_NO_PREEMPT, PC_EARLY, PC_EARLY, PC_LATE };

	return pc_in_memory(
	        blocks, (struct pc_opts){ .preempt = preempts[style],
	                                  .quiet = true,
	                                  .unanswered = true,
	                                  .touch = { .threads = REC_THREADS, .order = PC_SCATTERED, .write = true } });
}

struct rec_opts rec_back(enum rec_style style)
{
	return (struct rec_opts){ .old = style == REC_OLD || style == REC_OLD_OVERTAKES,
		                  .preempt_first = style == REC_OLD_OVERTAKES };
}

void rec_begin_waiting(struct rec *r, const struct pc_opts *o)
{
	rec_begin(r, o);
	pc_switch(&r->s);
	ck_assert(rec_until(r, rec_all_wait, 5000));
	rec_settle(r);
}

void rec_begin_paused(struct rec *r, const struct pc_opts *o)
{
	rec_begin_waiting(r, o);
	ck_assert(rec_pause(r, REC_BOTH, false));
}

void rec_answer_and_finish(struct rec *r)
{
	pc_answer(&r->s);
	rec_finish(r);
}

void rec_recover_and_finish(struct rec *r, enum rec_style style)
{
	const struct rec_opts back = rec_back(style);

	rec_recover(r, &back);
	rec_answer_and_finish(r);
}

void rec_check_state(const struct rec *r, enum inm_state state)
{
	ck_assert_msg(inm_get_state(r->s.e.inm) == state, "state %s, not %s; said: %s",
	              inm_state_name(inm_get_state(r->s.e.inm)), inm_state_name(state), r->s.said);
}
