/*
 * What the embedder may ask for around a recovery: inm_pause, and inm_recover, which moves to another address; each
 * only when it makes sense.
 */
#include "tests/support/check_main.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "engine/inm.h"
#include "tests/support/recovery_scene.h"

static const struct pc_block blocks[] = { { "pc.ram", 40, EMB_MEMFD }, { "vga.vram", 8, EMB_ANON } };

static void begin_waiting(struct rec *r, enum rec_style style)
{
	const struct pc_opts o = rec_story(blocks, style);

	rec_begin_waiting(r, &o);
}

/* ---- inm_pause --------------------------------------------------------------------------------------------------- */

static bool has_asked(struct rec *r)
{
	return pc_asked(&r->s);
}

TEST_CASE("calls", 30);

TEST_EACH(test_pause_is_for_a_guest_in_two_halves, REC_STYLES)
{
	enum rec_style style = (enum rec_style)_i;
	const struct pc_opts o = rec_story(blocks, style);
	struct rec_opts back = rec_back(style);
	struct rec r;

	rec_begin(&r, &o);
	ck_assert_int_eq(inm_pause(r.s.e.inm), -EINVAL);
	pc_precopy(&r.s);
	rec_check_state(&r, INM_STATE_ACTIVE);
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

/* Up to PONG 0x42 it would start its guest again if it lost the connection. */
TEST(test_a_pause_is_not_asked_of_a_source_that_would_take_its_guest_back)
{
	struct pc_opts o = rec_story(blocks, REC_NEW);
	struct rec r;

	o.device = pc_device_waits;
	o.modern = true;
	rec_begin(&r, &o);
	pc_switch(&r.s);
	ck_assert(rec_until(&r, has_asked, 5000));
	ck_assert_int_eq(inm_pause(r.s.e.inm), 0);
	rec_settle(&r);
	rec_check_state(&r, INM_STATE_POSTCOPY_ACTIVE);
	ck_assert_msg(strstr(r.s.said, "inm_pause"), "%s", r.s.said);
	rec_answer_and_finish(&r);
}

/* ---- inm_recover ------------------------------------------------------------------------------------------------- */

static void check_refused(struct rec *r, const char *uri, int code)
{
	ck_assert_msg(inm_recover(r->s.e.inm, uri) == code, "%s in state %s", uri,
	              inm_state_name(inm_get_state(r->s.e.inm)));
}

TEST(test_recover_is_for_a_paused_migration)
{
	const struct pc_opts o = rec_story(blocks, REC_NEW);
	struct rec_opts back = rec_back(REC_NEW);
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
	rec_answer_and_finish(&r);
}

/* Elsewhere, at the same place again, twice without a turn between, after an address that cannot be had. */
TEST_EACH(test_recover_moves_to_another_address, 5 * REC_STYLES)
{
	enum rec_style style = (enum rec_style)(_i / 5);
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
	rec_check_state(&r, INM_STATE_POSTCOPY_PAUSED);
	rec_recover_and_finish(&r, style);
}

TEST_EACH(test_recover_takes_a_connection, 2)
{
	enum rec_style style = _i ? REC_NEW : REC_NO_PREEMPT;
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
	rec_recover_and_finish(&r, style);
}

static void (*state_changed_before)(void *opaque, enum inm_state state);
static struct rec *recovering;

static void move_at_once(void *opaque, enum inm_state state)
{
	state_changed_before(opaque, state);
	if (state == INM_STATE_POSTCOPY_PAUSED)
		rec_move(recovering, "tcp:127.0.0.1:0");
}

TEST_EACH(test_recover_may_be_called_when_the_pause_is_told, REC_STYLES)
{
	struct rec r;

	begin_waiting(&r, (enum rec_style)_i);
	recovering = &r;
	state_changed_before = r.s.e.inm->callbacks.ops.state_changed;
	r.s.e.inm->callbacks.ops.state_changed = move_at_once;
	ck_assert(rec_pause(&r, REC_BOTH, false));
	ck_assert_int_eq(strncmp(r.s.address, "tcp:", 4), 0);
	rec_recover_and_finish(&r, (enum rec_style)_i);
}

/* With a loop of the embedder's own, as inm_dispatch says: only when the descriptor is readable. */
static bool polled_until(struct rec *r, enum inm_state state, unsigned ms, struct pump *p)
{
	uint64_t deadline_ns = deadline_after_ns(ms * NS_PER_MS);

	while (inm_get_state(r->s.e.inm) != state && clock_now_ns() < deadline_ns) {
		struct pollfd pfd = { .fd = inm_fd(r->s.e.inm), .events = POLLIN };

		if (p)
			pump_step(p);
		if (poll(&pfd, 1, 50) > 0)
			r->s.result = inm_dispatch(r->s.e.inm);
	}
	return inm_get_state(r->s.e.inm) == state;
}

/* A connection; and an address after one that was not available: nothing else makes the descriptor readable. */
TEST_EACH(test_recover_wakes_a_loop_that_sleeps, 2)
{
	struct pc_opts o = rec_story(blocks, REC_NO_PREEMPT);
	struct wire w = { 0 };
	struct pump p;
	char uri[32];
	struct rec r;
	int pair[2];

	o.connect_deadline = "1";
	rec_begin_paused(&r, &o);
	wire_recv_bitmap(&w, "pc.ram");
	if (_i)
		ck_assert_int_eq(inm_recover(r.s.e.inm, "tcp:192.0.2.1:4"), -EADDRNOTAVAIL);
	rec_settle(&r);
	polled_until(&r, INM_STATE_POSTCOPY_RECOVER, 6500, NULL); /* what else there was to do is done, the watch too */
	if (_i) {
		ck_assert_int_eq(inm_recover(r.s.e.inm, "tcp:127.0.0.1:0"), 0);
		ck_assert_int_eq(pump_connect(&p, &w, inm_address(r.s.e.inm, 0)), 0);
		p.end = PUMP_HOLD;
	} else {
		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
		snprintf(uri, sizeof(uri), "fd:%d", pair[1]);
		ck_assert_int_eq(inm_recover(r.s.e.inm, uri), 0);
	}
	ck_assert_msg(polled_until(&r, INM_STATE_POSTCOPY_RECOVER, 3000, _i ? &p : NULL), "silent for 3 s: state %s",
	              inm_state_name(inm_get_state(r.s.e.inm)));
	if (_i)
		pump_close(&p);
	else
		close(pair[0]);
	rec_give_up(&r);
	wire_fini(&w);
}

/* ---- before the guest runs here ---------------------------------------------------------------------------------- */

static bool has_failed(struct rec *r)
{
	return r->s.result != 1;
}

/*
 * The source has its guest, and hears that it may go on with it: it has only stopped to send. Up to the end of the
 * package, and then, where it asks whether the guest is ours, until it hears that.
 */
TEST_EACH(test_a_loss_before_run_is_a_failure_that_the_source_hears_of, 4)
{
	struct pc_opts o = rec_story(blocks, REC_NEW);
	size_t at;
	struct rec r;

	o.device = pc_device_waits;
	o.modern = _i == 3;
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
