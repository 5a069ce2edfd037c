/* What we tell and ask the embedder, and what we tell the source, in an honest migration and when the embedder says no
 * (include/inmigrate.h; doc/wire/stream.md 1.6, 3, 7.5). */
#include "tests/support/check_main.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/support/scene.h"
#include "tests/support/temp.h"

static const struct land_opts plain = { 0 };
static const struct land_opts with_return_path = { .return_path = true };

/* ---- devices ----------------------------------------------------------------------------------------------- */

TEST_CASE("told", 60);

TEST(test_devices_arrive_in_order_with_their_exact_bytes_and_description)
{
	struct scene s;

	scene_begin(&s, &(struct honest_opts){ 0 });
	scene_land(&s, &plain);
	scene_check_landed(&s);
	for (unsigned i = 0; i < s.e.device_count; i++) {
		char name[300];

		snprintf(name, sizeof(name), "\"name\": \"%s\"", s.wire.bodies[i].name);
		ck_assert_int_eq(s.e.devices[i].split, INM_SPLIT_DESCRIPTION);
		ck_assert_ptr_nonnull(s.e.devices[i].description);
		ck_assert_ptr_nonnull(strstr(s.e.devices[i].description, name));
	}
	ck_assert_int_eq(s.e.stats.split, INM_SPLIT_DESCRIPTION);
	scene_end(&s);
}

TEST(test_without_a_description_devices_are_split_by_their_footers)
{
	static const char *const params[] = { "suppress-vmdesc", "on", NULL };
	struct scene s;

	/* The last standard device holds a forged footer on purpose, which only a description can see through. */
	scene_begin(&s,
	            &(struct honest_opts){ .no_vmdesc = true, .devices = wire_standard_devices, .device_count = 4 });
	scene_land(&s, &(struct land_opts){ .params = params });
	scene_check_landed(&s);
	for (unsigned i = 0; i < s.e.device_count; i++) {
		ck_assert_int_eq(s.e.devices[i].split, INM_SPLIT_FOOTERS);
		ck_assert_ptr_null(s.e.devices[i].description);
	}
	scene_end(&s);
}

TEST(test_a_device_of_the_setup_phase_is_delivered_before_any_page)
{
	static const struct wire_device early = {
		.name = "0000:00:05.0/virtio-mem-device-early", .version_id = 1, .data = "0123456789abcdef", .bytes = 16
	};
	struct scene s;

	scene_begin(&s, &(struct honest_opts){ .early = &early });
	scene_land(&s, &plain);
	scene_check_landed(&s);
	ck_assert_str_eq(s.e.devices[0].name, early.name);
	scene_end(&s);
}

TEST(test_without_a_device_callback_the_states_are_checked_and_dropped)
{
	struct inm_ops ops = embedder_ops;
	struct scene s;

	ops.device = NULL;
	scene_begin(&s, &(struct honest_opts){ 0 });
	scene_land(&s, &(struct land_opts){ .ops = &ops });
	ck_assert_msg(s.e.result == 0, "%s", s.e.error);
	ck_assert_uint_eq(s.e.device_count, 0);
	ck_assert_uint_eq(embedder_compare(&s.e, &s.image), 0);
	scene_end(&s);
}

/* ---- run state, states, trace ------------------------------------------------------------------------------ */

static void run_state_is(const char *sent, const char *told)
{
	struct scene s;

	scene_begin(&s, &(struct honest_opts){ .run_state = sent });
	scene_land(&s, &plain);
	scene_check_landed(&s);
	ck_assert_str_eq(s.e.run_state, told);
	scene_end(&s);
}

TEST(test_the_run_state_is_that_of_globalstate)
{
	run_state_is("running", "running");
	run_state_is("paused", "paused");
	run_state_is("postmigrate", "postmigrate");
}

TEST(test_without_globalstate_there_is_no_run_state)
{
	run_state_is("", "(null)");
}

TEST(test_states_are_setup_active_completed)
{
	char text[200];
	struct scene s;

	scene_begin(&s, &(struct honest_opts){ 0 });
	scene_land(&s, &plain);
	ck_assert_str_eq(embedder_states(&s.e, text, sizeof(text)), "setup active completed");
	scene_end(&s);
}

TEST(test_trace_has_a_line_for_every_element)
{
	struct inm_ops ops = embedder_ops;
	struct scene s;

	ops.trace = embedder_trace;
	scene_begin(&s, &(struct honest_opts){ .return_path = true });
	scene_land(&s, &(struct land_opts){ .ops = &ops, .return_path = true });
	scene_check_landed(&s);
	ck_assert_uint_gt(s.e.trace_lines, s.wire.body_count + 10);
	scene_end(&s);
}

/* ---- the return path --------------------------------------------------------------------------------------- */

static void replies_are(const struct honest_opts *opts, const struct land_opts *land_opts, const char *expected)
{
	char text[400];
	struct scene s;

	scene_begin(&s, opts);
	scene_land(&s, land_opts);
	scene_check_landed(&s);
	ck_assert_str_eq(source_reply_text(&s.report, text, sizeof(text)), expected);
	ck_assert_uint_eq(s.report.written, s.wire.len);
	scene_end(&s);
}

TEST_CASE("replies", 60);

TEST(test_the_replies_are_pong_and_last_shut_0)
{
	replies_are(&(struct honest_opts){ .return_path = true }, &with_return_path, "PONG 1, SHUT 0");
}

TEST(test_switchover_ack_is_sent_once_to_a_source_that_waits_for_it)
{
	static const char *const caps[] = { "switchover-ack", NULL };

	replies_are(&(struct honest_opts){ .return_path = true, .machine = "pc-i440fx-8.1" },
	            &(struct land_opts){ .return_path = true, .caps = caps }, "SWITCHOVER_ACK, PONG 1, SHUT 0");
}

TEST(test_switchover_ack_is_not_sent_unasked_to_a_source_that_counts_them)
{
	static const char *const caps[] = { "switchover-ack", NULL };

	replies_are(&(struct honest_opts){ .return_path = true, .machine = "pc-i440fx-11.1" },
	            &(struct land_opts){ .return_path = true, .caps = caps }, "PONG 1, SHUT 0");
}

TEST(test_every_ping_is_answered_with_its_value_in_order)
{
	char text[400];
	struct scene s;

	scene_begin(&s, &(struct honest_opts){ .return_path = true });
	for (unsigned i = 0; i < 3; i++) {
		struct wire ping = { 0 };

		wire_ping(&ping, i == 2 ? 0xffffffff : 7 + i);
		wire_insert(&s.wire, wire_find(&s.wire, "PART", 0), ping.data, ping.len);
		wire_fini(&ping);
	}
	scene_land(&s, &with_return_path);
	ck_assert_msg(s.e.result == 0, "%s", s.e.error);
	ck_assert_str_eq(source_reply_text(&s.report, text, sizeof(text)),
	                 "PONG 1, PONG 7, PONG 8, PONG 4294967295, SHUT 0");
	scene_end(&s);
}

/* ---- the embedder says no ---------------------------------------------------------------------------------- */

static void refused(struct scene *s, int code, const char *word)
{
	char text[400];

	ck_assert_int_eq(scene_land(s, &with_return_path), code);
	ck_assert_msg(strstr(s->e.error, word) != NULL, "'%s' is not in: %s", word, s->e.error);
	ck_assert_str_eq(source_reply_text(&s->report, text, sizeof(text)), "PONG 1, SHUT 1");
	ck_assert_int_eq(s->e.stats.state, INM_STATE_FAILED);
}

TEST(test_a_refused_block_ends_the_migration_and_the_source_is_told)
{
	struct scene s;

	scene_begin(&s, &(struct honest_opts){ .return_path = true });
	s.e.fail_ram_block = -EDQUOT;
	refused(&s, -EDQUOT, "pc.ram");
	ck_assert_uint_eq(s.e.start_calls, 0);
	scene_end(&s);
}

TEST(test_a_refused_device_ends_the_migration_and_the_source_is_told)
{
	struct scene s;

	scene_begin(&s, &(struct honest_opts){ .return_path = true });
	s.e.fail_device = -EILSEQ;
	s.e.fail_device_nth = 1;
	refused(&s, -EILSEQ, "pci-serial");
	ck_assert_uint_eq(s.e.device_count, 1);
	ck_assert_uint_eq(s.e.start_calls, 0);
	scene_end(&s);
}

TEST(test_a_refused_start_ends_the_migration_and_the_source_is_told)
{
	char text[200];
	struct scene s;

	scene_begin(&s, &(struct honest_opts){ .return_path = true });
	s.e.fail_start = -EPERM;
	refused(&s, -EPERM, "refused here");
	ck_assert_uint_eq(s.e.start_calls, 1);
	ck_assert_str_eq(embedder_states(&s.e, text, sizeof(text)), "setup active failed");
	scene_end(&s);
}

/* ---- transports, and the two ways to run ------------------------------------------------------------------- */

TEST_CASE("running", 60);

static void lands_at(const char *uri)
{
	struct scene s;

	scene_begin(&s, &(struct honest_opts){ .return_path = true });
	scene_land(&s, &(struct land_opts){ .return_path = true, .uri = uri });
	scene_check_landed(&s);
	ck_assert_uint_eq(source_reply_value(&s.report, WIRE_RP_SHUT, 0), 0);
	scene_end(&s);
}

TEST(test_a_stream_lands_over_tcp)
{
	lands_at("tcp:127.0.0.1:0");
}

TEST(test_a_stream_lands_over_a_unix_socket)
{
	char dir[TEMP_NAME_BYTES], uri[100];

	temp_name(dir, "test");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(uri, sizeof(uri), "unix:%s/sock", dir);
	lands_at(uri);
	unlink(uri + 5);
	ck_assert_int_eq(rmdir(dir), 0);
}

TEST(test_run_and_dispatch_give_the_same)
{
	struct scene a, b;

	scene_begin(&a, &(struct honest_opts){ .return_path = true, .rounds = 3 });
	scene_land(&a, &with_return_path);
	scene_check_landed(&a);
	scene_begin(&b, &(struct honest_opts){ .return_path = true, .rounds = 3 });
	scene_land(&b, &(struct land_opts){ .return_path = true, .by_dispatch = true });
	scene_check_landed(&b);
	ck_assert_uint_eq(a.e.stats.main_bytes, b.e.stats.main_bytes);
	ck_assert_uint_eq(a.e.stats.normal_pages, b.e.stats.normal_pages);
	ck_assert_uint_eq(a.report.reply_count, b.report.reply_count);
	scene_end(&b);
	scene_end(&a);
}

TEST(test_the_descriptor_ends_a_poll_that_sleeps_on_it)
{
	static const char *const where[] = { "START", "record", "PART", "END", "FULL", "vmdesc" };
	struct source_pause pauses[6];
	struct scene s;

	scene_begin(&s, &(struct honest_opts){ .return_path = true });
	for (unsigned i = 0; i < 6; i++)
		pauses[i] = (struct source_pause){ .off = wire_find(&s.wire, where[i], 0) + 2, .ms = 30 };
	scene_land(&s,
	           &(struct land_opts){ .return_path = true, .by_dispatch = true, .pauses = pauses, .pause_count = 6 });
	scene_check_landed(&s);
	ck_assert_uint_eq(s.e.lost_wakeups, 0);
	scene_end(&s);
}

TEST(test_run_and_dispatch_give_the_same_error)
{
	const struct land_opts by_dispatch = { .by_dispatch = true };
	struct scene a, b;

	scene_begin(&a, &(struct honest_opts){ 0 });
	scene_begin(&b, &(struct honest_opts){ 0 });
	a.wire.data[wire_find(&a.wire, "PART", 0)] = 0x77;
	b.wire.data[wire_find(&b.wire, "PART", 0)] = 0x77;
	ck_assert_int_eq(scene_land(&a, &plain), -EPROTO);
	ck_assert_int_eq(scene_land(&b, &by_dispatch), -EPROTO);
	ck_assert_str_eq(a.e.error, b.e.error);
	scene_end(&b);
	scene_end(&a);
}

/* ---- deadlines --------------------------------------------------------------------------------------------- */

TEST(test_run_until_ends_in_time_while_the_source_is_silent_and_goes_on_later)
{
	struct pump p;
	struct scene s;
	uint64_t began_ns;
	int r;

	scene_begin(&s, &(struct honest_opts){ 0 });
	land_new(&s.e, &plain);
	ck_assert_int_eq(land_listen_fd(&s.e, pump_open(&p, &s.wire)), 0);
	for (p.stop_at = 0; p.stop_at < s.wire.len; p.stop_at += 20000) {
		p.end = PUMP_HOLD;
		pump_step(&p);
		began_ns = clock_now_ns();
		ck_assert_int_eq(inm_run_until(s.e.inm, began_ns + 30 * NS_PER_MS), -ETIMEDOUT);
		ck_assert_uint_ge(clock_now_ns() - began_ns, 30 * NS_PER_MS);
		ck_assert_uint_lt(clock_now_ns() - began_ns, 2 * NS_PER_S);
	}
	p.stop_at = s.wire.len;
	p.end = PUMP_CLOSE;
	while (pump_step(&p))
		;
	r = inm_run_until(s.e.inm, deadline_after_ns(10 * NS_PER_S));
	ck_assert_msg(r == 0, "%d: %s", r, inm_error(s.e.inm));
	s.e.result = r;
	scene_check_landed(&s);
	pump_close(&p);
	scene_end(&s);
}

TEST(test_a_deadline_in_the_past_returns_at_once)
{
	struct pump p;
	struct scene s;

	scene_begin(&s, &(struct honest_opts){ 0 });
	land_new(&s.e, &plain);
	ck_assert_int_eq(land_listen_fd(&s.e, pump_open(&p, &s.wire)), 0);
	ck_assert_int_eq(inm_run_until(s.e.inm, 1), -ETIMEDOUT);
	ck_assert_int_eq(inm_run_until(s.e.inm, 0), -ETIMEDOUT);
	pump_close(&p);
	scene_end(&s);
}
