/* Lines that others can cause: base/log_limit.h */
#include "tests/support/check_main.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

static struct log_limit limit;
static char last[2][LOG_LINE_BYTES];
static unsigned lines, level_of_last;

static void keep(void *opaque, enum log_level level, const char *text)
{
	(void)opaque;
	memcpy(last[0], last[1], sizeof(last[0]));
	snprintf(last[1], sizeof(last[1]), "%s", text);
	level_of_last = level;
	lines++;
}

static const struct log to_us = { .write = keep, .level_max = LOG_INFO, .limit = &limit };

static void say(unsigned times, enum log_topic topic)
{
	for (unsigned i = 0; i < times; i++)
		log_often(&to_us, topic, LOG_INFO, "line %u", i);
}

TEST_CASE("limit", 30);

TEST(test_log_limit_says_a_burst_and_counts_the_rest)
{
	say(LOG_BURST + 37, LOG_CONNECTIONS);
	ck_assert_uint_eq(lines, LOG_BURST);
	log_held_back(&to_us);
	ck_assert_str_eq(last[1], "connections: 37 more lines like this were not logged");
	log_held_back(&to_us); /* once */
	ck_assert_uint_eq(lines, LOG_BURST + 1);
}

TEST(test_log_limit_sums_up_before_it_goes_on)
{
	uint64_t now_ns = 5 * NS_PER_S;
	int level;

	for (unsigned i = 0; i < LOG_BURST; i++)
		ck_assert(log_limit_pass(&limit, LOG_STREAM, LOG_WARN, now_ns));
	for (unsigned i = 0; i < 4; i++)
		ck_assert(!log_limit_pass(&limit, LOG_STREAM, i == 2 ? LOG_WARN : LOG_INFO, now_ns + i));
	ck_assert(!log_limit_pass(&limit, LOG_STREAM, LOG_INFO, now_ns + NS_PER_S - 1));
	ck_assert(log_limit_pass(&limit, LOG_STREAM, LOG_INFO, now_ns + NS_PER_S));
	ck_assert(!log_limit_pass(&limit, LOG_STREAM, LOG_INFO, now_ns + NS_PER_S));
	ck_assert_uint_eq(log_limit_sum(&limit, LOG_STREAM, &level), 6);
	ck_assert_int_eq(level, LOG_WARN); /* the most urgent of them */
	ck_assert_uint_eq(log_limit_sum(&limit, LOG_STREAM, &level), 0);
	/* A long silence gives a burst back, and no more. */
	for (unsigned i = 0; i < 2 * LOG_BURST; i++)
		ck_assert_int_eq(log_limit_pass(&limit, LOG_STREAM, LOG_INFO, now_ns + 9000 * NS_PER_S), i < LOG_BURST);
}

TEST(test_log_limit_line_after_the_sum)
{
	say(LOG_BURST + 5, LOG_FAULTS);
	limit.meters[LOG_FAULTS].since_ns -= NS_PER_S;
	say(1, LOG_FAULTS);
	ck_assert_str_eq(last[0], "faults: 5 more lines like this were not logged");
	ck_assert_str_eq(last[1], "line 0");
	ck_assert_uint_eq(lines, LOG_BURST + 2);
}

TEST(test_log_limit_topics_do_not_take_from_each_other)
{
	for (int topic = 0; topic < LOG_TOPIC_COUNT; topic++) {
		lines = 0;
		say(2 * LOG_BURST_CHANNELS, (enum log_topic)topic);
		ck_assert_uint_eq(lines, topic == LOG_CHANNELS ? LOG_BURST_CHANNELS : LOG_BURST);
	}
	lines = 0;
	log_warn(&to_us, "what has no limit");
	ck_assert_uint_eq(lines, 1);
}

/* Lines that nobody wants to see use up nothing. */
TEST(test_log_limit_counts_only_what_would_be_heard)
{
	for (unsigned i = 0; i < 1000; i++)
		log_often(&to_us, LOG_CONNECTIONS, LOG_DEBUG, "line %u", i);
	ck_assert_uint_eq(lines, 0);
	say(1, LOG_CONNECTIONS);
	ck_assert_str_eq(last[1], "line 0");
	log_held_back(&to_us);
	ck_assert_uint_eq(lines, 1);
}

TEST(test_log_without_a_limit_says_all)
{
	const struct log log = { .write = keep, .level_max = LOG_INFO };

	for (unsigned i = 0; i < 1000; i++)
		log_often(&log, LOG_CONNECTIONS, LOG_INFO, "line %u", i);
	log_held_back(&log);
	ck_assert_uint_eq(lines, 1000);
}
