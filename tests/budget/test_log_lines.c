/* How much others can make us log: base/log_limit.h */
#include "tests/support/check_main.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log_limit.h"
#include "tests/support/recovery_scene.h"
#include "tests/support/scene.h"
#include "tests/support/several.h"

#define COMMANDS 200000u
#define STRANGERS 3000u
#define LOSSES 200u

static size_t logged_bytes;
static unsigned logged_lines, sums;
static char last_sum[LOG_LINE_BYTES];

static void count(void *opaque, enum inm_log_level level, const char *text)
{
	(void)opaque;
	(void)level;
	logged_lines++;
	logged_bytes += strlen(text) + 1;
	if (!strstr(text, "more lines like this were not logged"))
		return;
	sums++;
	snprintf(last_sum, sizeof(last_sum), "%s", text);
}

static const struct inm_ops *counting_ops(void)
{
	static struct inm_ops ops;

	ops = embedder_ops;
	ops.log = count;
	return &ops;
}

static void within_budget(const char *what, uint64_t begin_ns)
{
	uint64_t seconds = 1 + (clock_now_ns() - begin_ns) / NS_PER_S;
	size_t max = LOG_LIMIT_BYTES(seconds);

	printf("%s: %u lines, %zu bytes of log, %zu allowed; %u sums, the last: %s\n", what, logged_lines, logged_bytes,
	       max, sums, last_sum);
	ck_assert_uint_le(logged_bytes, max);
	/* Here one topic floods, and a dozen lines are the honest source's. */
	ck_assert_uint_le(logged_lines, LOG_BURST + 2 * seconds + 12);
	ck_assert_uint_ge(sums, 1);
}

TEST_CASE("lines", 120);

/* Five bytes that mean nothing here, again and again, and a guest that lands after them. */
TEST(test_what_a_source_says_in_vain_is_not_logged_each_time)
{
	struct wire flood = { 0 };
	struct scene s;
	uint64_t begin_ns;

	scene_begin(&s, &(struct honest_opts){ .rounds = 1 });
	for (unsigned i = 0; i < COMMANDS; i++)
		wire_resume(&flood);
	wire_insert(&s.wire, wire_find(&s.wire, "START", 0), flood.data, flood.len);
	begin_ns = clock_now_ns();
	ck_assert_int_eq(scene_land(&s, &(struct land_opts){ .ops = counting_ops(),
	                                                     .deadline_ms = 60000,
	                                                     .config = { .log_level = INM_LOG_DEBUG } }),
	                 0);
	scene_check_landed(&s);
	within_budget("RESUME, 200000 times", begin_ns);
	wire_fini(&flood);
	scene_end(&s);
}

static const struct visit {
	const char *what, *says;
	size_t bytes;
	bool stays;
} visits[] = {
	{ "strangers that say nothing", "", 0, true },
	{ "strangers that speak of something else", "GET / HTTP/1.1\r\n", 16, false },
	{ "strangers that hang up", "QE", 2, false },
	{ "multifd channels that nobody wants", "\x11\x22\x33\x44", 4, false },
};

/* Channels that are taken, and leave before the main channel comes, have a topic of their own. */
TEST_ROWS(test_strangers_are_not_logged_each_time, visits)
{
	const struct visit *v = &visits[_i];
	uint64_t begin_ns = clock_now_ns();
	static int fds[STRANGERS];
	struct several s;

	if (v->stays)
		test_need_files(STRANGERS + 300);
	several_begin(
	        &s, &(struct multifd_opts){ .channels = 1 },
	        &(struct several_opts){ .tcp = true, .ops = counting_ops(), .config = { .log_level = INM_LOG_DEBUG } });
	for (unsigned i = 0; i < STRANGERS; i++) {
		fds[i] = source_connect(s.address, 0);
		if (v->bytes > 0)
			ck_assert_int_eq(send(fds[i], v->says, v->bytes, MSG_NOSIGNAL), (ssize_t)v->bytes);
		if (!v->stays)
			close(fds[i]);
		/* All of them are accepted, or the next connect(2) would wait for that in this thread. */
		if (i % 50 == 0)
			several_settle(&s);
	}
	for (unsigned i = 0; i < 20; i++)
		several_run(&s, 5);
	for (unsigned i = 0; v->stays && i < STRANGERS; i++)
		close(fds[i]);
	several_connect_all(&s);
	several_finish(&s);
	several_check_landed(&s);
	within_budget(v->what, begin_ns);
	several_end(&s);
}

/* It comes back with all that a recovery takes, and is gone again; in the end it lands. */
TEST_EACH(test_a_source_that_comes_and_goes_is_not_logged_each_time, 2)
{
	struct pc_opts o = { .log = count, .preempt = _i ? PC_LATE : PC_NO_PREEMPT, .touch = { .threads = 1 } };
	struct rec_opts back = rec_back(_i ? REC_NEW : REC_NO_PREEMPT);
	uint64_t begin_ns = clock_now_ns(), seconds;
	struct rec r;

	rec_begin(&r, &o);
	pc_switch(&r.s);
	rec_limit(&r, PC_MAIN, r.s.package_end);
	ck_assert(rec_until(&r, rec_guest_runs, 5000));
	for (unsigned i = 0; i < LOSSES; i++) {
		ck_assert(rec_pause(&r, REC_BOTH, false));
		rec_recover(&r, &back);
	}
	rec_finish(&r);
	seconds = 1 + (clock_now_ns() - begin_ns) / NS_PER_S;
	printf("%u losses and returns: %u lines, %zu bytes of log; the last sum: %s\n", LOSSES, logged_lines,
	       logged_bytes, last_sum);
	/* The losses, the returns, and the main channels; preempt channels have a larger burst of their own. */
	ck_assert_uint_le(logged_lines, 3 * (LOG_BURST + 2 * seconds) + 20 + (_i ? LOSSES : 0));
	ck_assert_uint_ge(sums, 1);
}
