/*
 * What connects when the source comes back (doc/wire/channels.md 2.3, 4, 5): before the loss shows here, in another
 * order, with strangers in between; and what it says when it does not mean a recovery.
 */
#include "tests/support/check_main.h"

#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "engine/inm.h"
#include "tests/support/recovery_scene.h"

static const struct pc_block blocks[] = { { "pc.ram", 40, EMB_MEMFD }, { "vga.vram", 8, EMB_ANON } };

static struct pc_opts opts_of(enum rec_style style)
{
	struct pc_opts o = rec_story(blocks, style);

	o.connect_deadline = "1";
	return o;
}

static void begin_waiting(struct rec *r, enum rec_style style)
{
	const struct pc_opts o = opts_of(style);

	rec_begin_waiting(r, &o);
}

static void begin_paused(struct rec *r, enum rec_style style)
{
	begin_waiting(r, style);
	ck_assert(rec_pause(r, REC_BOTH, false));
}

/* ---- the source is back before anybody here knows that it was gone ----------------------------------------------- */

/* The connections of a source that has gone silently: open here, and nobody is at the other end. */
static void keep_old(struct rec *r, int ret_fds[static 2])
{
	for (unsigned i = 0; i < 2; i++) {
		ret_fds[i] = r->s.lines[i].fd;
		r->s.lines[i].fd = -1;
	}
	r->s.source_closed = true;
	rec_forget(r);
}

TEST_CASE("early", 30);

TEST_EACH(test_a_source_that_is_back_early_is_kept_until_the_loss_shows, 3 * REC_STYLES)
{
	enum rec_style style = (enum rec_style)(_i / 3);
	const struct rec_opts back = rec_back(style);
	int fds[2];
	struct rec r;

	/* A channel that overtakes main cannot be distinguished from the lost one if that has said nothing. */
	if (style == REC_OLD_OVERTAKES && _i % 3 == 2)
		return;
	begin_waiting(&r, style);
	keep_old(&r, fds);
	rec_return(&r, &back);
	rec_settle(&r);
	rec_check_state(&r, INM_STATE_POSTCOPY_ACTIVE);
	ck_assert_int_eq(r.stage, REC_ASKING);
	ck_assert_uint_eq(r.bitmaps, 0);
	/* By its end, by inm_pause, or by the end of the preempt channel alone. */
	if (_i % 3 == 1)
		ck_assert_int_eq(inm_pause(r.s.e.inm), 0);
	else
		close(fds[_i % 3 == 2 && style != REC_NO_PREEMPT]);
	r.losses++;
	ck_assert_msg(rec_until(&r, rec_is_back, 3000), "stage %d, state %s; said: %s", (int)r.stage,
	              inm_state_name(inm_get_state(r.s.e.inm)), r.s.said);
	pc_answer(&r.s);
	for (unsigned i = 0; i < 2; i++)
		if (fds[i] >= 0 && (_i % 3 == 1 || i != (_i % 3 == 2 && style != REC_NO_PREEMPT)))
			close(fds[i]);
	rec_finish(&r);
}

/* In the middle of a recovery, too: the first one to come back falls silent, and only its source knows. */
TEST_EACH(test_a_source_may_be_back_early_again_in_a_recovery, 2)
{
	enum rec_style style = _i ? REC_NEW : REC_NO_PREEMPT;
	struct rec_opts back = rec_back(style);
	struct rec r;
	int old;

	begin_paused(&r, style);
	back.stop = REC_ASKED;
	rec_return(&r, &back);
	ck_assert(rec_until(&r, rec_is_stopped, 5000));
	old = r.fd;
	r.fd = -1;
	rec_forget(&r);
	back.stop = REC_AWAY;
	rec_return(&r, &back);
	rec_settle(&r);
	ck_assert_int_eq(inm_pause(r.s.e.inm), 0);
	r.losses++;
	ck_assert_msg(rec_until(&r, rec_is_back, 4000), "stage %d, state %s; said: %s", (int)r.stage,
	              inm_state_name(inm_get_state(r.s.e.inm)), r.s.said);
	close(old);
	rec_answer_and_finish(&r);
}

static bool has_preempt(struct rec *r)
{
	return r->s.e.inm->preempt.ch;
}

/* It is connected, and its first bytes are on their way, when the loss shows: it is not the lost preempt channel. */
TEST_EACH(test_a_main_channel_that_is_silent_when_the_loss_shows_is_kept, 2)
{
	enum rec_style style = _i ? REC_NEW : REC_NO_PREEMPT;
	struct rec_opts back = rec_back(style);
	int fds[2];
	struct pc_opts o = opts_of(style);
	struct rec r;

	/* Silence is suffered for a tenth of this. */
	o.connect_deadline = "20";
	rec_begin_waiting(&r, &o);
	if (style == REC_NEW) {
		/* The preempt channel has spoken. */
		pc_answer(&r.s);
		ck_assert(rec_until(&r, has_preempt, 5000));
		r.s.answering = false;
		ck_assert(rec_until(&r, rec_all_wait, 5000));
	}
	keep_old(&r, fds);
	back.stop = REC_CONNECTED;
	rec_return(&r, &back);
	rec_settle(&r);
	for (unsigned i = 0; i < 2; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	r.losses++;
	ck_assert(rec_until(&r, rec_is_paused, 3000));
	r.o.stop = REC_AWAY;
	ck_assert_msg(rec_until(&r, rec_is_back, 3000), "stage %d, state %s; said: %s", (int)r.stage,
	              inm_state_name(inm_get_state(r.s.e.inm)), r.s.said);
	rec_answer_and_finish(&r);
}

/* Silent, from before the loss: none of them is the preempt channel of the next recovery, and they do not stay. */
TEST_EACH(test_silent_connections_from_before_the_loss_are_closed, 2)
{
	enum rec_style style = _i ? REC_NEW : REC_NO_PREEMPT;
	uint64_t end_ns = deadline_after_ns(5 * NS_PER_S);
	struct wire nothing = { 0 };
	struct pump p[5];
	unsigned closed = 0;
	struct rec r;

	begin_waiting(&r, style);
	for (unsigned i = 0; i < 5; i++) {
		ck_assert_int_eq(pump_connect(&p[i], &nothing, r.s.address), 0);
		p[i].end = PUMP_HOLD;
	}
	rec_settle(&r);
	/* More than a tenth of the deadline, which is 1 s. */
	usleep(150000);
	ck_assert(rec_pause(&r, REC_BOTH, false));
	while (closed < 5 && clock_now_ns() < end_ns) {
		if (!rec_turn(&r))
			usleep(500);
		closed = 0;
		for (unsigned i = 0; i < 5; i++) {
			pump_step(&p[i]);
			closed += p[i].report.peer_closed;
		}
		if (rec_is_paused(&r) && clock_now_ns() - r.s.e.inm->pause.began_ns > 300 * NS_PER_MS)
			break;
	}
	ck_assert_uint_eq(closed, 5);
	for (unsigned i = 0; i < 5; i++)
		pump_close(&p[i]);
	rec_recover_and_finish(&r, style);
}

/* ---- strangers --------------------------------------------------------------------------------------------------- */

enum stranger { CLOSES, SILENT, HALF, HTTP, NEW_MIGRATION, CHANNEL, STRANGERS };
#define MEETINGS (REC_STYLES * STRANGERS)

static void make_stranger(struct wire *w, enum stranger which)
{
	if (which == HALF)
		wire_bytes(w, "\x08\x00", 2);
	else if (which == HTTP)
		wire_bytes(w, "GET / HTTP/1.1\r\n\r\n", 18);
	else if (which == NEW_MIGRATION)
		wire_header(w);
	else if (which == CHANNEL)
		wire_multifd_hello(w, NULL, 0);
}

static void meet(struct rec *r, struct pump *p, const struct wire *w, enum stranger which)
{
	ck_assert_int_eq(pump_connect(p, w, r->s.address), 0);
	p->end = which == CLOSES ? PUMP_CLOSE : PUMP_HOLD;
	pump_step(p);
	rec_settle(r);
}

TEST_CASE("strangers", 30);

TEST_EACH(test_strangers_do_not_disturb_a_recovery, MEETINGS)
{
	enum rec_style style = (enum rec_style)(_i / STRANGERS);
	enum stranger which = (enum stranger)(_i % STRANGERS);
	struct rec_opts back = rec_back(style);
	struct wire w = { 0 };
	struct pump p[3];
	struct rec r;

	make_stranger(&w, which);
	begin_paused(&r, style);
	meet(&r, &p[0], &w, which);
	rec_check_state(&r, INM_STATE_POSTCOPY_PAUSED);
	back.stop = REC_ASKED;
	rec_return(&r, &back);
	ck_assert(rec_until(&r, rec_is_stopped, 5000));
	meet(&r, &p[1], &w, which);
	rec_check_state(&r, INM_STATE_POSTCOPY_RECOVER);
	r.o.stop = REC_AWAY;
	ck_assert_msg(rec_until(&r, rec_is_back, 5000), "said: %s", r.s.said);
	meet(&r, &p[2], &w, which);
	for (unsigned i = 0; i < 3; i++)
		pump_close(&p[i]);
	rec_answer_and_finish(&r);
	wire_fini(&w);
}

/* A page, and no main channel that it could belong to: the source that comes then finds all as it was. */
TEST_EACH(test_a_page_of_a_stranger_while_it_is_paused_is_refused, 3)
{
	const struct rec_opts back = rec_back(REC_NEW);
	struct wire w = { 0 };
	struct pump p;
	struct rec r;

	wire_bytes(&w, "\0\0\0\0", 4);
	begin_paused(&r, REC_NEW);
	ck_assert_int_eq(pump_connect(&p, &w, r.s.address), 0);
	p.end = _i == 1 ? PUMP_CLOSE : PUMP_HOLD;
	pump_step(&p);
	rec_settle(&r);
	rec_check_state(&r, INM_STATE_POSTCOPY_PAUSED);
	if (_i != 2) {
		rec_recover(&r, &back);
		pump_close(&p);
		rec_answer_and_finish(&r);
	} else {
		pc_cancel(&r.s);
		rec_settle(&r);
		pump_close(&p);
		rec_give_up(&r);
	}
	wire_fini(&w);
}

static void settle_until_closed(struct rec *r, struct pump *p, unsigned ms)
{
	uint64_t deadline_ns = deadline_after_ns(ms * NS_PER_MS);

	while (!p->report.peer_closed && clock_now_ns() < deadline_ns) {
		if (!rec_turn(r))
			usleep(500);
		pump_step(p);
	}
	ck_assert_msg(p->report.peer_closed, "it is not closed; said: %s", r->s.said);
	ck_assert(!p->report.bad_reply);
	ck_assert_uint_eq(p->report.reply_count, 0);
	pump_close(p);
}

TEST_EACH(test_a_second_main_channel_of_a_recovery_is_refused, REC_STYLES)
{
	enum rec_style style = (enum rec_style)_i;
	struct rec_opts back = rec_back(style);
	struct wire w = { 0 };
	struct pump p;
	struct rec r;

	wire_recv_bitmap(&w, "pc.ram");
	begin_paused(&r, style);
	back.stop = REC_ASKED;
	rec_return(&r, &back);
	ck_assert(rec_until(&r, rec_is_stopped, 5000));
	ck_assert_int_eq(pump_connect(&p, &w, r.s.address), 0);
	p.return_path = true;
	p.end = PUMP_HOLD;
	pump_step(&p);
	rec_settle(&r);
	rec_check_state(&r, INM_STATE_POSTCOPY_RECOVER);
	r.o.stop = REC_AWAY;
	ck_assert(rec_until(&r, rec_is_back, 5000));
	/* It might have been the source, back again after a loss that has not shown here. */
	settle_until_closed(&r, &p, 3000);
	rec_answer_and_finish(&r);
	wire_fini(&w);
}

/* It goes on and on, each step in time, and never comes to RESUME; or it falls silent. The source has its turn. */
TEST_EACH(test_a_recovery_that_does_not_end_gives_its_place_to_the_source, 2)
{
	const struct rec_opts back = rec_back(REC_NO_PREEMPT);
	uint64_t end_ns, next_ns = 0;
	struct wire w = { 0 };
	size_t step;
	struct pump p;
	struct rec r;

	for (unsigned i = 0; i < 100; i++)
		wire_recv_bitmap(&w, "pc.ram");
	step = w.len / 100;
	begin_paused(&r, REC_NO_PREEMPT);
	ck_assert_int_eq(pump_connect(&p, &w, r.s.address), 0);
	p.return_path = true;
	p.end = PUMP_HOLD;
	p.stop_at = step;
	pump_step(&p);
	rec_settle(&r);
	rec_check_state(&r, INM_STATE_POSTCOPY_RECOVER);
	rec_return(&r, &back);
	end_ns = deadline_after_ns(10 * NS_PER_S);
	while (!rec_is_back(&r) && clock_now_ns() < end_ns) {
		if (!rec_turn(&r))
			usleep(500);
		pump_step(&p);
		if (_i == 0 && clock_now_ns() > next_ns && p.stop_at < w.len) {
			p.stop_at += step;
			next_ns = deadline_after_ns(150 * NS_PER_MS);
		}
	}
	ck_assert_msg(rec_is_back(&r), "stage %d, state %s; said: %s", (int)r.stage,
	              inm_state_name(inm_get_state(r.s.e.inm)), r.s.said);
	/* The one that was let go is a loss like others. */
	r.losses++;
	pump_close(&p);
	rec_answer_and_finish(&r);
	wire_fini(&w);
}

TEST_EACH(test_a_recovery_of_nothing_is_refused_and_all_goes_on, REC_STYLES)
{
	enum rec_style style = (enum rec_style)_i;
	uint64_t began_ns;
	struct wire w = { 0 };
	struct pump p;
	struct rec r;

	wire_recv_bitmap(&w, "pc.ram");
	begin_waiting(&r, style);
	began_ns = clock_now_ns();
	ck_assert_int_eq(pump_connect(&p, &w, r.s.address), 0);
	p.return_path = true;
	p.end = PUMP_HOLD;
	settle_until_closed(&r, &p, 4000);
	ck_assert_uint_ge(clock_now_ns() - began_ns, 900 * NS_PER_MS);
	rec_check_state(&r, INM_STATE_POSTCOPY_ACTIVE);
	rec_answer_and_finish(&r);
	wire_fini(&w);
}

/* ---- what it says ------------------------------------------------------------------------------------------------ */

#define RAW(text) (text), sizeof(text) - 1
#define NO_BEGINNING "a recovery begins with RECV_BITMAP"

/* Alone: what is logged of the connection, which never was the main channel. After a RECV_BITMAP: the error. */
static const struct {
	const char *bytes;
	size_t len;
	const char *logged; /* NULL: it is a lie only after a RECV_BITMAP */
	const char *words;
} lies[] = {
	{ RAW("\x08\0\x0a\0\7\6pc.rom"), "unknown block 'pc.rom'", "unknown block 'pc.rom'" },
	{ RAW("\x08\0\x0a\0\7\7pc.ram"), "unknown block", "a name of 7 bytes" },
	{ RAW("\x08\0\x0a\0\7\5pc.ram"), "unknown block", "a name of 5 bytes" },
	{ RAW("\x08\0\x0a\0\1\0"), NO_BEGINNING, "2 to 256 are possible" },
	{ RAW("\x08\0\2\0\4\0\0\0\x09"), NO_BEGINNING, "no place in a recovery" },
	{ RAW("\x08\0\1\0\0"), NO_BEGINNING, "no place in a recovery" },
	{ RAW("\x08\0\x09\0\1x"), NO_BEGINNING, "0 to 0 are possible" },
	{ RAW("\x08\0\x63\0\0"), NO_BEGINNING, "unknown" },
	{ RAW("\x08\0\4\0\0"), NO_BEGINNING, "outside a package" },
	{ RAW("\x08\0\3\0\x10\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\x10\0"), NO_BEGINNING, "no place in a recovery" },
	{ RAW("\2\0\0\0\2\0\0\0\0\0\0\0\x10"), NULL, "element 0x02" },
	{ RAW("\0"), NULL, "element 0x00" },
	{ RAW("QEVM\0\0\0\3"), NULL, "element 0x51" },
	{ RAW("\x08\0\x0a\0\2\0x"), NULL, "a name of 0 bytes" },
};
#define LIES (sizeof(lies) / sizeof(lies[0]))

TEST_CASE("words", 30);

/* Each ends the attempt, and none the migration. */
TEST_EACH(test_lies_of_a_source_that_is_back_end_the_attempt, REC_STYLES)
{
	enum rec_style style = (enum rec_style)_i;
	struct rec r;

	begin_paused(&r, style);
	for (unsigned i = 0; i < 2 * LIES; i++) {
		bool alone = i < LIES;
		const char *words = alone ? lies[i].logged : lies[i - LIES].words, *error;
		struct wire w = { 0 };

		if (!words)
			continue;
		if (!alone)
			wire_recv_bitmap(&w, "pc.ram");
		wire_bytes(&w, lies[i % LIES].bytes, lies[i % LIES].len);
		rec_return(&r, &(struct rec_opts){ .script = &w, .old = style != REC_NEW });
		ck_assert_msg(rec_until(&r, rec_is_away, 3000), "lie %u; said: %s", i, r.s.said);
		error = alone ? r.s.said : inm_error(r.s.e.inm);
		ck_assert_msg(error && strstr(error, words), "lie %u: no '%s' in: %s", i, words, error);
		rec_check_state(&r, INM_STATE_POSTCOPY_PAUSED);
		rec_forget(&r);
		rec_settle(&r);
		r.losses += !alone;
		wire_fini(&w);
	}
	rec_recover_and_finish(&r, style);
}

TEST_EACH(test_resume_twice_is_ignored_once, REC_STYLES)
{
	enum rec_style style = (enum rec_style)_i;
	const struct rec_opts back = rec_back(style);
	struct rec r;

	begin_paused(&r, style);
	rec_recover(&r, &back);
	wire_resume(&r.s.lines[PC_MAIN].out);
	wire_recv_bitmap(&r.s.lines[PC_MAIN].out, "pc.ram");
	rec_answer_and_finish(&r);
}

/* It asks for no bitmap, or for one again and again: its own affair. */
TEST_EACH(test_a_source_may_ask_for_bitmaps_as_often_as_it_likes, 4)
{
	struct rec_opts o = { .old = true };
	struct wire script = { 0 };
	struct rec r;

	begin_paused(&r, REC_OLD);
	for (unsigned i = 0; i < (unsigned)_i; i++)
		wire_recv_bitmap(&script, i % 2 ? "pc.ram" : "vga.vram");
	wire_resume(&script);
	o.script = &script;
	o.unread = true;
	o.allowed = script.len;
	rec_attempt(&r, &o, REC_BOTH);
	ck_assert_uint_eq(r.returns, 1);
	rec_recover_and_finish(&r, REC_OLD);
	wire_fini(&script);
}

/* A source that says nothing more is not waited for longer than the deadline: the address is free for the next one. */
TEST_EACH(test_a_source_that_falls_silent_in_a_recovery_is_let_go, 4 * REC_STYLES)
{
	static const enum rec_stage stops[] = { REC_ASKING, REC_ASKED, REC_PREEMPT, REC_RESUMING };
	enum rec_style style = (enum rec_style)(_i / 4);
	struct rec_opts back = rec_back(style);
	struct rec r;

	begin_paused(&r, style);
	back.stop = stops[_i % 4];
	if (back.stop == REC_ASKING)
		back.allowed = 7;
	/* RESUME is said, and the preempt channel does not come. */
	back.no_preempt = back.stop == REC_RESUMING;
	if (back.no_preempt && style == REC_NO_PREEMPT)
		back.stop = REC_PREEMPT;
	rec_return(&r, &back);
	ck_assert_msg(rec_until(&r, rec_is_away, 4000), "state %s; said: %s", inm_state_name(inm_get_state(r.s.e.inm)),
	              r.s.said);
	rec_check_state(&r, INM_STATE_POSTCOPY_PAUSED);
	/* With half a command it never was the main channel. */
	r.losses += back.stop != REC_ASKING;
	rec_forget(&r);
	rec_settle(&r);
	rec_recover_and_finish(&r, style);
}
