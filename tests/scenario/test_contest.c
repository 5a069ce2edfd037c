/*
 * Which connection is the main channel: one that begins like a source, and goes away or falls silent before it has told
 * its RAM blocks, neither ends the migration nor keeps the source out. See engine/contest.h.
 */
#include "tests/support/check_main.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "tests/support/order.h"
#include "tests/support/said.h"

static const struct multifd_opts two = { .channels = 2, .return_path = true };

/* Where the list of RAM blocks ends: the first record after it. */
static size_t list_end(const struct several *s)
{
	return wire_find(&s->h.main, "sync point", 0) - 8;
}

/* An honest source, all of it, with others there already. */
static void land_honest(struct several *s)
{
	struct order_real r;

	for (unsigned i = 0; i < 3; i++)
		order_connect(s, &r, i, SEVERAL_ALL);
	order_finish(s, &r);
	several_check_landed(s);
}

/* The embedder heard of one migration only. */
static void check_asked_once(const struct several *s)
{
	char states[200];

	ck_assert_uint_eq(s->scene.e.ram_block_calls, s->scene.e.block_count);
	ck_assert_str_eq(embedder_states(&s->scene.e, states, sizeof(states)), "setup active completed");
}

enum way { CLOSES, RESETS, STAYS };

static void leave(struct several *s, unsigned line, enum way way)
{
	const struct linger reset = { 1, 0 };

	several_settle(s);
	if (way == STAYS)
		return;
	if (way == RESETS)
		ck_assert_int_eq(setsockopt(s->lines[line].fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
	several_close(s, line);
	several_settle(s);
}

/* Nobody expects that it is told how it ended. */
static unsigned connect_stranger(struct several *s, size_t upto)
{
	unsigned line = several_connect(s, &s->h.main);

	s->lines[line].return_path = false;
	several_allow(s, line, upto);
	return line;
}

static void stranger_then_source(size_t upto, enum way way)
{
	struct several s;
	unsigned line;

	several_begin(&s, &two,
	              &(struct several_opts){ .tcp = way == RESETS, .deadline_s = way == STAYS ? "1" : "20", SAID });
	line = connect_stranger(&s, upto);
	leave(&s, line, way);
	ck_assert_int_eq(s.result, 1);
	ck_assert_int_eq(inm_get_state(s.scene.e.inm), INM_STATE_SETUP);
	land_honest(&s);
	check_asked_once(&s);
	several_end(&s);
}

static size_t list_end_of_honest(void)
{
	struct several s;
	size_t end;

	several_begin(&s, &two, NULL);
	end = list_end(&s);
	several_end(&s);
	return end;
}

TEST_CASE("contest", 120);

/* At every byte of it. */
TEST_EACH(test_a_main_channel_that_ends_before_its_list_of_blocks_leaves_its_place, 2)
{
	size_t end = list_end_of_honest();

	ck_assert_uint_gt(end, 80);
	for (size_t upto = 1; upto < end; upto += _i == RESETS ? 5 : 1)
		stranger_then_source(upto, (enum way)_i);
}

TEST(test_a_main_channel_that_is_silent_before_its_list_of_blocks_keeps_nobody_out)
{
	size_t end = list_end_of_honest();

	stranger_then_source(4, STAYS);
	stranger_then_source(8, STAYS);
	for (size_t upto = 9; upto < end; upto += 19)
		stranger_then_source(upto, STAYS);
	stranger_then_source(end - 1, STAYS);
}

/* Many that have fallen silent, each with a section begun: they do not have their patience one after the other. */
TEST(test_many_that_are_silent_keep_nobody_out_for_long)
{
	uint64_t began_ns;
	struct several s;

	several_begin(&s, &two, &(struct several_opts){ .deadline_s = "20", SAID });
	for (unsigned i = 0; i < 20; i++)
		connect_stranger(&s, list_end(&s) - 1);
	several_settle(&s);
	began_ns = clock_now_ns();
	land_honest(&s);
	check_asked_once(&s);
	/* 20 times 2 s it would be; 2 s, and 19 times a moment. */
	ck_assert_msg(clock_now_ns() - began_ns < 20 * NS_PER_S, "%llu ms",
	              (unsigned long long)((clock_now_ns() - began_ns) / NS_PER_MS));
	several_end(&s);
}

/* The source has begun to load, and others come that begin as it did: it is not displaced. */
TEST(test_a_source_that_goes_on_is_not_displaced)
{
	struct several s;
	struct order_real r;

	several_begin(&s, &two, &(struct several_opts){ .deadline_s = "20", SAID });
	order_connect(&s, &r, 0, wire_find(&s.h.main, "START", 0) + 1);
	for (unsigned i = 0; i < 3; i++)
		connect_stranger(&s, list_end(&s) - 1);
	several_settle(&s);
	order_connect(&s, &r, 1, SEVERAL_ALL);
	order_connect(&s, &r, 2, SEVERAL_ALL);
	order_finish(&s, &r);
	several_check_landed(&s);
	check_asked_once(&s);
	ck_assert_msg(strstr(said, "a second main channel"), "%s", said);
	several_end(&s);
}

/* Not all of a list is none: the embedder is not asked for the blocks that came. */
TEST(test_no_block_is_asked_for_before_the_list_is_whole)
{
	struct several s;
	unsigned line;

	several_begin(&s, &two, NULL);
	line = several_connect(&s, &s.h.main);
	several_allow(&s, line, list_end(&s) - 1);
	several_settle(&s);
	ck_assert_uint_eq(s.scene.e.ram_block_calls, 0);
	several_allow(&s, line, list_end(&s));
	several_settle(&s);
	ck_assert_uint_eq(s.scene.e.ram_block_calls, s.scene.e.block_count);
	several_end(&s);
}

/* From then on its end is the migration's. */
TEST(test_a_main_channel_that_ends_after_its_list_of_blocks_is_an_error)
{
	struct several s;
	unsigned line;

	several_begin(&s, &two, NULL);
	line = several_connect(&s, &s.h.main);
	several_allow(&s, line, list_end(&s) + 4);
	several_settle(&s);
	several_close(&s, line);
	several_run(&s, 3000);
	several_check_failed(&s, -ENODATA, "closed|multifd");
	several_end(&s);
}

/* What was dropped can be read, and is forgotten when another one lands. */
TEST(test_an_attempt_that_was_dropped_is_said_at_the_default_level)
{
	struct several s;
	unsigned line;

	several_begin(&s, &two, &(struct several_opts){ .ops = said_ops(), .config = { .log_level = INM_LOG_WARN } });
	line = connect_stranger(&s, wire_find(&s.h.main, "START", 0) + 1);
	leave(&s, line, CLOSES);
	ck_assert_msg(strstr(said, "began a migration and did not go on"), "%s", said);
	ck_assert_msg(strstr(inm_error(s.scene.e.inm), "did not go on"), "%s", inm_error(s.scene.e.inm));
	land_honest(&s);
	several_end(&s);
}

/* With one connection nobody else can come: its end is an error, wherever it is. */
TEST_EACH(test_a_single_connection_that_ends_early_is_an_error, 5)
{
	struct scene s;

	scene_begin(&s, &(struct honest_opts){ 0 });
	scene_land(&s, &(struct land_opts){ .stop_at = 4 + 4 * (size_t)_i, .end = SOURCE_END_CLOSE });
	ck_assert_int_eq(s.e.result, -ENODATA);
	scene_end(&s);
}
