/* A set-up that does not finish: missing channels, too many channels, a source that dies. */
#include "tests/support/check_main.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "tests/support/said.h"
#include "tests/support/several.h"

/* ---- numbers that differ --------------------------------------------------------------------------------------- */

TEST_CASE("numbers", 60);

TEST_EACH(test_fewer_channels_than_expected_are_a_named_error_by_the_deadline, 3)
{
	static const struct {
		unsigned there, here;
		const char *words;
	} rows[] = { { 1, 2, "1 of 2 multifd channels" }, { 2, 4, "2 of 4 multifd channels" }, { 2, 255, "2 of 255" } };
	const struct multifd_opts m = { .channels = rows[_i].there, .return_path = true };
	uint64_t began_ns = clock_now_ns();
	struct several s;

	several_begin(&s, &m, &(struct several_opts){ .channels_here = rows[_i].here, .deadline_s = "1" });
	several_connect_all(&s);
	several_finish(&s);
	ck_assert_uint_lt(clock_now_ns() - began_ns, 3 * NS_PER_S);
	several_check_failed(&s, -ECONNABORTED, rows[_i].words);
	ck_assert_msg(strstr(s.scene.e.error, "multifd-channels"), "%s", s.scene.e.error);
	ck_assert_uint_eq(source_reply_value(&s.lines[0].report, WIRE_RP_SHUT, 0), 1);
	several_end(&s);
}

/* The refused channel is what the source will fail of; the error that follows from it names the cause. */
TEST_EACH(test_more_channels_than_expected_are_refused_and_named_in_the_final_error, 3)
{
	static const unsigned rows[][2] = { { 2, 1 }, { 4, 2 }, { 3, 2 } };
	const struct multifd_opts m = { .channels = rows[_i][0] };
	struct several s;
	bool closed = false;

	several_begin(&s, &m, &(struct several_opts){ .channels_here = rows[_i][1], SAID });
	several_connect_all(&s);
	for (unsigned i = 0; i < s.line_count; i++)
		several_allow(&s, i, i ? 64 : wire_find(&s.h.main, "PART", 0));
	several_settle(&s);
	for (unsigned i = 1; i < s.line_count; i++)
		closed |= s.lines[i].report.peer_closed;
	ck_assert_msg(closed, "no channel was refused");
	/* A source whose channel breaks gives up. */
	for (unsigned i = 0; i < s.line_count; i++)
		several_close(&s, i);
	several_run(&s, 3000);
	several_check_failed(&s, -ENODATA, "multifd-channels");
	several_end(&s);
}

/*
 * A 7.2 source with a return path has then failed, and says so to its user, but keeps its main connection open and
 * silent: waiting for its end would mean waiting forever.
 */
TEST(test_more_channels_than_expected_are_an_error_though_the_source_stays)
{
	const struct multifd_opts m = { .channels = 4, .return_path = true };
	struct several s;

	several_begin(&s, &m, &(struct several_opts){ .channels_here = 2, .deadline_s = "1" });
	several_connect_all(&s);
	for (unsigned i = 0; i < s.line_count; i++)
		several_allow(&s, i, i ? 64 : wire_find(&s.h.main, "START", 0));
	several_run(&s, 4000);
	several_check_failed(&s, s.result, "multifd-channels");
	ck_assert_int_lt(s.result, 0);
	several_end(&s);
}

/* Its first round has begun, its other channels have ended, and main stays, silent in the middle of a section. */
TEST(test_a_source_that_fails_in_its_first_round_and_stays_is_an_error)
{
	const struct multifd_opts m = { .channels = 4, .return_path = true, .per_section = true };
	struct several s;

	several_begin(&s, &m, &(struct several_opts){ .channels_here = 2, .deadline_s = "1" });
	several_connect_all(&s);
	for (unsigned i = 1; i < s.line_count; i++)
		several_allow(&s, i, wire_find(several_wire(&s, i), "interval", 0));
	several_allow(&s, SEVERAL_MAIN, wire_find(&s.h.main, "PART", 0) + 7);
	several_settle(&s);
	for (unsigned i = 1; i < s.line_count; i++)
		several_close(&s, i);
	several_run(&s, 6000);
	several_check_failed(&s, s.result, "multifd-channels");
	ck_assert_int_lt(s.result, 0);
	several_end(&s);
}

/* Main never speaks, and the log has only warnings: they tell a user what to change. Once is enough. */
TEST(test_a_channel_that_is_refused_for_its_id_is_said_at_the_default_level)
{
	const struct multifd_opts m = { .channels = 6 };
	const char *words = "set multifd-channels to the same on both sides", *first;
	struct several s;

	several_begin(&s, &m,
	              &(struct several_opts){
	                      .channels_here = 2, .ops = said_ops(), .config = { .log_level = INM_LOG_WARN } });
	for (unsigned i = 6; i > 0; i--)
		several_allow(&s, several_connect(&s, several_wire(&s, i)), WIRE_MULTIFD_HELLO_BYTES);
	several_settle(&s);
	first = strstr(said, words);
	ck_assert_msg(first, "%s", said);
	ck_assert_msg(!strstr(first + 1, words), "%s", said);
	ck_assert_int_eq(s.result, 1);
	several_end(&s);
}

/* ---- the source dies ------------------------------------------------------------------------------------------- */

TEST_CASE("deaths", 120);

/* After the @nth of its connections; main is the first. */
TEST(test_a_source_that_dies_between_channels_is_a_named_error)
{
	for (unsigned alive = 1; alive <= 3; alive++) {
		const struct multifd_opts m = { .channels = 3 };
		struct several s;

		several_begin(&s, &m, &(struct several_opts){ .deadline_s = "2" });
		for (unsigned i = 0; i < alive; i++) {
			several_connect(&s, several_wire(&s, i));
			several_allow(&s, i, i ? wire_find(several_wire(&s, i), "interval", 0) : SEVERAL_ALL);
			several_settle(&s);
		}
		for (unsigned i = 0; i < alive; i++)
			several_close(&s, i);
		several_run(&s, 5000);
		several_check_failed(&s, s.result, "multifd|closed");
		ck_assert_int_ne(s.scene.e.result, 0);
		several_end(&s);
	}
}

/*
 * The third channel has not come when the first one ends, which has sent nothing: it will never send its SYNC, so there
 * is nothing to wait for, and the missing one is not what went wrong. Main already waits for the channels (0), or has
 * sent its list of blocks and will come to wait (1); the channel is closed, or reset (2).
 */
TEST_EACH(test_a_channel_that_ends_while_another_is_missing_is_a_named_error_at_once, 3)
{
	const struct multifd_opts m = { .channels = 3 };
	const struct linger reset = { 1, 0 };
	uint64_t began_ns;
	struct several s;

	several_begin(&s, &m, &(struct several_opts){ .deadline_s = "30", .tcp = _i == 2 });
	for (unsigned i = 0; i < 3; i++) {
		several_connect(&s, several_wire(&s, i));
		several_allow(&s, i, i ? WIRE_MULTIFD_HELLO_BYTES : SEVERAL_ALL);
	}
	if (_i == 1) /* before its first FLUSH record */
		several_allow(&s, SEVERAL_MAIN, wire_find(&s.h.main, "sync point", 0) - 8);
	several_settle(&s);
	ck_assert_int_eq(s.result, 1);
	began_ns = clock_now_ns();
	if (_i == 2)
		ck_assert_int_eq(setsockopt(s.lines[1].fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
	several_close(&s, 1);
	several_settle(&s);
	several_allow(&s, SEVERAL_MAIN, SEVERAL_ALL);
	several_run(&s, 5000);
	ck_assert_msg(clock_now_ns() - began_ns < 3 * NS_PER_S, "it took %llu ms",
	              (unsigned long long)((clock_now_ns() - began_ns) / NS_PER_MS));
	several_check_failed(&s, _i == 2 ? -ECONNRESET : -ENODATA, "channel 0");
	several_end(&s);
}

/* In any moment of the set-up all connections end at once; then it is freed. */
TEST(test_a_source_that_dies_at_any_step_leaves_nothing)
{
	for (unsigned k = 0; k < 60; k++) {
		const struct multifd_opts m = { .channels = 3 };
		struct several s;

		several_begin(&s, &m, NULL);
		several_connect_all(&s);
		for (unsigned i = 0; i < s.line_count; i++) {
			several_allow(&s, i, SEVERAL_ALL);
			s.lines[i].chunk_bytes = 19;
		}
		for (unsigned i = 0; i < k; i++)
			several_turn(&s);
		for (unsigned i = 0; i < s.line_count; i++)
			pump_close(&s.lines[i]);
		several_run(&s, 30);
		ck_assert_int_ne(s.result, 0);
		several_end(&s);
	}
}
