/*
 * The ends of a migration: which ones are possible, in which order the embedder and the source hear of one, and that
 * what was said about it stays true (include/inmigrate.h; doc/wire/stream.md 1.6, 3).
 */
#include "tests/support/check_main.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/list.h"
#include "tests/support/scene.h"
#include "tests/support/temp.h"

/* A scene whose embedder keeps to the two steps: ready, then start_vcpus. */
struct tale {
	struct scene s;
	struct pump p;
	int dest_fd;     /* the destination's end of the pump */
	char trail[100]; /* what came, in order */
	unsigned ready_calls, vcpus_started;
	uint32_t told_before; /* SHUT replies that were on the wire when start_vcpus was called */
	bool stuff;           /* in ready: fill the way back, so that the next reply has to wait */
	size_t stuffed_bytes;
	bool give_up_in_ready; /* the source closes */
};

static struct tale *tale_of(void *opaque)
{
	return container_of(opaque, struct tale, s.e);
}

static void note(struct tale *t, const char *what)
{
	size_t at = strlen(t->trail);

	snprintf(t->trail + at, sizeof(t->trail) - at, "%s%s", at ? " " : "", what);
}

static void stuff_way_back(struct tale *t)
{
	static const char junk[4096];
	ssize_t n;

	while ((n = send(t->dest_fd, junk, sizeof(junk), MSG_DONTWAIT | MSG_NOSIGNAL)) > 0)
		t->stuffed_bytes += (size_t)n;
	while ((n = send(t->dest_fd, junk, 1, MSG_DONTWAIT | MSG_NOSIGNAL)) > 0)
		t->stuffed_bytes += (size_t)n;
}

static int on_ready(void *opaque, const char *run_state)
{
	struct tale *t = tale_of(opaque);

	t->ready_calls++;
	note(t, "ready");
	pump_step(&t->p);
	if (source_reply_count(&t->p.report, WIRE_RP_SHUT))
		note(t, "told-too-early");
	if (t->stuff)
		stuff_way_back(t);
	if (t->give_up_in_ready)
		pump_close(&t->p);
	return embedder_ops.ready(opaque, run_state);
}

static void on_start_vcpus(void *opaque, const char *run_state)
{
	struct tale *t = tale_of(opaque);

	ck_assert_str_eq(run_state, "running");
	pump_step(&t->p);
	if (source_reply_count(&t->p.report, WIRE_RP_SHUT))
		note(t, source_reply_value(&t->p.report, WIRE_RP_SHUT, 0) == 0 ? "SHUT-0" : "SHUT-1");
	t->vcpus_started++;
	note(t, "start_vcpus");
}

static void on_state(void *opaque, enum inm_state state)
{
	note(tale_of(opaque), inm_state_name(state));
	embedder_ops.state_changed(opaque, state);
}

static struct inm_ops tale_ops(void)
{
	struct inm_ops ops = embedder_ops;

	ops.ready = on_ready;
	ops.start_vcpus = on_start_vcpus;
	ops.state_changed = on_state;
	return ops;
}

static void tale_begin(struct tale *t, const struct honest_opts *opts)
{
	*t = (struct tale){ .dest_fd = -1, .p.fd = -1 };
	scene_begin(&t->s, opts);
}

static void tale_end(struct tale *t)
{
	pump_close(&t->p);
	scene_end(&t->s);
}

/* A pump that only stops when it is told to, and the migration it feeds. */
static void tale_listen(struct tale *t, bool return_path)
{
	struct inm_ops ops = tale_ops();

	t->dest_fd = pump_open(&t->p, &t->s.wire);
	t->p.end = PUMP_HOLD;
	t->p.return_path = return_path;
	land_new(&t->s.e, &(struct land_opts){ .ops = &ops, .return_path = return_path });
	ck_assert_int_eq(land_listen_fd(&t->s.e, t->dest_fd), 0);
}

/* Both sides until the migration has ended, or nothing more happens for @quiet_ms. Return: of inm_dispatch. */
static int play(struct tale *t, unsigned quiet_ms)
{
	uint64_t quiet_ns = deadline_after_ns(quiet_ms * NS_PER_MS);
	int r;

	while ((r = inm_dispatch(t->s.e.inm)) == 1 && clock_now_ns() < quiet_ns) {
		struct pollfd pfd = { .fd = inm_fd(t->s.e.inm), .events = POLLIN };

		if (pump_step(&t->p))
			quiet_ns = deadline_after_ns(quiet_ms * NS_PER_MS);
		else
			poll(&pfd, 1, 1);
	}
	return r;
}

/* ---- no end without a beginning ---------------------------------------------------------------------------- */

static void check_nothing_to_run(struct inm *inm)
{
	ck_assert_int_eq(inm_run(inm), -EINVAL);
	ck_assert_int_eq(inm_run_until(inm, deadline_after_ns(NS_PER_MS)), -EINVAL);
	ck_assert_int_eq(inm_dispatch(inm), -EINVAL);
	ck_assert_int_eq(inm_get_state(inm), INM_STATE_NONE);
}

TEST_CASE("lifecycle", 60);

TEST(test_run_without_a_listen_that_worked_is_a_mistake_and_no_success)
{
	static const char *const bad[] = { "tcp:127.0.0.1:1:2",      "nonsense", "unix:/nonexistent/folder/socket",
		                           "file:/nonexistent/file", "fd:9999",  "tcp:127.0.0.1:0,to=zero" };
	struct scene s;

	scene_begin(&s, &(struct honest_opts){ 0 });
	land_new(&s.e, &(struct land_opts){ 0 });
	check_nothing_to_run(s.e.inm);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ck_assert_int_lt(inm_listen(s.e.inm, bad[i]), 0);
		ck_assert_str_ne(inm_error(s.e.inm), "no error");
		check_nothing_to_run(s.e.inm);
	}
	scene_end(&s);
}

TEST(test_after_a_listen_that_failed_one_that_works_lands_and_no_error_stays)
{
	struct tale t;

	tale_begin(&t, &(struct honest_opts){ 0 });
	t.dest_fd = pump_open(&t.p, &t.s.wire);
	land_new(&t.s.e, &(struct land_opts){ 0 });
	ck_assert_int_eq(inm_set_capability(t.s.e.inm, "nonsense", true), -ENOENT);
	ck_assert_int_eq(inm_set_parameter(t.s.e.inm, "multifd-channels", "0"), -ERANGE);
	ck_assert_int_lt(inm_listen(t.s.e.inm, "unix:/nonexistent/folder/socket"), 0);
	ck_assert_str_ne(inm_error(t.s.e.inm), "no error");
	ck_assert_int_eq(land_listen_fd(&t.s.e, t.dest_fd), 0);
	ck_assert_str_eq(inm_error(t.s.e.inm), "no error");
	ck_assert_int_eq(play(&t, 5000), 0);
	ck_assert_str_eq(inm_error(t.s.e.inm), "no error");
	tale_end(&t);
}

TEST(test_the_story_of_a_failed_migration_is_not_overwritten)
{
	struct scene s;
	char story[1024];

	scene_begin(&s, &(struct honest_opts){ 0 });
	s.wire.data[0] ^= 0xff;
	land_new(&s.e, &(struct land_opts){ 0 });
	{
		struct pump p;

		ck_assert_int_eq(land_listen_fd(&s.e, pump_open(&p, &s.wire)), 0);
		while (pump_step(&p))
			;
		ck_assert_int_eq(inm_run_until(s.e.inm, deadline_after_ns(5 * NS_PER_S)), -EPROTO);
		pump_close(&p);
	}
	snprintf(story, sizeof(story), "%s", inm_error(s.e.inm));
	ck_assert_ptr_nonnull(strstr(story, "incoming: "));
	ck_assert_int_eq(inm_set_capability(s.e.inm, "return-path", true), -EBUSY);
	ck_assert_int_eq(inm_set_parameter(s.e.inm, "nonsense", "1"), -EBUSY);
	ck_assert_int_eq(inm_listen(s.e.inm, "tcp:127.0.0.1:0"), -EBUSY);
	ck_assert_int_eq(inm_listen(s.e.inm, "nonsense"), -EINVAL);
	ck_assert_str_eq(inm_error(s.e.inm), story);
	ck_assert_int_eq(inm_run(s.e.inm), -EPROTO);
	scene_end(&s);
}

/* ---- codes that mean something else ------------------------------------------------------------------------- */

/* @where: 0 ram_block, 1 device, 2 ready. */
static void callback_fails_with(int code, unsigned where, bool by_dispatch)
{
	char text[100];
	struct scene s;
	int r;

	scene_begin(&s, &(struct honest_opts){ .return_path = true });
	*(where == 0 ? &s.e.fail_ram_block : where == 1 ? &s.e.fail_device : &s.e.fail_start) = code;
	r = scene_land(&s, &(struct land_opts){ .return_path = true, .by_dispatch = by_dispatch });
	ck_assert_msg(r < 0 && r != -ETIMEDOUT && r != -ECANCELED, "%d in callback %u: %d", code, where, r);
	ck_assert_int_eq(s.e.stats.state, INM_STATE_FAILED);
	ck_assert_msg(strstr(s.e.error, "refused here") || where == 1, "%s", s.e.error);
	ck_assert_uint_gt(strlen(s.e.error), 20);
	ck_assert_str_eq(embedder_states(&s.e, text, sizeof(text)), "setup active failed");
	ck_assert_uint_eq(source_reply_value(&s.report, WIRE_RP_SHUT, 0), 1);
	scene_end(&s);
}

TEST(test_a_migration_that_timed_out_inside_has_failed_and_is_not_still_under_way)
{
	for (unsigned where = 0; where < 3; where++)
		for (unsigned by_dispatch = 0; by_dispatch < 2; by_dispatch++)
			callback_fails_with(-ETIMEDOUT, where, by_dispatch);
}

TEST(test_a_callback_that_says_cancelled_is_a_failure_with_a_story)
{
	for (unsigned where = 0; where < 3; where++)
		callback_fails_with(-ECANCELED, where, where % 2);
}

/* ---- in which order ----------------------------------------------------------------------------------------- */

TEST(test_the_guest_is_accepted_then_the_source_told_then_the_guest_run)
{
	struct tale t;

	tale_begin(&t, &(struct honest_opts){ .return_path = true });
	tale_listen(&t, true);
	t.p.end = PUMP_HONEST;
	ck_assert_int_eq(play(&t, 5000), 0);
	ck_assert_str_eq(t.trail, "setup active ready SHUT-0 start_vcpus completed");
	tale_end(&t);
}

TEST(test_without_a_return_path_the_guest_is_accepted_and_run)
{
	struct tale t;

	tale_begin(&t, &(struct honest_opts){ 0 });
	tale_listen(&t, false);
	t.p.end = PUMP_CLOSE;
	ck_assert_int_eq(play(&t, 5000), 0);
	ck_assert_str_eq(t.trail, "setup active ready start_vcpus completed");
	tale_end(&t);
}

TEST(test_a_guest_that_is_refused_is_never_run_and_the_source_told_so)
{
	struct tale t;

	tale_begin(&t, &(struct honest_opts){ .return_path = true });
	t.s.e.fail_start = -ENOSPC;
	tale_listen(&t, true);
	ck_assert_int_eq(play(&t, 5000), -ENOSPC);
	pump_step(&t.p);
	ck_assert_str_eq(t.trail, "setup active ready failed");
	ck_assert_uint_eq(source_reply_count(&t.p.report, WIRE_RP_SHUT), 1);
	ck_assert_uint_eq(source_reply_value(&t.p.report, WIRE_RP_SHUT, 0), 1);
	tale_end(&t);
}

/* Either it is over there, or it is over here. */
static void check_one_guest(struct tale *t, int result)
{
	unsigned told = source_reply_count(&t->p.report, WIRE_RP_SHUT);
	bool told_success = told && source_reply_value(&t->p.report, WIRE_RP_SHUT, 0) == 0;

	ck_assert_uint_le(told, 1);
	ck_assert_msg(result == 0 || result == -ECANCELED, "%d: %s", result, t->s.e.error);
	ck_assert_msg((result == 0) == told_success, "result %d, %s", result, t->trail);
	ck_assert_msg(t->vcpus_started == (result == 0), "result %d, %s", result, t->trail);
	ck_assert_msg(result != 0 || strstr(t->trail, "SHUT-0 start_vcpus completed"), "%s", t->trail);
}

TEST(test_a_cancel_at_any_step_leaves_the_guest_to_exactly_one_side)
{
	struct inm_ops ops = tale_ops();
	unsigned landed = 0, cancelled = 0;

	for (unsigned k = 0; landed < 3; k++) {
		struct tale t;
		int r;

		tale_begin(&t, &(struct honest_opts){ .return_path = true });
		t.dest_fd = pump_open(&t.p, &t.s.wire);
		t.p.chunk_bytes = 1021;
		r = land_pump(&t.s.e, &t.p, t.dest_fd, &(struct land_opts){ .return_path = true, .ops = &ops }, k,
		              NULL);
		check_one_guest(&t, r);
		*(r ? &cancelled : &landed) += 1;
		tale_end(&t);
	}
	ck_assert_uint_gt(cancelled, 20);
}

TEST(test_a_cancel_from_ready_is_heard_and_one_from_start_vcpus_is_too_late)
{
	struct tale t;
	int r;

	tale_begin(&t, &(struct honest_opts){ .return_path = true });
	t.s.e.cancel_in_start = 1; /* the embedder's ready */
	tale_listen(&t, true);
	r = play(&t, 5000);
	pump_step(&t.p);
	ck_assert_int_eq(r, -ECANCELED);
	ck_assert_str_eq(t.trail, "setup active ready cancelled");
	check_one_guest(&t, r);
	tale_end(&t);
}

/* The one moment in which neither side has the guest: the reply is on its way and cannot be taken back. */
TEST(test_a_cancel_while_the_source_is_being_told_is_too_late)
{
	struct tale t;
	size_t drained = 0;
	char scrap[4096];
	int r;

	tale_begin(&t, &(struct honest_opts){ .return_path = true });
	t.stuff = true;
	tale_listen(&t, true);
	for (uint64_t end_ns = deadline_after_ns(5 * NS_PER_S); !t.stuffed_bytes && clock_now_ns() < end_ns;) {
		ck_assert_int_eq(inm_dispatch(t.s.e.inm), 1);
		if (!t.stuffed_bytes)
			pump_step(&t.p);
	}
	ck_assert_uint_gt(t.stuffed_bytes, 0);
	inm_cancel(t.s.e.inm);
	for (unsigned i = 0; i < 20; i++) {
		ck_assert_int_eq(inm_dispatch(t.s.e.inm), 1);
		usleep(1000);
	}
	ck_assert_uint_eq(t.vcpus_started, 0);
	while (drained < t.stuffed_bytes) {
		size_t left = t.stuffed_bytes - drained;
		ssize_t n = read(t.p.fd, scrap, left < sizeof(scrap) ? left : sizeof(scrap));

		ck_assert_int_gt(n, 0);
		drained += (size_t)n;
	}
	t.p.end = PUMP_HONEST;
	r = play(&t, 5000);
	ck_assert_str_eq(t.trail, "setup active ready SHUT-0 start_vcpus completed");
	check_one_guest(&t, r);
	tale_end(&t);
}

/* ---- a source that goes, or stays ---------------------------------------------------------------------------- */

/* All is written and the connection closed before the first byte is read: without a PING nobody notices on the way. */
static void source_closes_at_once(bool by_tcp, bool return_path)
{
	char uri[100] = "tcp:127.0.0.1:0", dir[TEMP_NAME_BYTES];
	struct inm_ops ops = tale_ops();
	struct source_report report;
	struct source src;
	struct tale t;
	int r;

	if (!by_tcp) {
		temp_name(dir, "test");
		ck_assert_ptr_nonnull(mkdtemp(dir));
		snprintf(uri, sizeof(uri), "unix:%s/socket", dir);
	}
	tale_begin(&t, &(struct honest_opts){ .return_path = return_path, .rounds = 1 });
	if (return_path) {
		size_t ping = wire_find(&t.s.wire, "command", 1);

		wire_delete(&t.s.wire, ping, wire_find(&t.s.wire, "START", 0) - ping);
	}
	land_new(&t.s.e, &(struct land_opts){ .return_path = return_path, .ops = &ops });
	ck_assert_int_eq(inm_listen(t.s.e.inm, uri), 0);
	source_play_uri(&src, &(struct source_plan){ .wire = &t.s.wire, .end = SOURCE_END_CLOSE },
	                inm_address(t.s.e.inm, 0));
	source_wait(&src, &report);
	ck_assert_uint_eq(report.written, t.s.wire.len);
	r = inm_run_until(t.s.e.inm, deadline_after_ns(5 * NS_PER_S));
	if (return_path) {
		ck_assert_int_eq(r, -ENODATA);
		ck_assert_msg(strstr(inm_error(t.s.e.inm), "without waiting to be told"), "%s", inm_error(t.s.e.inm));
		ck_assert_str_eq(t.trail, "setup active failed");
	} else {
		ck_assert_int_eq(r, 0);
		ck_assert_str_eq(t.trail, "setup active ready start_vcpus completed");
	}
	ck_assert_uint_eq(t.vcpus_started, !return_path);
	tale_end(&t);
	if (!by_tcp)
		ck_assert_int_eq(rmdir(dir), 0);
}

TEST(test_a_source_that_closes_instead_of_waiting_keeps_its_guest)
{
	source_closes_at_once(true, true);
	source_closes_at_once(false, true);
}

TEST(test_a_source_without_return_path_that_closes_has_given_its_guest_away)
{
	source_closes_at_once(true, false);
	source_closes_at_once(false, false);
}

TEST(test_a_source_without_return_path_that_stays_connected_is_not_waited_for)
{
	struct tale t;
	uint64_t sent_ns = 0;
	int r;

	tale_begin(&t, &(struct honest_opts){ 0 });
	tale_listen(&t, false);
	while ((r = inm_dispatch(t.s.e.inm)) == 1) {
		pump_step(&t.p);
		if (!sent_ns && t.p.written == t.p.stop_at)
			sent_ns = clock_now_ns();
		ck_assert_msg(!sent_ns || clock_now_ns() - sent_ns < 3 * NS_PER_S, "it waits for a close");
	}
	ck_assert_int_eq(r, 0);
	ck_assert_uint_lt(clock_now_ns() - sent_ns, NS_PER_S / 2);
	/* It has not closed, or not before the destination had. */
	ck_assert(t.p.fd >= 0 || t.p.report.peer_closed);
	tale_end(&t);
}

/* Accepting may take long, a disk is written meanwhile: a source that goes away in that time has not waited either. */
TEST(test_a_source_that_closes_while_the_guest_is_being_accepted_keeps_it)
{
	struct inm_ops ops = tale_ops();
	struct tale t;

	tale_begin(&t, &(struct honest_opts){ .return_path = true });
	t.give_up_in_ready = true;
	land_new(&t.s.e, &(struct land_opts){ .ops = &ops, .return_path = true });
	ck_assert_int_eq(inm_listen(t.s.e.inm, "tcp:127.0.0.1:0"), 0);
	t.p = (struct pump){ .wire = &t.s.wire, .stop_at = t.s.wire.len, .return_path = true, .end = PUMP_HOLD };
	t.p.fd = source_connect(inm_address(t.s.e.inm, 0), 0);
	ck_assert_int_lt(play(&t, 5000), 0);
	ck_assert_str_eq(t.trail, "setup active ready failed");
	ck_assert_msg(strstr(inm_error(t.s.e.inm), "without waiting to be told"), "%s", inm_error(t.s.e.inm));
	tale_end(&t);
}

/* ---- no guest without memory --------------------------------------------------------------------------------- */

enum live { LIVE_NONE, LIVE_BITMAPS, LIVE_RAM_WITHOUT_A_LIST };

/* 7.6: a live handler that is not RAM, and says nothing; and RAM of which no block was announced. */
static void live_section(struct wire *w, enum live live)
{
	for (unsigned i = 0; live != LIVE_NONE && i < 2; i++) {
		if (i == 0 && live == LIVE_BITMAPS)
			wire_section(w, WIRE_START, 3, "dirty-bitmap", 0, 1);
		else if (i == 0)
			wire_section(w, WIRE_START, 3, "ram", 0, 4);
		else
			wire_part(w, WIRE_END, 3);
		if (live == LIVE_BITMAPS)
			wire_u8(w, 0x01);
		else
			wire_eos(w);
		wire_footer(w, 3);
	}
}

static void does_not_land(enum live live, unsigned devices, const char *why)
{
	static const char *const caps[] = { "dirty-bitmaps", NULL };
	struct inm_ops ops = tale_ops();
	struct tale t;

	tale_begin(&t, NULL);
	wire_header(&t.s.wire);
	wire_config(&t.s.wire, "pc-i440fx-7.2");
	live_section(&t.s.wire, live);
	for (unsigned i = 0; i < devices; i++)
		wire_device(&t.s.wire, 10 + i, &wire_standard_devices[i]);
	wire_eof(&t.s.wire);
	wire_vmdesc(&t.s.wire);
	t.dest_fd = pump_open(&t.p, &t.s.wire);
	t.p.end = PUMP_CLOSE;
	land_new(&t.s.e, &(struct land_opts){ .ops = &ops, .caps = caps });
	ck_assert_int_eq(land_listen_fd(&t.s.e, t.dest_fd), 0);
	ck_assert_int_lt(play(&t, 5000), 0);
	/* Active: something of the guest is here, and without RAM that is a device. */
	ck_assert_str_eq(t.trail, t.s.e.device_count > 0 ? "setup active failed" : "setup failed");
	ck_assert_msg(strstr(inm_error(t.s.e.inm), why), "%s", inm_error(t.s.e.inm));
	tale_end(&t);
}

TEST(test_a_stream_without_ram_does_not_land)
{
	does_not_land(LIVE_NONE, 0, "before RAM has ended");
	does_not_land(LIVE_NONE, 4, "the source closed the stream");
	does_not_land(LIVE_BITMAPS, 0, "before RAM has ended");
	does_not_land(LIVE_BITMAPS, 4, "before RAM has ended");
	does_not_land(LIVE_RAM_WITHOUT_A_LIST, 0, "ram");
	does_not_land(LIVE_RAM_WITHOUT_A_LIST, 4, "ram");
}
