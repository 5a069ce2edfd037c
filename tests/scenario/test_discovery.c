/* Which connection is which: any order, any pieces, any strangers between (spec/channels.md 4 and 6). */
#include "tests/support/check_main.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "config.h"
#include "engine/incoming.h"
#include "tests/support/several.h"

#define LINES_MAX 9u

/* ---- what the library says ------------------------------------------------------------------------------------- */

static char said[1 << 16];
static size_t said_bytes;

static void on_log(void *opaque, enum inm_log_level level, const char *text)
{
	(void)opaque;
	(void)level;
	if (said_bytes + strlen(text) + 2 < sizeof(said))
		said_bytes += (size_t)snprintf(said + said_bytes, sizeof(said) - said_bytes, "%s\n", text);
}

static const struct inm_ops *logging_ops(void)
{
	static struct inm_ops ops;

	ops = embedder_ops;
	ops.log = on_log;
	said_bytes = 0;
	said[0] = 0;
	return &ops;
}

#define LOGGED .ops = logging_ops(), .config = { .log_level = INM_LOG_DEBUG }

/* ---- orders ---------------------------------------------------------------------------------------------------- */

/* The @nth of the permutations of @count lines, count! in all. */
static void permute(unsigned nth, unsigned count, unsigned *order)
{
	unsigned left[LINES_MAX];

	for (unsigned i = 0; i < count; i++)
		left[i] = i;
	for (unsigned n = count; n > 0; n--) {
		unsigned at = nth % n;

		nth /= n;
		order[count - n] = left[at];
		memmove(left + at, left + at + 1, (n - 1 - at) * sizeof(*left));
	}
}

static unsigned factorial(unsigned n)
{
	return n < 2 ? 1 : n * factorial(n - 1);
}

/* In @order, each speaks as soon as it has connected, and is heard before the next one connects. */
static void play_one_by_one(struct several *s, const unsigned *order)
{
	for (unsigned i = 0; i <= s->h.count; i++) {
		unsigned line = several_connect(s, several_wire(s, order[i]));

		s->lines[line].return_path = s->return_path && order[i] == SEVERAL_MAIN;
		several_allow(s, line, order[i] == SEVERAL_MAIN ? SEVERAL_ALL : 64);
		several_settle(s);
	}
}

/* All connect in @order and are silent; then they speak in the opposite order, main with @main_last last of all. */
static void play_after_all(struct several *s, const unsigned *order, bool main_last, size_t step_bytes)
{
	unsigned main_line = 0;

	for (unsigned i = 0; i <= s->h.count; i++) {
		unsigned line = several_connect(s, several_wire(s, order[i]));

		s->lines[line].return_path = s->return_path && order[i] == SEVERAL_MAIN;
		main_line = order[i] == SEVERAL_MAIN ? line : main_line;
	}
	several_settle(s);
	for (size_t upto = step_bytes; upto < 8 + step_bytes; upto += step_bytes)
		for (unsigned i = s->h.count + 1; i-- > 0;) {
			if (i == main_line && main_last)
				continue;
			several_allow(s, i, upto);
			several_settle(s);
		}
	for (size_t upto = step_bytes; main_last && upto < 8 + step_bytes; upto += step_bytes) {
		several_allow(s, main_line, upto);
		several_settle(s);
	}
}

static void finish_in_order(struct several *s, const unsigned *order)
{
	for (unsigned i = 0; i <= s->h.count; i++) {
		several_allow(s, i, SEVERAL_ALL);
		s->lines[i].end = order[i] == SEVERAL_MAIN ? PUMP_HONEST : s->return_path ? PUMP_HOLD : PUMP_CLOSE;
	}
	several_run(s, 10000);
	several_check_landed(s);
}

enum manner { ONE_BY_ONE, REVERSED, MAIN_LAST, BYTES, BYTES_MAIN_LAST, MANNERS };

static void lands_in_order(const struct multifd_opts *m, const struct several_opts *o, const unsigned *order,
                           enum manner manner)
{
	struct several s;

	several_begin(&s, m, o);
	s.quiet_ms = 1;
	if (manner == ONE_BY_ONE)
		play_one_by_one(&s, order);
	else
		play_after_all(&s, order, manner == MAIN_LAST || manner == BYTES_MAIN_LAST,
		               manner == BYTES || manner == BYTES_MAIN_LAST ? 1 : 8);
	finish_in_order(&s, order);
	several_end(&s);
}

START_TEST(test_every_order_of_main_and_up_to_three_channels_lands)
{
	for (unsigned channels = 1; channels <= 3; channels++)
		for (unsigned nth = 0; nth < factorial(channels + 1); nth++)
			for (unsigned rp = 0; rp < 2; rp++) {
				const struct multifd_opts m = { .channels = channels, .return_path = rp };
				unsigned order[LINES_MAX];

				permute(nth, channels + 1, order);
				lands_in_order(&m, NULL, order, (enum manner)_i);
			}
}
END_TEST

START_TEST(test_every_order_lands_over_tcp)
{
	for (unsigned nth = 0; nth < factorial(4); nth++) {
		const struct multifd_opts m = { .channels = 3, .return_path = true, .per_section = true, .old = true,
			                        .zero_in_main = true };
		unsigned order[LINES_MAX];

		permute(nth, 4, order);
		lands_in_order(&m, &(struct several_opts){ .tcp = true }, order, (enum manner)(nth % MANNERS));
	}
}
END_TEST

START_TEST(test_random_orders_of_eight_channels_land)
{
	unsigned long seed = scene_env("TEST_SEED", 20240704);

	srand((unsigned)seed);
	printf("TEST_SEED=%lu\n", seed);
	for (unsigned i = 0; i < 30; i++) {
		const struct multifd_opts m = { .channels = 8, .return_path = i % 2 };
		unsigned order[LINES_MAX];

		permute((unsigned)rand() % factorial(9), 9, order);
		lands_in_order(&m, NULL, order, (enum manner)(i % MANNERS));
	}
}
END_TEST

/* ---- strangers ------------------------------------------------------------------------------------------------- */

static const uint8_t uuid[16] = { 0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
	                          0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff };
static const uint8_t other_uuid[16] = { 1 };

enum when { BEFORE, DURING, AFTER_START, WHENS };

struct stranger {
	const char *what;
	const char *bytes;
	size_t len;
	int hello_id;         /* above -1: the 64 bytes of this channel instead, of which @len are sent */
	const uint8_t *uuid;  /* in them */
	bool closes;
	const char *logged;   /* NULL: it stays and nothing is said of it within the test */
	unsigned not_when;    /* bits: where it is none */
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
	{ "a second main", TEXT("QEVM\0\0\0\3"), .logged = "second main", .not_when = 1 << BEFORE },
	{ "ones", TEXT("\xff\xff\xff\xff\xff\xff\xff\xff"), .logged = "not a migration channel" },
	{ "an id that is none", HELLO(2, 64), .logged = "multifd channel 2" },
	{ "the largest id", HELLO(255, 64), .logged = "multifd channel 255" },
	{ "another uuid", .hello_id = 0, .len = 64, .uuid = other_uuid, .logged = "uuid" },
	{ "no uuid", .hello_id = 0, .len = 64, .uuid = NULL, .logged = "uuid" },
	{ "a second channel 0", HELLO(0, 64), .logged = "channel 0 is there already",
	  .not_when = 1 << BEFORE | 1 << AFTER_START },
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

/* Line numbers of the real ones: main, channel 0, channel 1. */
struct real {
	unsigned line[3];
};

static void connect_real(struct several *s, struct real *r, unsigned which, size_t upto)
{
	r->line[which] = several_connect(s, several_wire(s, which));
	s->lines[r->line[which]].return_path = s->return_path && which == SEVERAL_MAIN;
	several_allow(s, r->line[which], upto);
	several_settle(s);
}

static void finish_real(struct several *s, const struct real *r)
{
	for (unsigned i = 0; i < 3; i++) {
		several_allow(s, r->line[i], SEVERAL_ALL);
		s->lines[r->line[i]].end = i == SEVERAL_MAIN ? PUMP_HONEST : PUMP_HOLD;
	}
	several_run(s, 10000);
}

START_TEST(test_a_stranger_changes_nothing)
{
	const struct stranger *st = &strangers[_i];

	for (unsigned when = 0; when < WHENS; when++) {
		const struct multifd_opts m = { .channels = 2, .uuid = uuid, .return_path = _i % 3 == 0 };
		static const char *const params[] = { "uuid", "00112233-4455-6677-8899-aabbccddeeff", NULL };
		struct several s;
		struct real r;
		struct wire w;

		if (st->not_when >> when & 1)
			continue;
		make_stranger(&w, st);
		several_begin(&s, &m, &(struct several_opts){ .tcp = _i % 2, .params = params, LOGGED });
		if (when == BEFORE)
			meet(&s, st, &w, when);
		connect_real(&s, &r, SEVERAL_MAIN, wire_find(&s.h.main, "START", 0));
		connect_real(&s, &r, 1, 64);
		if (when == DURING)
			meet(&s, st, &w, when);
		connect_real(&s, &r, 2, 64);
		if (when == AFTER_START) {
			several_allow(&s, r.line[0], wire_find(&s.h.main, "PART", 2));
			several_allow(&s, r.line[1], SEVERAL_ALL);
			several_settle(&s);
			meet(&s, st, &w, when);
		}
		finish_real(&s, &r);
		several_check_landed(&s);
		several_end(&s);
		wire_fini(&w);
	}
}
END_TEST

/* One that was channel 0 by all it said, and went: its place is free for the one that comes with the guest. */
START_TEST(test_a_channel_that_went_before_main_came_leaves_its_place)
{
	const struct multifd_opts m = { .channels = 2 };
	struct several s;
	struct real r;
	unsigned line;

	several_begin(&s, &m, NULL);
	line = several_connect(&s, &s.h.channels[0]);
	several_allow(&s, line, _i ? wire_find(&s.h.channels[0], "interval", 0) : 64);
	several_settle(&s);
	several_close(&s, line);
	several_settle(&s);
	connect_real(&s, &r, SEVERAL_MAIN, SEVERAL_ALL);
	connect_real(&s, &r, 1, 64);
	connect_real(&s, &r, 2, 64);
	finish_real(&s, &r);
	several_check_landed(&s);
	several_end(&s);
}
END_TEST

/* It spoke as main does, so it is main: its end ends the migration, by name. */
START_TEST(test_main_magic_and_the_end_is_a_named_error)
{
	const struct multifd_opts m = { .channels = 2 };
	struct wire magic = { 0 };
	struct several s;

	several_begin(&s, &m, NULL);
	wire_header(&magic);
	several_allow(&s, several_connect(&s, &magic), SEVERAL_ALL);
	several_settle(&s);
	several_close(&s, 0);
	several_run(&s, 3000);
	several_check_failed(&s, -ENODATA, "closed|ended|end of");
	several_end(&s);
	wire_fini(&magic);
}
END_TEST

START_TEST(test_a_silent_stranger_is_closed_at_its_deadline_and_no_one_waits_for_it)
{
	const struct multifd_opts m = { .channels = 2 };
	uint64_t began_ns = clock_now_ns(), took_ns;
	struct wire nothing = { 0 };
	struct several s;

	several_begin(&s, &m, &(struct several_opts){ .deadline_s = "1", LOGGED });
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
END_TEST

/* A byte a second: the deadline is the connection's as a whole and does not begin anew with each byte. */
START_TEST(test_a_byte_now_and_then_does_not_hold_a_place)
{
	const struct multifd_opts m = { .channels = 2 };
	uint64_t began_ns = clock_now_ns(), took_ns;
	struct wire bytes = { 0 };
	struct several s;
	unsigned line;

	wire_multifd_hello(&bytes, NULL, 0);
	several_begin(&s, &m, &(struct several_opts){ .deadline_s = "1", LOGGED });
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
END_TEST

START_TEST(test_nobody_can_connect_after_completion)
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
END_TEST

/* Between the last byte and the source's close there is a moment in which the destination still listens. */
START_TEST(test_connections_while_the_source_takes_its_leave_change_nothing)
{
	const struct multifd_opts m = { .channels = 2, .return_path = true };
	struct several s;
	unsigned late;

	several_begin(&s, &m, &(struct several_opts){ LOGGED });
	several_connect_all(&s);
	for (unsigned i = 0; i < 3; i++)
		several_allow(&s, i, SEVERAL_ALL); /* and hold on behind it */
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
END_TEST

/* ---- crowds ---------------------------------------------------------------------------------------------------- */

#define SCANS 10000u
#define SCANS_KEPT 40

/* The scanner, in a child: opens and closes, speaks HTTP, resets, and keeps some open. */
static void scan(const char *address)
{
	static struct pump kept[SCANS_KEPT];
	struct wire http = { 0 };
	struct pump p;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	wire_bytes(&http, "GET / HTTP/1.0\r\n\r\n", 18);
	for (unsigned i = 0; i < SCANS; i++) {
		if (pump_connect(&p, &http, address) < 0)
			_exit(i > 100 ? 0 : 1); /* it has landed */
		if (i % 3 == 0)
			pump_step(&p);
		if (i % 250 == 7) {
			struct pump *slot = &kept[i / 250 % SCANS_KEPT];

			if (i >= 250 * SCANS_KEPT)
				pump_close(slot);
			*slot = p;
			continue;
		}
		pump_close(&p);
	}
	_exit(0);
}

START_TEST(test_ten_thousand_connections_of_a_scanner_disturb_nobody)
{
	const struct multifd_opts m = { .channels = 2, .return_path = true };
	unsigned fds, fds_max = 0, turns = 0;
	struct several s;
	int status = 0;
	pid_t pid;

	several_begin(&s, &m, &(struct several_opts){ .tcp = true });
	several_connect_all(&s);
	for (unsigned i = 0; i < 3; i++)
		several_allow(&s, i, wire_find(several_wire(&s, i), i ? "interval" : "sync point", 0));
	several_settle(&s);
	fds = several_fds();
	fflush(NULL);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		scan(s.address);
	while (waitpid(pid, &status, WNOHANG) == 0) {
		unsigned now;

		several_turn(&s);
		now = turns++ % 16 ? 0 : several_fds();
		fds_max = now > fds_max ? now : fds_max;
		if (turns % 64 == 0) /* a page now and then, while they come */
			for (unsigned i = 0; i < 3; i++)
				several_allow(&s, i, i ? s.lines[i].written + 64 : wire_find(&s.h.main, "EOF", 0));
	}
	ck_assert_int_eq(status, 0);
	ck_assert_uint_le(fds_max, fds + CONNECTIONS_UNKNOWN_MAX + 2);
	ck_assert_int_eq(s.result, 1);
	several_finish(&s);
	several_check_landed(&s);
	several_end(&s);
}
END_TEST

/* Who has gone takes no place: silent ones that came long after them are all let in. */
START_TEST(test_strangers_that_have_gone_are_not_counted)
{
	const struct multifd_opts m = { .channels = 2 };
	struct wire nothing = { 0 };
	struct several s;

	several_begin(&s, &m, &(struct several_opts){ .deadline_s = "3600" });
	s.quiet_ms = 1;
	for (unsigned i = 0; i < 3 * CONNECTIONS_UNKNOWN_MAX; i++) {
		several_close(&s, several_connect(&s, &nothing));
		several_settle(&s);
	}
	s.line_count = 0;
	several_connect_all(&s);
	several_settle(&s);
	several_finish(&s);
	several_check_landed(&s);
	several_end(&s);
}
END_TEST

/* More silent ones than are let in. The source that comes then must get in all the same. */
START_TEST(test_silent_strangers_in_any_number_do_not_keep_the_source_out)
{
	const struct multifd_opts m = { .channels = 2 };
	struct wire nothing = { 0 };
	struct several s;
	struct real r;
	unsigned fds;

	several_begin(&s, &m, &(struct several_opts){ .tcp = true, .deadline_s = "3600" });
	fds = several_fds();
	for (unsigned i = 0; i < 3 * CONNECTIONS_UNKNOWN_MAX; i++)
		several_connect(&s, &nothing);
	several_settle(&s);
	/* Both ends are ours. */
	ck_assert_uint_le(several_fds(), fds + 4 * CONNECTIONS_UNKNOWN_MAX + 8);
	connect_real(&s, &r, SEVERAL_MAIN, SEVERAL_ALL);
	connect_real(&s, &r, 1, 64);
	connect_real(&s, &r, 2, 64);
	finish_real(&s, &r);
	several_check_landed(&s);
	several_end(&s);
}
END_TEST

/* The same in the middle of their TLS handshakes. */
START_TEST(test_a_crowd_that_stalls_its_tls_handshakes_ends_nothing)
{
	static const char *const params[] = { "tls-creds", "t", "tls-creds-type", "anon", NULL };
	const struct multifd_opts m = { .channels = 2 };
	struct wire hello = { 0 };
	struct several s;
	unsigned fds;

	if (!HAVE_GNUTLS)
		test_skip("built without GnuTLS");
	wire_bytes(&hello, "\x16\x03\x01\x00\xf4\x01\x00\x00\xf0\x03\x03", 11);
	several_begin(&s, &m, &(struct several_opts){ .tcp = true, .deadline_s = "3600", .params = params, LOGGED });
	fds = several_fds();
	for (unsigned i = 0; i < 3 * CONNECTIONS_UNKNOWN_MAX; i++) {
		several_allow(&s, several_connect(&s, &hello), i % 2 ? SEVERAL_ALL : 0);
		several_turn(&s);
	}
	several_settle(&s);
	ck_assert_int_eq(s.result, 1);
	ck_assert_uint_le(several_fds(), fds + 4 * CONNECTIONS_UNKNOWN_MAX + 8);
	several_end(&s);
	wire_fini(&hello);
}
END_TEST

/* ---- numbers that differ --------------------------------------------------------------------------------------- */

START_TEST(test_fewer_channels_than_expected_are_a_named_error_by_the_deadline)
{
	static const struct { unsigned there, here; const char *words; } rows[] = {
		{ 1, 2, "1 of 2 multifd channels" }, { 2, 4, "2 of 4 multifd channels" }, { 2, 255, "2 of 255" } };
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
END_TEST

/* The refused channel is what the source will fail of; the error that follows from it names the cause. */
START_TEST(test_more_channels_than_expected_are_refused_and_named_in_the_final_error)
{
	static const unsigned rows[][2] = { { 2, 1 }, { 4, 2 }, { 3, 2 } };
	const struct multifd_opts m = { .channels = rows[_i][0] };
	struct several s;
	bool closed = false;

	several_begin(&s, &m, &(struct several_opts){ .channels_here = rows[_i][1], LOGGED });
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
END_TEST

/*
 * A 7.2 source with a return path has failed then, and says so to its user, but keeps its main connection open and
 * silent: waiting for its end would be waiting for ever.
 */
START_TEST(test_more_channels_than_expected_are_an_error_though_the_source_stays)
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
END_TEST

/* ---- the source dies ------------------------------------------------------------------------------------------- */

/* After the @nth of its connections; main is the first. */
START_TEST(test_a_source_that_dies_between_channels_is_a_named_error)
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
END_TEST

/* In any moment of the set-up all connections end at once; then it is freed. */
START_TEST(test_a_source_that_dies_at_any_step_leaves_nothing)
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
END_TEST

/* ---- cancel ---------------------------------------------------------------------------------------------------- */

/* Every dispatch of the set-up: small pieces make many of them. Lines connect in @order, @batch at a time. */
static void cancel_at(unsigned k, unsigned nth, bool by_free, size_t chunk_bytes)
{
	const struct multifd_opts m = { .channels = 3 };
	unsigned order[LINES_MAX];
	struct several s;

	permute(nth, 4, order);
	several_begin(&s, &m, NULL);
	s.cancel_at = by_free ? UINT32_MAX : k;
	for (unsigned i = 0; i < 4; i++) {
		unsigned line = several_connect(&s, several_wire(&s, order[i]));

		several_allow(&s, line, order[i] ? wire_find(several_wire(&s, order[i]), "interval", 0) :
		                                   wire_find(&s.h.main, "PART", 0));
		s.lines[line].chunk_bytes = chunk_bytes;
		if (nth % 2 && s.dispatches < k)
			several_turn(&s);
		else
			pump_step(&s.lines[line]); /* there is something to read when it is accepted */
	}
	while (s.dispatches <= k && s.result == 1)
		several_turn(&s);
	if (!by_free) {
		several_run(&s, 3000);
		several_check_failed(&s, -ECANCELED, NULL);
	}
	several_end(&s);
}

START_TEST(test_cancel_at_any_dispatch_of_the_set_up_gives_everything_back)
{
	for (unsigned k = 0; k < 40; k++)
		for (unsigned nth = 0; nth < 24; nth += 5)
			cancel_at(k, nth, false, _i ? 17 : 4);
}
END_TEST

START_TEST(test_free_at_any_dispatch_of_the_set_up_gives_everything_back)
{
	for (unsigned k = 0; k < 40; k++)
		for (unsigned nth = 0; nth < 24; nth += 5)
			cancel_at(k, nth, true, _i ? 17 : 4);
}
END_TEST

/* The bytes that complete a connection and the end of the migration come in the same turn. */
START_TEST(test_a_channel_that_is_being_handed_over_while_all_ends_is_given_back)
{
	for (unsigned last = 0; last < 3; last++)
		for (unsigned turns = 0; turns < 6; turns++)
			for (unsigned by_free = 0; by_free < 2; by_free++) {
				const struct multifd_opts m = { .channels = 2 };
				struct several s;

				several_begin(&s, &m, NULL);
				for (unsigned i = 0; i < 3; i++) {
					several_connect(&s, several_wire(&s, i));
					if (i != last)
						several_allow(&s, i, 64);
				}
				several_settle(&s);
				several_allow(&s, last, last ? 4 : 3);
				several_settle(&s);
				/* Written to the socket, and not yet looked at. */
				several_allow(&s, last, 64);
				pump_step(&s.lines[last]);
				for (unsigned i = 0; i < turns; i++)
					several_turn(&s);
				if (!by_free) {
					inm_cancel(s.scene.e.inm);
					several_run(&s, 3000);
					several_check_failed(&s, -ECANCELED, NULL);
				}
				several_end(&s);
			}
}
END_TEST

Suite *suite(void)
{
	Suite *s = suite_create("discovery");
	TCase *t = tcase_create("order");

	/* These must all fail in a build that goes by the order of arrival (control arrival-order). */
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, test_every_order_of_main_and_up_to_three_channels_lands, 0, MANNERS);
	tcase_add_test(t, test_every_order_lands_over_tcp);
	tcase_add_test(t, test_random_orders_of_eight_channels_land);
	suite_add_tcase(s, t);

	t = tcase_create("strangers");
	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, test_a_stranger_changes_nothing, 0, sizeof(strangers) / sizeof(strangers[0]));
	tcase_add_loop_test(t, test_a_channel_that_went_before_main_came_leaves_its_place, 0, 2);
	tcase_add_test(t, test_main_magic_and_the_end_is_a_named_error);
	tcase_add_test(t, test_a_silent_stranger_is_closed_at_its_deadline_and_no_one_waits_for_it);
	tcase_add_test(t, test_a_byte_now_and_then_does_not_hold_a_place);
	tcase_add_loop_test(t, test_nobody_can_connect_after_completion, 0, 2);
	tcase_add_test(t, test_connections_while_the_source_takes_its_leave_change_nothing);
	suite_add_tcase(s, t);

	t = tcase_create("crowds");
	tcase_set_timeout(t, 60);
	tcase_add_test(t, test_ten_thousand_connections_of_a_scanner_disturb_nobody);
	tcase_add_test(t, test_a_crowd_that_stalls_its_tls_handshakes_ends_nothing);
	tcase_add_test(t, test_strangers_that_have_gone_are_not_counted);
	tcase_add_test(t, test_silent_strangers_in_any_number_do_not_keep_the_source_out);
	suite_add_tcase(s, t);

	t = tcase_create("numbers");
	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, test_fewer_channels_than_expected_are_a_named_error_by_the_deadline, 0, 3);
	tcase_add_loop_test(t, test_more_channels_than_expected_are_refused_and_named_in_the_final_error, 0, 3);
	tcase_add_test(t, test_more_channels_than_expected_are_an_error_though_the_source_stays);
	suite_add_tcase(s, t);

	t = tcase_create("ends");
	tcase_set_timeout(t, 120);
	tcase_add_test(t, test_a_source_that_dies_between_channels_is_a_named_error);
	tcase_add_test(t, test_a_source_that_dies_at_any_step_leaves_nothing);
	tcase_add_loop_test(t, test_cancel_at_any_dispatch_of_the_set_up_gives_everything_back, 0, 2);
	tcase_add_loop_test(t, test_free_at_any_dispatch_of_the_set_up_gives_everything_back, 0, 2);
	tcase_add_test(t, test_a_channel_that_is_being_handed_over_while_all_ends_is_given_back);
	suite_add_tcase(s, t);
	return s;
}
