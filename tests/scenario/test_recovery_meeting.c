/*
 * Who connects when the source comes back (spec/channels.md 2.3, 4, 5): earlier than the loss shows here, in another
 * order, with strangers in between; what it says when it has no recovery in mind; and what the embedder may ask for.
 */
#include "tests/support/check_main.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "engine/incoming.h"
#include "tests/support/recovery_scene.h"

#define RAM_ID 2u

static const struct pc_block blocks[] = { { "pc.ram", 40, EMB_MEMFD }, { "vga.vram", 8, EMB_ANON } };

/* Without a preempt channel; connected as up to machine type 7.2, also overtaking main; as later ones. */
enum style { NO_PREEMPT, OLD, OLD_OVERTAKES, NEW, STYLES };

static struct pc_opts opts_of(enum style style)
{
	static const enum pc_preempt preempts[] = { PC_NO_PREEMPT, PC_EARLY, PC_EARLY, PC_LATE };

	return (struct pc_opts){ .blocks = blocks, .block_count = 2, .preempt = preempts[style], .quiet = true,
		                 .unanswered = true, .look = pc_check_books, .connect_deadline = "1",
		                 .touch = { .threads = 3, .order = PC_SCATTERED, .write = true } };
}

static struct rec_opts back_of(enum style style)
{
	return (struct rec_opts){ .old = style == OLD || style == OLD_OVERTAKES,
		                  .preempt_first = style == OLD_OVERTAKES };
}

static void begin_waiting(struct rec *r, enum style style)
{
	const struct pc_opts o = opts_of(style);

	rec_begin(r, &o);
	pc_switch(&r->s);
	ck_assert(rec_until(r, rec_all_wait, 5000));
	rec_settle(r);
}

static void recover_and_finish(struct rec *r, enum style style)
{
	const struct rec_opts back = back_of(style);

	rec_recover(r, &back);
	pc_answer(&r->s);
	rec_finish(r);
}

static void check_state(const struct rec *r, enum inm_state state)
{
	ck_assert_msg(inm_get_state(r->s.e.inm) == state, "state %s, not %s; said: %s",
	              inm_state_name(inm_get_state(r->s.e.inm)), inm_state_name(state), r->s.said);
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

START_TEST(test_a_source_that_is_back_early_is_kept_until_the_loss_shows)
{
	enum style style = (enum style)(_i / 3);
	const struct rec_opts back = back_of(style);
	int fds[2];
	struct rec r;

	/* Who overtakes main cannot be told from the channel that was lost while that has said nothing. */
	if (style == OLD_OVERTAKES && _i % 3 == 2)
		return;
	begin_waiting(&r, style);
	keep_old(&r, fds);
	rec_return(&r, &back);
	rec_settle(&r);
	check_state(&r, INM_STATE_POSTCOPY_ACTIVE);
	ck_assert_int_eq(r.stage, REC_ASKING);
	ck_assert_uint_eq(r.bitmaps, 0);
	/* By its end, by inm_pause, or by the end of the preempt channel alone. */
	if (_i % 3 == 1)
		ck_assert_int_eq(inm_pause(r.s.e.inm), 0);
	else
		close(fds[_i % 3 == 2 && style != NO_PREEMPT]);
	r.losses++;
	ck_assert_msg(rec_until(&r, rec_is_back, 3000), "stage %d, state %s; said: %s", (int)r.stage,
	              inm_state_name(inm_get_state(r.s.e.inm)), r.s.said);
	pc_answer(&r.s);
	for (unsigned i = 0; i < 2; i++)
		if (fds[i] >= 0 && (_i % 3 == 1 || i != (_i % 3 == 2 && style != NO_PREEMPT)))
			close(fds[i]);
	rec_finish(&r);
}
END_TEST

/* ---- strangers --------------------------------------------------------------------------------------------------- */

enum stranger { CLOSES, SILENT, HALF, HTTP, NEW_MIGRATION, CHANNEL, STRANGERS };

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

START_TEST(test_strangers_do_not_disturb_a_recovery)
{
	enum style style = (enum style)(_i / STRANGERS);
	enum stranger which = (enum stranger)(_i % STRANGERS);
	struct rec_opts back = back_of(style);
	struct wire w = { 0 };
	struct pump p[3];
	struct rec r;

	make_stranger(&w, which);
	begin_waiting(&r, style);
	ck_assert(rec_pause(&r, REC_BOTH, false));
	meet(&r, &p[0], &w, which);
	check_state(&r, INM_STATE_POSTCOPY_PAUSED);
	back.stop = REC_ASKED;
	rec_return(&r, &back);
	ck_assert(rec_until(&r, rec_is_stopped, 5000));
	meet(&r, &p[1], &w, which);
	check_state(&r, INM_STATE_POSTCOPY_RECOVER);
	r.o.stop = REC_AWAY;
	ck_assert_msg(rec_until(&r, rec_is_back, 5000), "said: %s", r.s.said);
	meet(&r, &p[2], &w, which);
	for (unsigned i = 0; i < 3; i++)
		pump_close(&p[i]);
	pc_answer(&r.s);
	rec_finish(&r);
	wire_fini(&w);
}
END_TEST

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

START_TEST(test_a_second_main_channel_of_a_recovery_is_refused)
{
	enum style style = (enum style)_i;
	struct rec_opts back = back_of(style);
	struct wire w = { 0 };
	struct pump p;
	struct rec r;

	wire_recv_bitmap(&w, "pc.ram");
	begin_waiting(&r, style);
	ck_assert(rec_pause(&r, REC_BOTH, false));
	back.stop = REC_ASKED;
	rec_return(&r, &back);
	ck_assert(rec_until(&r, rec_is_stopped, 5000));
	ck_assert_int_eq(pump_connect(&p, &w, r.s.address), 0);
	p.return_path = true;
	p.end = PUMP_HOLD;
	settle_until_closed(&r, &p, 3000);
	check_state(&r, INM_STATE_POSTCOPY_RECOVER);
	r.o.stop = REC_AWAY;
	ck_assert(rec_until(&r, rec_is_back, 5000));
	pc_answer(&r.s);
	rec_finish(&r);
	wire_fini(&w);
}
END_TEST

START_TEST(test_a_recovery_of_nothing_is_refused_and_all_goes_on)
{
	enum style style = (enum style)_i;
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
	check_state(&r, INM_STATE_POSTCOPY_ACTIVE);
	pc_answer(&r.s);
	rec_finish(&r);
	wire_fini(&w);
}
END_TEST

/* ---- what it says ------------------------------------------------------------------------------------------------ */

static void say_part(struct wire *w)
{
	wire_part(w, WIRE_PART, RAM_ID);
	wire_content_record(w, "pc.ram", 0, 1, false);
	wire_eos(w);
	wire_footer(w, RAM_ID);
}

/* Return: what the error says; NULL: there is no such lie. */
static const char *make_lie(struct wire *w, unsigned nth)
{
	static const uint8_t longer[] = { 7, 'p', 'c', '.', 'r', 'a', 'm' };
	static const uint8_t shorter[] = { 5, 'p', 'c', '.', 'r', 'a', 'm' };

	if (nth > 9)
		wire_recv_bitmap(w, "pc.ram");
	switch (nth) {
	case 0:
	case 10:
		wire_recv_bitmap(w, "pc.rom");
		return "unknown block 'pc.rom'";
	case 1:
	case 11:
		wire_command(w, WIRE_CMD_RECV_BITMAP, longer, sizeof(longer));
		return "a name of 7 bytes";
	case 2:
	case 12:
		wire_command(w, WIRE_CMD_RECV_BITMAP, shorter, sizeof(shorter));
		return "a name of 5 bytes";
	case 3:
	case 13:
		wire_command(w, WIRE_CMD_RECV_BITMAP, "", 1);
		return "2 to 256 are possible";
	case 4:
	case 14:
		wire_ping(w, 9);
		return "no place in a recovery";
	case 5:
	case 15:
		wire_open_return_path(w);
		return "no place in a recovery";
	case 6:
	case 16:
		wire_command(w, WIRE_CMD_RESUME, "x", 1);
		return "0 to 0 are possible";
	case 7:
	case 17:
		wire_command(w, 99, NULL, 0);
		return "unknown";
	case 8:
	case 18:
		wire_listen(w);
		return "outside a package";
	case 9:
	case 19:
		wire_advise(w, PC_PAGE, PC_PAGE);
		return "no place in a recovery";
	case 20:
		say_part(w);
		return "element 0x02";
	case 21:
		wire_eof(w);
		return "element 0x00";
	case 22:
		wire_header(w);
		return "element 0x51";
	case 23:
		wire_command(w, WIRE_CMD_RECV_BITMAP, "\0x", 2);
		return "a name of 0 bytes";
	default:
		return NULL;
	}
}
#define LIES 24

/* Each ends the attempt, and none the migration. */
START_TEST(test_lies_of_a_source_that_is_back_end_the_attempt)
{
	enum style style = (enum style)_i;
	struct rec r;

	begin_waiting(&r, style);
	ck_assert(rec_pause(&r, REC_BOTH, false));
	for (unsigned i = 0; i < LIES; i++) {
		struct wire w = { 0 };
		const char *words = make_lie(&w, i), *error;

		rec_return(&r, &(struct rec_opts){ .script = &w, .old = style != NEW });
		ck_assert_msg(rec_until(&r, rec_is_away, 3000), "lie %u; said: %s", i, r.s.said);
		error = inm_error(r.s.e.inm);
		ck_assert_msg(error && strstr(error, words), "lie %u: no '%s' in: %s", i, words, error);
		check_state(&r, INM_STATE_POSTCOPY_PAUSED);
		rec_forget(&r);
		rec_settle(&r);
		r.losses++;
		wire_fini(&w);
	}
	recover_and_finish(&r, style);
}
END_TEST

START_TEST(test_resume_twice_is_ignored_once)
{
	enum style style = (enum style)_i;
	const struct rec_opts back = back_of(style);
	struct rec r;

	begin_waiting(&r, style);
	ck_assert(rec_pause(&r, REC_BOTH, false));
	rec_recover(&r, &back);
	wire_resume(&r.s.lines[PC_MAIN].out);
	wire_recv_bitmap(&r.s.lines[PC_MAIN].out, "pc.ram");
	pc_answer(&r.s);
	rec_finish(&r);
}
END_TEST

/* It asks for no bitmap, or for one again and again: its own affair. */
START_TEST(test_a_source_may_ask_for_bitmaps_as_often_as_it_likes)
{
	struct rec_opts o = { .old = true };
	struct wire script = { 0 };
	struct rec r;

	begin_waiting(&r, OLD);
	ck_assert(rec_pause(&r, REC_BOTH, false));
	for (unsigned i = 0; i < (unsigned)_i; i++)
		wire_recv_bitmap(&script, i % 2 ? "pc.ram" : "vga.vram");
	wire_resume(&script);
	o.script = &script;
	o.unread = true;
	o.allowed = script.len;
	rec_attempt(&r, &o, REC_BOTH);
	ck_assert_uint_eq(r.returns, 1);
	recover_and_finish(&r, OLD);
	wire_fini(&script);
}
END_TEST

/* A source that says nothing more is not waited for longer than the deadline: the address is free for the next one. */
START_TEST(test_a_source_that_falls_silent_in_a_recovery_is_let_go)
{
	static const enum rec_stage stops[] = { REC_ASKING, REC_ASKED, REC_PREEMPT, REC_RESUMING };
	enum style style = (enum style)(_i / 4);
	struct rec_opts back = back_of(style);
	struct rec r;

	begin_waiting(&r, style);
	ck_assert(rec_pause(&r, REC_BOTH, false));
	back.stop = stops[_i % 4];
	if (back.stop == REC_ASKING)
		back.allowed = 7;
	/* RESUME is said, and the preempt channel does not come. */
	back.no_preempt = back.stop == REC_RESUMING;
	if (back.no_preempt && style == NO_PREEMPT)
		back.stop = REC_PREEMPT;
	rec_return(&r, &back);
	ck_assert_msg(rec_until(&r, rec_is_away, 4000), "state %s; said: %s",
	              inm_state_name(inm_get_state(r.s.e.inm)), r.s.said);
	check_state(&r, INM_STATE_POSTCOPY_PAUSED);
	r.losses++;
	rec_forget(&r);
	rec_settle(&r);
	recover_and_finish(&r, style);
}
END_TEST

/* ---- inm_pause --------------------------------------------------------------------------------------------------- */

static bool has_asked(struct rec *r)
{
	return pc_asked(&r->s);
}

START_TEST(test_pause_is_for_a_guest_in_two_halves)
{
	enum style style = (enum style)_i;
	const struct pc_opts o = opts_of(style);
	struct rec_opts back = back_of(style);
	struct rec r;

	rec_begin(&r, &o);
	ck_assert_int_eq(inm_pause(r.s.e.inm), -EINVAL);
	pc_precopy(&r.s);
	check_state(&r, INM_STATE_ACTIVE);
	ck_assert_int_eq(inm_pause(r.s.e.inm), -EINVAL);
	pc_switch(&r.s);
	ck_assert(rec_until(&r, rec_all_wait, 5000));
	ck_assert_int_eq(inm_pause(r.s.e.inm), 0);
	ck_assert(rec_until(&r, rec_is_paused, 5000));
	ck_assert_msg(strstr(inm_error(r.s.e.inm), "inm_pause"), "%s", inm_error(r.s.e.inm));
	r.losses++;
	rec_forget(&r);
	ck_assert_int_eq(inm_pause(r.s.e.inm), -EINVAL);
	back.stop = REC_ASKED;
	rec_return(&r, &back);
	ck_assert(rec_until(&r, rec_is_stopped, 5000));
	ck_assert_int_eq(inm_pause(r.s.e.inm), 0);
	ck_assert(rec_until(&r, rec_is_paused, 5000));
	r.losses++;
	rec_forget(&r);
	rec_settle(&r);
	back.stop = REC_AWAY;
	rec_recover(&r, &back);
	pc_answer(&r.s);
	while (r.s.result == 1)
		if (!rec_turn(&r))
			usleep(500);
	ck_assert_int_eq(inm_pause(r.s.e.inm), -EINVAL);
	rec_finish(&r);
}
END_TEST

static int wait_for_a_page(struct pc *s, const struct inm_device *device)
{
	(void)device;
	return inm_ram_await(s->e.inm, pc_guest(s, 0, 1), 1);
}

/* Between LISTEN and RUN the source still has its guest: there is nothing to pause. */
START_TEST(test_a_pause_before_the_guest_runs_is_not_heard)
{
	struct pc_opts o = opts_of(NEW);
	struct rec r;

	o.device = wait_for_a_page;
	rec_begin(&r, &o);
	pc_switch(&r.s);
	ck_assert(rec_until(&r, has_asked, 5000));
	inm_pause(r.s.e.inm);
	rec_settle(&r);
	check_state(&r, INM_STATE_POSTCOPY_ACTIVE);
	pc_answer(&r.s);
	rec_finish(&r);
}
END_TEST

/* ---- inm_recover ------------------------------------------------------------------------------------------------- */

static void check_refused(struct rec *r, const char *uri, int code)
{
	ck_assert_msg(inm_recover(r->s.e.inm, uri) == code, "%s in state %s", uri,
	              inm_state_name(inm_get_state(r->s.e.inm)));
}

START_TEST(test_recover_is_for_a_paused_migration)
{
	const struct pc_opts o = opts_of(NEW);
	struct rec_opts back = back_of(NEW);
	struct rec r;

	rec_begin(&r, &o);
	check_refused(&r, "tcp:127.0.0.1:0", -EBUSY);
	pc_precopy(&r.s);
	check_refused(&r, "tcp:127.0.0.1:0", -EBUSY);
	pc_switch(&r.s);
	ck_assert(rec_until(&r, rec_all_wait, 5000));
	check_refused(&r, "tcp:127.0.0.1:0", -EBUSY);
	ck_assert(rec_pause(&r, REC_BOTH, false));
	check_refused(&r, "nonsense", -EINVAL);
	check_refused(&r, "file:/dev/null", -EINVAL);
	check_refused(&r, "exec:cat", -EINVAL);
	/* None of these has closed the address. */
	back.stop = REC_ASKED;
	rec_return(&r, &back);
	ck_assert(rec_until(&r, rec_is_stopped, 5000));
	check_refused(&r, "tcp:127.0.0.1:0", -EBUSY);
	r.o.stop = REC_AWAY;
	ck_assert(rec_until(&r, rec_is_back, 5000));
	check_refused(&r, "tcp:127.0.0.1:0", -EBUSY);
	pc_answer(&r.s);
	rec_finish(&r);
}
END_TEST

/* Elsewhere, at the same place again, twice without a turn between, after an address that cannot be had. */
START_TEST(test_recover_moves_to_another_address)
{
	enum style style = (enum style)(_i / 5);
	char first[160], uri[200];
	struct wire nothing = { 0 };
	struct pump p;
	struct rec r;

	begin_waiting(&r, style);
	ck_assert(rec_pause(&r, REC_BOTH, false));
	snprintf(first, sizeof(first), "%s", r.s.address);
	snprintf(uri, sizeof(uri), "unix:%s/other", r.s.dir);
	switch (_i % 5) {
	case 0:
		rec_move(&r, "tcp:127.0.0.1:0");
		break;
	case 1:
		rec_move(&r, first);
		break;
	case 2:
		rec_move(&r, "tcp:127.0.0.1:0");
		snprintf(first, sizeof(first), "%s", r.s.address);
		rec_move(&r, uri);
		break;
	case 3:
		check_refused(&r, "tcp:192.0.2.1:4", -EADDRNOTAVAIL);
		ck_assert_ptr_null(inm_address(r.s.e.inm, 0));
		rec_settle(&r);
		ck_assert_int_lt(pump_connect(&p, &nothing, first), 0);
		rec_move(&r, "tcp:127.0.0.1:0");
		break;
	default:
		rec_move(&r, "tcp:127.0.0.1:0");
		rec_settle(&r);
		rec_move(&r, r.s.address);
	}
	if (_i % 5 == 0 || _i % 5 == 2)
		ck_assert_int_lt(pump_connect(&p, &nothing, first), 0);
	rec_settle(&r);
	check_state(&r, INM_STATE_POSTCOPY_PAUSED);
	recover_and_finish(&r, style);
}
END_TEST

START_TEST(test_recover_takes_a_connection)
{
	enum style style = _i ? NEW : NO_PREEMPT;
	int pair[2];
	char uri[32];
	struct rec r;

	begin_waiting(&r, style);
	ck_assert(rec_pause(&r, REC_BOTH, false));
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	fcntl(pair[0], F_SETFL, O_NONBLOCK);
	snprintf(uri, sizeof(uri), "fd:%d", pair[1]);
	ck_assert_int_eq(inm_recover(r.s.e.inm, uri), 0);
	r.s.lines[PC_MAIN].fd = pair[0];
	recover_and_finish(&r, style);
}
END_TEST

static void (*state_changed_before)(void *opaque, enum inm_state state);
static struct rec *recovering;

static void move_at_once(void *opaque, enum inm_state state)
{
	state_changed_before(opaque, state);
	if (state == INM_STATE_POSTCOPY_PAUSED)
		rec_move(recovering, "tcp:127.0.0.1:0");
}

START_TEST(test_recover_may_be_called_when_the_pause_is_told)
{
	struct rec r;

	begin_waiting(&r, (enum style)_i);
	recovering = &r;
	state_changed_before = r.s.e.inm->ops.state_changed;
	r.s.e.inm->ops.state_changed = move_at_once;
	ck_assert(rec_pause(&r, REC_BOTH, false));
	ck_assert_int_eq(strncmp(r.s.address, "tcp:", 4), 0);
	recover_and_finish(&r, (enum style)_i);
}
END_TEST

/* ---- before the guest runs here ---------------------------------------------------------------------------------- */

static bool has_failed(struct rec *r)
{
	return r->s.result != 1;
}

/* The source has its guest, and hears that it may go on with it: it has only stopped to send. */
START_TEST(test_a_loss_before_run_is_a_failure_that_the_source_hears_of)
{
	struct pc_opts o = opts_of(NEW);
	size_t at;
	struct rec r;

	o.device = wait_for_a_page;
	rec_begin(&r, &o);
	at = _i == 0 ? r.s.switch_at : _i == 1 ? r.s.package_at + 30 : _i == 2 ? r.s.package_end - 1 : r.s.package_end;
	pc_precopy(&r.s);
	if (_i > 0)
		pc_switch(&r.s);
	pc_allow(&r.s, at);
	if (_i == 3)
		ck_assert(rec_until(&r, has_asked, 5000));
	else
		rec_settle(&r);
	shutdown(r.s.lines[PC_MAIN].fd, SHUT_WR);
	ck_assert(rec_until(&r, has_failed, 5000));
	check_refused(&r, "tcp:127.0.0.1:0", -EBUSY);
	pc_check_failed(&r.s, r.s.result, "end|closed|ended");
	rec_end(&r);
}
END_TEST

Suite *suite(void)
{
	Suite *s = suite_create("recovery_meeting");
	TCase *t = tcase_create("early");

	tcase_set_timeout(t, 30);
	tcase_add_loop_test(t, test_a_source_that_is_back_early_is_kept_until_the_loss_shows, 0, 3 * STYLES);
	suite_add_tcase(s, t);

	t = tcase_create("strangers");
	tcase_set_timeout(t, 30);
	tcase_add_loop_test(t, test_strangers_do_not_disturb_a_recovery, 0, STYLES * STRANGERS);
	tcase_add_loop_test(t, test_a_second_main_channel_of_a_recovery_is_refused, 0, STYLES);
	tcase_add_loop_test(t, test_a_recovery_of_nothing_is_refused_and_all_goes_on, 0, STYLES);
	suite_add_tcase(s, t);

	t = tcase_create("words");
	tcase_set_timeout(t, 30);
	tcase_add_loop_test(t, test_lies_of_a_source_that_is_back_end_the_attempt, 0, STYLES);
	tcase_add_loop_test(t, test_resume_twice_is_ignored_once, 0, STYLES);
	tcase_add_loop_test(t, test_a_source_may_ask_for_bitmaps_as_often_as_it_likes, 0, 4);
	tcase_add_loop_test(t, test_a_source_that_falls_silent_in_a_recovery_is_let_go, 0, 4 * STYLES);
	suite_add_tcase(s, t);

	t = tcase_create("calls");
	tcase_set_timeout(t, 30);
	tcase_add_loop_test(t, test_pause_is_for_a_guest_in_two_halves, 0, STYLES);
	tcase_add_test(t, test_a_pause_before_the_guest_runs_is_not_heard);
	tcase_add_test(t, test_recover_is_for_a_paused_migration);
	tcase_add_loop_test(t, test_recover_moves_to_another_address, 0, 5 * STYLES);
	tcase_add_loop_test(t, test_recover_takes_a_connection, 0, 2);
	tcase_add_loop_test(t, test_recover_may_be_called_when_the_pause_is_told, 0, STYLES);
	tcase_add_loop_test(t, test_a_loss_before_run_is_a_failure_that_the_source_hears_of, 0, 4);
	suite_add_tcase(s, t);
	return s;
}
