/* The source comes back: what it says and hears, up to RESUME_ACK. See recovery_scene.h. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/assert.h"
#include "base/be.h"
#include "tests/support/recovery_scene_parts.h"

#define RESUME_ACK_BYTES 8u

/* ---- the connection ---------------------------------------------------------------------------------------------- */

void rec_drop_main(struct rec *r)
{
	if (r->fd < 0)
		return;
	/* Back to its line: there may be a relay to end. */
	r->s.lines[PC_MAIN].fd = r->fd;
	r->fd = -1;
	pc_close_line(&r->s, PC_MAIN);
}

static void break_off(struct rec *r)
{
	r->stage = REC_AWAY;
	rec_drop_main(r);
	pc_close_line(&r->s, PC_PREEMPT);
}

/* Return: whether anything moved. */
static bool read_some(struct rec *r)
{
	size_t room = r->stage == REC_RESUMING ? RESUME_ACK_BYTES - r->in_len : 1 << 16;
	ssize_t n;

	if (r->o.unread || !room)
		return false;
	r->in = wire_grow(r->in, &r->in_cap, r->in_len, room, 1);
	n = recv(r->fd, r->in + r->in_len, room, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0)
		break_off(r);
	else
		r->in_len += (size_t)n;
	return true;
}

static bool send_some(struct rec *r)
{
	size_t end = r->o.allowed && r->o.allowed < r->out.len ? r->o.allowed : r->out.len;
	ssize_t n;

	if (r->fd < 0 || r->stage == REC_CONNECTED || r->done == end)
		return false;
	if (r->o.chunk_bytes && end > r->done + r->o.chunk_bytes)
		end = r->done + r->o.chunk_bytes;
	n = send(r->fd, r->out.data + r->done, end - r->done, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n < 0)
		break_off(r);
	else
		r->done += (size_t)n;
	return true;
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

/* By the last bitmaps: what is to be sent, and that nothing has been asked for. */
static void plan_rest(struct rec *r)
{
	struct pc *s = &r->s;

	for (unsigned b = 0; b < s->ram_count; b++)
		for (uint64_t u = 0; u < s->ram[b].units; u++) {
			s->ram[b].sent[u] = r->received[b][u * s->ram[b].unit_pages];
			s->ram[b].asked[u] = 0;
		}
	s->answered_count = s->request_count;
	s->last_name[0] = '\0';
	s->in_len = 0;
	s->push_block = 0;
	s->push_unit = 0;
	s->ended = s->again = s->source_closed = false;
}

static void go_on(struct rec *r)
{
	static const uint8_t ack[RESUME_ACK_BYTES] = { 0, WIRE_RP_RESUME_ACK, 0, 4, 0, 0, 0, 1 };

	if (memcmp(r->in, ack, sizeof(ack)) != 0)
		rec_breach(r, "message %u, length %u, where RESUME_ACK is expected", be16_load(r->in),
		           be16_load(r->in + 2));
	r->in_len = 0;
	r->stage = REC_BACK;
	r->returns++;
	plan_rest(r);
	r->s.lines[PC_MAIN].fd = r->fd;
	r->fd = -1;
}

static bool has_preempt(const struct rec *r)
{
	return r->s.o.preempt != PC_NO_PREEMPT && !r->o.no_preempt;
}

static bool advance(struct rec *r)
{
	enum rec_stage before = r->stage;

	if (r->stage == r->o.stop || r->o.script)
		return false;
	if (r->stage == REC_CONNECTED) {
		r->stage = REC_ASKING;
	} else if (r->stage == REC_ASKING) {
		rec_read_bitmaps(r);
		if (r->bitmaps == r->s.ram_count)
			r->stage = REC_ASKED;
	} else if (r->stage == REC_ASKED) {
		if (has_preempt(r))
			pc_source_connect(&r->s, PC_PREEMPT); /* with the old style it is there */
		r->stage = REC_PREEMPT;
	} else if (r->stage == REC_PREEMPT) {
		if (r->in_len > 0)
			rec_breach(r, "message %u before RESUME", r->in_len > 1 ? be16_load(r->in) : 0);
		wire_resume(&r->out);
		r->stage = REC_RESUMING;
	} else if (r->stage == REC_RESUMING && r->in_len == RESUME_ACK_BYTES) {
		go_on(r);
	}
	return r->stage != before;
}

bool rec_step(struct rec *r)
{
	bool moved;

	if (r->fd < 0)
		return false;
	moved = send_some(r);
	if (r->fd >= 0)
		moved |= read_some(r);
	if (r->fd >= 0)
		moved |= advance(r);
	return moved;
}

/* ---- from end to end --------------------------------------------------------------------------------------------- */

void rec_return(struct rec *r, const struct rec_opts *o)
{
	ASSERT(r->fd < 0);
	r->o = *o;
	r->in_len = 0;
	r->bitmaps = 0;
	r->done = r->out.len = r->out.mark_count = 0;
	if (o->script)
		wire_bytes(&r->out, o->script->data, o->script->len);
	for (unsigned b = 0; b < r->s.ram_count && !o->script; b++)
		wire_recv_bitmap(&r->out, r->s.ram[b].said.name);
	if (o->old && o->preempt_first && has_preempt(r))
		pc_source_connect(&r->s, PC_PREEMPT);
	pc_source_connect(&r->s, PC_MAIN);
	if (o->old && !o->preempt_first && has_preempt(r))
		pc_source_connect(&r->s, PC_PREEMPT);
	r->fd = r->s.lines[PC_MAIN].fd;
	r->s.lines[PC_MAIN].fd = -1;
	r->stage = o->script ? REC_ASKING : REC_CONNECTED;
}

void rec_recover(struct rec *r, const struct rec_opts *o)
{
	const char *error;

	rec_return(r, o);
	if (rec_until(r, rec_is_back, 5000)) {
		ck_assert_msg(!r->s.breach[0], "%s", r->s.breach);
		return;
	}
	error = inm_error(r->s.e.inm);
	ck_abort_msg("no RESUME_ACK: stage %d, state %s, %s; %s; said: %s", (int)r->stage,
	             inm_state_name(inm_get_state(r->s.e.inm)), error ? error : "", r->s.breach, r->s.said);
}

void rec_attempt(struct rec *r, const struct rec_opts *o, enum rec_cut which)
{
	enum inm_state state;

	rec_return(r, o);
	ck_assert_msg(rec_until(r, rec_is_stopped, 5000), "stage %d; said: %s", (int)r->stage, r->s.said);
	rec_settle(r);
	state = inm_get_state(r->s.e.inm);
	ck_assert_msg(!r->s.breach[0], "%s", r->s.breach);
	rec_lose(r, which, false);
	rec_settle(r);
	rec_forget(r);
	rec_settle(r);
	ck_assert_msg(rec_until(r, rec_is_paused, 5000), "state %s; said: %s",
	              inm_state_name(inm_get_state(r->s.e.inm)), r->s.said);
	r->losses += state != INM_STATE_POSTCOPY_PAUSED;
	/* It was acknowledged, and nobody has read that. */
	r->returns += state == INM_STATE_POSTCOPY_ACTIVE && o->unread;
}

void rec_move(struct rec *r, const char *uri)
{
	int e = inm_recover(r->s.e.inm, uri);

	ck_assert_msg(e == 0, "inm_recover(%s): %s", uri, inm_error(r->s.e.inm));
	snprintf(r->s.address, sizeof(r->s.address), "%s", inm_address(r->s.e.inm, 0));
}
