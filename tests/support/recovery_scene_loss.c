/* How far the source of a recovery scene gets, and how its connections are lost. See recovery_scene.h. */
#include <check.h>
#include <sys/socket.h>

#include "tests/support/recovery_scene_parts.h"

/* ---- limits ------------------------------------------------------------------------------------------------------ */

void rec_limit(struct rec *r, unsigned line, size_t upto)
{
	r->line = line;
	r->upto = upto;
	r->limited = upto != SIZE_MAX;
	r->s.lines[line].held = r->limited;
}

bool rec_at_limit(struct rec *r)
{
	const struct pc_line *l = &r->s.lines[r->line];

	return !r->limited || (l->sent >= r->upto && l->out.len > l->done);
}

bool rec_next_record(struct rec *r)
{
	const struct pc_line *l = &r->s.lines[r->line];
	size_t next = l->out.len;

	if (next == l->done)
		return false;
	for (size_t i = 0; i < l->out.mark_count; i++)
		if (l->out.marks[i].off > l->done && l->out.marks[i].off < next)
			next = l->out.marks[i].off;
	r->upto = l->sent + (next - l->done);
	return true;
}

/* The scene itself sends nothing on a line that is held. */
bool rec_flush_limited(struct rec *r)
{
	return r->limited && pc_flush_line(&r->s.lines[r->line], r->upto);
}

/* ---- losses ------------------------------------------------------------------------------------------------------ */

static void reset_fd(int fd)
{
	static const struct linger at_once = { .l_onoff = 1, .l_linger = 0 };

	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
}

void rec_lose(struct rec *r, enum rec_cut which, bool reset)
{
	struct pc *s = &r->s;

	s->source_closed = true;
	if (reset) {
		reset_fd(r->fd);
		reset_fd(s->lines[PC_MAIN].fd);
		reset_fd(s->lines[PC_PREEMPT].fd);
	}
	if (which != REC_ONLY_PREEMPT) {
		rec_drop_main(r);
		pc_close_line(s, PC_MAIN);
	}
	if (which != REC_MAIN)
		pc_close_line(s, PC_PREEMPT);
}

static void reset_line(struct pc_line *l)
{
	l->out.len = l->out.mark_count = l->done = l->sent = 0;
	l->allowed = PC_ALL;
	l->held = l->broken = false;
	l->last_block = -1;
}

void rec_forget(struct rec *r)
{
	rec_drop_main(r);
	pc_lose(&r->s);
	for (unsigned i = 0; i < PC_LINES; i++)
		reset_line(&r->s.lines[i]);
	r->stage = REC_AWAY;
	r->limited = false;
	r->s.in_len = 0;
}

static bool nothing_missing(const struct rec *r)
{
	struct inm_stats stats = { .size = sizeof(stats) };

	inm_get_stats(r->s.e.inm, &stats);
	return stats.remaining_pages == 0;
}

static bool is_noticed(struct rec *r)
{
	return rec_is_paused(r) || nothing_missing(r);
}

bool rec_pause(struct rec *r, enum rec_cut which, bool reset)
{
	bool paused;

	rec_lose(r, which, reset);
	/* Without a page to come a lost preempt channel is none here; the source closes main then. */
	if (which == REC_ONLY_PREEMPT && rec_until(r, is_noticed, 5000) && !rec_is_paused(r))
		rec_lose(r, REC_MAIN, reset);
	paused = rec_until(r, rec_is_paused, 5000);
	rec_forget(r);
	ck_assert_msg(paused || r->s.result != 1, "no pause: state %s; said: %s",
	              inm_state_name(inm_get_state(r->s.e.inm)), r->s.said);
	r->losses += paused;
	r->lost_at_end = !paused;
	return paused;
}
