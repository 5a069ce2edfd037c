/* Many strangers: they neither keep the source out nor make it wait (doc/wire/channels.md 6). */
#include "tests/support/check_main.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "config.h"
#include "engine/inm.h"
#include "tests/support/order.h"
#include "tests/support/said.h"

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

TEST_CASE("crowds", 60);

TEST(test_ten_thousand_connections_of_a_scanner_disturb_nobody)
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

/* A connection that has gone takes no place: silent ones that came long after them are all let in. */
TEST(test_strangers_that_have_gone_are_not_counted)
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

/* More silent ones than are let in. The source that comes then must get in all the same. */
TEST(test_silent_strangers_in_any_number_do_not_keep_the_source_out)
{
	const struct multifd_opts m = { .channels = 2 };
	struct wire nothing = { 0 };
	struct several s;
	struct order_real r;
	unsigned fds;

	test_need_files(4 * CONNECTIONS_UNKNOWN_MAX + 32);
	several_begin(&s, &m, &(struct several_opts){ .tcp = true, .deadline_s = "3600" });
	fds = several_fds();
	for (unsigned i = 0; i < 3 * CONNECTIONS_UNKNOWN_MAX; i++)
		several_connect(&s, &nothing);
	several_settle(&s);
	/* Both ends are ours. */
	ck_assert_uint_le(several_fds(), fds + 4 * CONNECTIONS_UNKNOWN_MAX + 8);
	order_connect(&s, &r, SEVERAL_MAIN, SEVERAL_ALL);
	order_connect(&s, &r, 1, 64);
	order_connect(&s, &r, 2, 64);
	order_lands(&s, &r);
}

/* The same in the middle of their TLS handshakes. */
TEST(test_a_crowd_that_stalls_its_tls_handshakes_ends_nothing)
{
	static const char *const params[] = { "tls-creds", "t", "tls-creds-type", "anon", NULL };
	const struct multifd_opts m = { .channels = 2 };
	struct wire hello = { 0 };
	struct several s;
	unsigned fds;

	if (!HAVE_GNUTLS)
		test_skip("built without GnuTLS");
	test_need_files(4 * CONNECTIONS_UNKNOWN_MAX + 32);
	wire_bytes(&hello, "\x16\x03\x01\x00\xf4\x01\x00\x00\xf0\x03\x03", 11);
	several_begin(&s, &m, &(struct several_opts){ .tcp = true, .deadline_s = "3600", .params = params, SAID });
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

/* ---- who goes when there are too many -------------------------------------------------------------------------- */

#define FLOOD 500u

/* A silent connection from @host (127.x.y.z, in host order). */
static int connect_from(struct several *s, uint32_t host)
{
	int fd = source_connect(s->address, host);

	several_turn(s); /* or the backlog would be full */
	return fd;
}

static bool is_closed(int fd)
{
	char c;

	return recv(fd, &c, 1, MSG_DONTWAIT) == 0;
}

static void close_all(const int *fds, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		close(fds[i]);
}

/* The source's main channel has connected and waits for its others, as a 7.2 source's does in a slow set-up. */
TEST(test_a_flood_from_elsewhere_does_not_end_a_silent_main_channel)
{
	const struct multifd_opts m = { .channels = 2, .return_path = true };
	int fds[FLOOD], alone;
	unsigned closed = 0;
	struct several s;
	struct order_real r;

	test_need_files(FLOOD + 200);
	several_begin(&s, &m, &(struct several_opts){ .tcp = true, .deadline_s = "3600" });
	order_connect(&s, &r, SEVERAL_MAIN, 0);
	alone = connect_from(&s, SOURCE_HOST(2));
	for (unsigned i = 0; i < FLOOD; i++)
		fds[i] = connect_from(&s, SOURCE_HOST(1));
	several_settle(&s);
	ck_assert_msg(!s.lines[r.line[SEVERAL_MAIN]].report.peer_closed, "main was closed");
	ck_assert_msg(!is_closed(alone), "the only one of another address was closed");
	/* Those of the flood that came first. */
	while (closed < FLOOD && is_closed(fds[closed]))
		closed++;
	ck_assert_uint_eq(closed, FLOOD + 2 - (CONNECTIONS_UNKNOWN_MAX + m.channels));
	for (unsigned i = closed; i < FLOOD; i++)
		ck_assert(!is_closed(fds[i]));
	several_allow(&s, r.line[SEVERAL_MAIN], SEVERAL_ALL);
	order_connect(&s, &r, 1, 64);
	order_connect(&s, &r, 2, 64);
	order_finish(&s, &r);
	several_check_landed(&s);
	close_all(fds, FLOOD);
	close(alone);
	several_end(&s);
}

/* Where no address has more than another, it is the oldest that goes. */
TEST(test_of_many_addresses_the_oldest_connection_goes)
{
	const struct multifd_opts m = { .channels = 2 };
	const unsigned gone = CONNECTIONS_UNKNOWN_MAX - m.channels;
	int fds[2 * CONNECTIONS_UNKNOWN_MAX];
	struct several s;
	struct order_real r;

	test_need_files(4 * CONNECTIONS_UNKNOWN_MAX + 32);
	several_begin(&s, &m, &(struct several_opts){ .tcp = true, .deadline_s = "3600" });
	for (unsigned i = 0; i < 2 * CONNECTIONS_UNKNOWN_MAX; i++)
		fds[i] = connect_from(&s, SOURCE_HOST(1 + i));
	several_settle(&s);
	for (unsigned i = 0; i < 2 * CONNECTIONS_UNKNOWN_MAX; i++)
		ck_assert_msg(is_closed(fds[i]) == (i < gone), "the one with number %u", i);
	order_connect(&s, &r, SEVERAL_MAIN, SEVERAL_ALL);
	order_connect(&s, &r, 1, 64);
	order_connect(&s, &r, 2, 64);
	order_finish(&s, &r);
	several_check_landed(&s);
	close_all(fds, 2 * CONNECTIONS_UNKNOWN_MAX);
	several_end(&s);
}

/* The count of an address goes down when its connections end: it is not held against it later. */
TEST(test_an_address_whose_connections_have_ended_is_not_the_one_that_has_most)
{
	const struct multifd_opts m = { .channels = 2 };
	int fds[CONNECTIONS_UNKNOWN_MAX], other[CONNECTIONS_UNKNOWN_MAX];
	struct several s;
	int kept;

	test_need_files(4 * CONNECTIONS_UNKNOWN_MAX + 32);
	several_begin(&s, &m, &(struct several_opts){ .tcp = true, .deadline_s = "3600" });
	kept = connect_from(&s, SOURCE_HOST(1));
	for (unsigned i = 0; i < CONNECTIONS_UNKNOWN_MAX; i++)
		fds[i] = connect_from(&s, SOURCE_HOST(1));
	several_settle(&s);
	close_all(fds, CONNECTIONS_UNKNOWN_MAX);
	several_settle(&s);
	for (unsigned i = 0; i < CONNECTIONS_UNKNOWN_MAX; i++)
		other[i] = connect_from(&s, SOURCE_HOST(2));
	fds[0] = connect_from(&s, SOURCE_HOST(3));
	fds[1] = connect_from(&s, SOURCE_HOST(4));
	several_settle(&s);
	ck_assert(!is_closed(kept) && !is_closed(fds[0]) && !is_closed(fds[1]));
	ck_assert(is_closed(other[0]) && !is_closed(other[1]));
	close_all(other, CONNECTIONS_UNKNOWN_MAX);
	close_all(fds, 2);
	close(kept);
	several_end(&s);
}
