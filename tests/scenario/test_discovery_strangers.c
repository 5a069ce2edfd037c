/* A stranger between the channels of a migration changes nothing, whatever it says (doc/wire/channels.md 4, 6). */
#include "tests/support/check_main.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/support/order.h"
#include "tests/support/said.h"

static const uint8_t uuid[16] = { 0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
	                          0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff };
static const uint8_t other_uuid[16] = { 1 };

enum when { BEFORE, DURING, AFTER_START, WHENS };

struct stranger {
	const char *what;
	const char *bytes;
	size_t len;
	int hello_id;        /* above -1: the 64 bytes of this channel instead, of which @len are sent */
	const uint8_t *uuid; /* in them */
	bool closes;
	const char *logged; /* NULL: it stays, and the log does not mention it during the test */
	unsigned not_when;  /* bits: where it is none */
};

#define TEXT(t) .bytes = (t), .len = sizeof(t) - 1, .hello_id = -1
#define HELLO(id, n) .hello_id = (id), .len = (n), .uuid = uuid

static const struct stranger strangers[] = {
	{ "opened and closed", TEXT(""), .closes = true, .logged = "after 0 bytes" },
	{ "silent", TEXT("") },
	{ "two of four bytes", TEXT("QE") },
	{ "two of four bytes, closed", TEXT("QE"), .closes = true, .logged = "after 2 bytes" },
	{ "HTTP", TEXT("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), .logged = "not a migration channel" },
	{ "ssh", TEXT("SSH-2.0-OpenSSH_9.2\r\n"), .closes = true, .logged = "not a migration channel" },
	{ "TLS", TEXT("\x16\x03\x01\x00\xf4\x01\x00\x00\xf0\x03\x03"), .logged = "TLS is off" },
	{ "cpr", TEXT("QCPR\0\0\0\1"), .logged = "cpr" },
	{ "a recovery", TEXT("\x08\0\x0a\0\7\6pc.ram"), .logged = "nothing is paused" },
	{ "a preempt channel", TEXT("\0\0\0\0\0\0\0\x08\6pc.ram"), .logged = "preempt is off" },
	{ "a second main", TEXT("QEVM\0\0\0\3"), .logged = "second main", .not_when = 1 << BEFORE | 1 << DURING },
	{ "the beginning of a main channel", TEXT("QEVM\0\0\0\3"), .not_when = 1 << AFTER_START },
	{ "another version", TEXT("QEVM\0\0\0\4"), .logged = "stream version 4", .not_when = 1 << AFTER_START },
	{ "the magic, and not a source", TEXT("QEVM\0\0\0\3HTTP"), .logged = "configuration section expected",
	  .not_when = 1 << AFTER_START },
	{ "the magic and a close", TEXT("QEVM"), .closes = true, .logged = "closed after 4 bytes",
	  .not_when = 1 << AFTER_START },
	{ "ones", TEXT("\xff\xff\xff\xff\xff\xff\xff\xff"), .logged = "not a migration channel" },
	{ "an id that is none", HELLO(2, 64), .logged = "multifd channel 2" },
	{ "the largest id", HELLO(255, 64), .logged = "multifd channel 255" },
	{ "another uuid", .hello_id = 0, .len = 64, .uuid = other_uuid, .logged = "uuid" },
	{ "no uuid", .hello_id = 0, .len = 64, .uuid = NULL, .logged = "uuid" },
	{ "a second channel 0", HELLO(0, 64), .not_when = 1 << BEFORE | 1 << AFTER_START },
	{ "a channel too many", HELLO(1, 64), .logged = "all are there", .not_when = 1 << BEFORE | 1 << DURING },
	{ "63 of 64 bytes", HELLO(1, 63), .not_when = 1 << AFTER_START },
	{ "63 of 64 bytes, closed", HELLO(1, 63), .closes = true, .logged = "inside the first packet",
	  .not_when = 1 << AFTER_START },
	{ "magic without more", HELLO(1, 4), .not_when = 1 << AFTER_START },
};

static void make_stranger(struct wire *w, const struct stranger *st)
{
	*w = (struct wire){ 0 };
	if (st->hello_id < 0) {
		wire_bytes(w, st->bytes, st->len);
	} else {
		wire_multifd_hello(w, st->uuid, (uint8_t)st->hello_id);
		w->len = st->len;
	}
}

static void meet(struct several *s, const struct stranger *st, const struct wire *w, enum when when)
{
	/* When all channels are there, nobody looks at what the 64 bytes say. */
	const char *logged = st->hello_id >= 0 && st->logged && when == AFTER_START ? "all are there" : st->logged;
	unsigned line = several_connect(s, w);

	several_allow(s, line, SEVERAL_ALL);
	several_settle(s);
	if (st->closes)
		several_close(s, line);
	several_settle(s);
	if (logged)
		ck_assert_msg(strstr(said, logged), "%s: no '%s' in: %s", st->what, logged, said);
	if (st->logged && !st->closes)
		ck_assert_msg(s->lines[line].report.peer_closed, "%s: it was not closed", st->what);
	if (!st->logged && !st->closes)
		ck_assert_msg(!s->lines[line].report.peer_closed, "%s: it was closed", st->what);
}

TEST_CASE("strangers", 60);

TEST_ROWS(test_a_stranger_changes_nothing, strangers)
{
	const struct stranger *st = &strangers[_i];

	for (unsigned when = 0; when < WHENS; when++) {
		const struct multifd_opts m = { .channels = 2, .uuid = uuid, .return_path = _i % 3 == 0 };
		static const char *const params[] = { "uuid", "00112233-4455-6677-8899-aabbccddeeff", NULL };
		struct several s;
		struct order_real r;
		struct wire w;

		if (st->not_when >> when & 1)
			continue;
		make_stranger(&w, st);
		several_begin(&s, &m, &(struct several_opts){ .tcp = _i % 2, .params = params, SAID });
		if (when == BEFORE)
			meet(&s, st, &w, when);
		order_connect(&s, &r, SEVERAL_MAIN, wire_find(&s.h.main, "START", 0));
		order_connect(&s, &r, 1, 64);
		if (when == DURING)
			meet(&s, st, &w, when);
		order_connect(&s, &r, 2, 64);
		if (when == AFTER_START) {
			several_allow(&s, r.line[0], wire_find(&s.h.main, "PART", 2));
			several_allow(&s, r.line[1], SEVERAL_ALL);
			several_settle(&s);
			meet(&s, st, &w, when);
		}
		order_lands(&s, &r);
		wire_fini(&w);
	}
}

/* One that was channel 0 by all it said, and went: its place is free for the one that comes with the guest. */
TEST_EACH(test_a_channel_that_went_before_main_came_leaves_its_place, 2)
{
	const struct multifd_opts m = { .channels = 2 };
	struct several s;
	struct order_real r;
	unsigned line;

	several_begin(&s, &m, NULL);
	line = several_connect(&s, &s.h.channels[0]);
	several_allow(&s, line, _i ? wire_find(&s.h.channels[0], "interval", 0) : 64);
	several_settle(&s);
	several_close(&s, line);
	several_settle(&s);
	order_connect(&s, &r, SEVERAL_MAIN, SEVERAL_ALL);
	order_connect(&s, &r, 1, 64);
	order_connect(&s, &r, 2, 64);
	order_lands(&s, &r);
}

/*
 * All of them had come, with their first packets, and main was lost on the way: a connection of another attempt is not
 * one too many, in whatever order they come.
 */
TEST_EACH(test_all_channels_of_an_attempt_that_failed_leave_their_places, 4)
{
	static const unsigned orders[][3] = { { 0, 1, 2 }, { 1, 2, 0 }, { 2, 0, 1 }, { 2, 1, 0 } };
	const struct multifd_opts m = { .channels = 2 };
	struct several s;
	unsigned line;

	several_begin(&s, &m, NULL);
	for (unsigned i = 0; i < 2; i++) {
		line = several_connect(&s, &s.h.channels[i]);
		several_allow(&s, line, wire_find(&s.h.channels[i], "interval", 0));
	}
	several_settle(&s);
	for (unsigned i = 0; i < 2; i++)
		several_close(&s, i);
	several_settle(&s);
	for (unsigned i = 0; i < 3; i++) {
		line = several_connect(&s, several_wire(&s, orders[_i][i]));
		several_allow(&s, line, SEVERAL_ALL);
		several_settle(&s);
	}
	several_run(&s, 5000);
	several_check_landed(&s);
	several_end(&s);
}

TEST(test_a_silent_stranger_is_closed_at_its_deadline_and_no_one_waits_for_it)
{
	const struct multifd_opts m = { .channels = 2 };
	uint64_t began_ns = clock_now_ns(), took_ns;
	struct wire nothing = { 0 };
	struct several s;

	several_begin(&s, &m, &(struct several_opts){ .deadline_s = "1", SAID });
	several_connect(&s, &nothing);
	while (!s.lines[0].report.peer_closed && clock_now_ns() - began_ns < 3 * NS_PER_S) {
		several_turn(&s);
		usleep(2000);
	}
	took_ns = clock_now_ns() - began_ns;
	ck_assert_msg(took_ns > 900 * NS_PER_MS && took_ns < 2500 * NS_PER_MS, "after %llu ms",
	              (unsigned long long)(took_ns / NS_PER_MS));
	ck_assert_msg(strstr(said, "0 of the first 4 bytes"), "%s", said);
	s.line_count = 0;
	several_connect_all(&s);
	several_finish(&s);
	several_check_landed(&s);
	several_end(&s);
}

/* A byte a second: the deadline is for the whole connection, and does not start again with each byte. */
TEST(test_a_byte_now_and_then_does_not_hold_a_place)
{
	const struct multifd_opts m = { .channels = 2 };
	uint64_t began_ns = clock_now_ns(), took_ns;
	struct wire bytes = { 0 };
	struct several s;
	unsigned line;

	wire_multifd_hello(&bytes, NULL, 0);
	several_begin(&s, &m, &(struct several_opts){ .deadline_s = "1", SAID });
	line = several_connect(&s, &bytes);
	for (size_t upto = 1; !s.lines[line].report.peer_closed && clock_now_ns() - began_ns < 4 * NS_PER_S; upto++) {
		several_allow(&s, line, upto);
		for (unsigned i = 0; i < 15; i++) {
			several_turn(&s);
			usleep(10000);
		}
	}
	took_ns = clock_now_ns() - began_ns;
	ck_assert_msg(took_ns < 2500 * NS_PER_MS, "%llu ms", (unsigned long long)(took_ns / NS_PER_MS));
	several_end(&s);
	wire_fini(&bytes);
}

TEST_EACH(test_nobody_can_connect_after_completion, 2)
{
	const struct multifd_opts m = { .channels = 2 };
	struct several s;
	struct pump p;

	several_begin(&s, &m, &(struct several_opts){ .tcp = _i });
	several_connect_all(&s);
	several_finish(&s);
	ck_assert_int_eq(s.result, 0);
	ck_assert_int_lt(pump_connect(&p, &s.h.main, s.address), 0);
	several_check_landed(&s);
	several_end(&s);
}

/* Between the last byte and the source's close there is a moment in which the destination still listens. */
TEST(test_connections_while_the_source_takes_its_leave_change_nothing)
{
	const struct multifd_opts m = { .channels = 2, .return_path = true };
	struct several s;
	unsigned late;

	several_begin(&s, &m, &(struct several_opts){ SAID });
	several_connect_all(&s);
	for (unsigned i = 0; i < 3; i++)
		several_allow(&s, i, SEVERAL_ALL); /* and hold on after it */
	several_settle(&s);
	ck_assert_int_eq(s.result, 1);
	late = several_connect(&s, &s.h.main);
	several_allow(&s, late, SEVERAL_ALL);
	several_allow(&s, several_connect(&s, &s.h.channels[0]), SEVERAL_ALL);
	several_settle(&s);
	ck_assert_msg(strstr(said, "second main"), "%s", said);
	ck_assert_msg(strstr(said, "all are there"), "%s", said);
	several_finish(&s);
	several_check_landed(&s);
	several_end(&s);
}
