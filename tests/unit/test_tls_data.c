/* What is read from a channel inside TLS is whole, up to its end: engine/channel/tls/tls.h */
#include "base/clock.h"
#include "coroutine/io.h"
#include "tests/support/tls_scene.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#if HAVE_GNUTLS

/* ---- data ------------------------------------------------------------------------------------------------------- */

#define BIG_BYTES (24u << 20)

static void act_big(struct tls_peer *p)
{
	tls_peer_send_pattern(p, 0, BIG_BYTES);
}

/* Vectors of every odd shape: empty ones, single bytes, pages, more than a read of the socket brings. */
static int odd_iovecs(struct iovec *iov, uint8_t *buf, unsigned turn)
{
	static const size_t shapes[][5] = {
		{ 4096, 4096, 4096, 4096, 4096 },
		{ 1, 0, 1, 3, 16384 },
		{ 0, 0, 0, 0, 1 },
		{ 16385, 7, 0, 1, 40000 },
		{ 65536, 65536, 65536, 65536, 100000 },
		{ 16384, 1, 16384, 0, 5 },
		{ 2, 2, 2, 2, 2 },
	};
	const size_t *shape = shapes[turn % (sizeof(shapes) / sizeof(shapes[0]))];

	for (int i = 0; i < 5; i++) {
		iov[i] = (struct iovec){ buf, shape[i] };
		buf += shape[i];
	}
	return 5;
}

static void body_big(struct chan *ch)
{
	uint8_t *buf = malloc(1 << 19), *want = malloc(1 << 19);
	size_t got = 0;
	ssize_t n;

	for (unsigned turn = 0;; turn++) {
		struct iovec iov[5];

		n = chan_readv(ch, iov, odd_iovecs(iov, buf, turn), tls.deadline_ns, &tls.err);
		if (n <= 0)
			break;
		tls_pattern(want, got, (size_t)n);
		ck_assert_msg(memcmp(buf, want, (size_t)n) == 0, "wrong near %zu", got);
		got += (size_t)n;
	}
	ck_assert_msg(n == 0, "%s", tls.err.text);
	ck_assert_uint_eq(got, BIG_BYTES);
	ck_assert_uint_eq(ch->bytes_in, BIG_BYTES);
	free(buf);
	free(want);
}

TEST_CASE("data", 60, TLS_SCENE);

TEST(test_tls_data_of_all_shapes_is_whole)
{
	tls.plan.act = act_big;
	tls.body = body_big;
	tls_scene_works();
	tls.bite_bytes = 1000; /* records come in pieces */
	tls_scene_works();
	tls.bite_bytes = 0;
	tls.plan.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2:+ECDHE-PSK:+DHE-PSK:+PSK";
	tls_scene_works();
}

/* More than one record in one read of the channel, and in one of the socket. */
static void body_reads_are_large(struct chan *ch)
{
	uint8_t *buf = malloc(1 << 19);
	struct iovec iov = { buf, 1 << 19 };

	/* What came with the end of the handshake is read first; then let the socket fill. */
	ck_assert_int_gt(chan_readv(ch, &iov, 1, tls.deadline_ns, &tls.err), 0);
	io_sleep_until(tls.reactor, deadline_after_ns(300 * NS_PER_MS));
	tls.ops = 0;
	ck_assert_int_gt(chan_readv(ch, &iov, 1, tls.deadline_ns, &tls.err), 32768);
	ck_assert_uint_eq(tls.ops, 1);
	free(buf);
}

TEST(test_tls_reads_take_many_records)
{
	tls.plan.act = act_big;
	tls.body = body_reads_are_large;
	tls_scene_works();
}

static void act_empty_records(struct tls_peer *p)
{
	tls_peer_send_pattern(p, 0, 100);
	for (int i = 0; i < 3; i++)
		gnutls_record_send2(p->session, "", 0, 10, 0);
	tls_peer_send_pattern(p, 100, 100);
	gnutls_bye(p->session, GNUTLS_SHUT_WR);
}

static void body_200_then_the_end(struct chan *ch)
{
	char c;

	tls_scene_reads_pattern(ch, 0, 200);
	ck_assert_int_eq(tls_scene_read(ch, &c, 1), 0);
}

TEST(test_tls_empty_records_are_not_the_end)
{
	tls.plan.act = act_empty_records;
	tls.body = body_200_then_the_end;
	tls_scene_works();
}

/* ---- ends ------------------------------------------------------------------------------------------------------- */

static void act_bye(struct tls_peer *p)
{
	tls_peer_send_pattern(p, 0, 50000);
	if (p->plan->arg)
		gnutls_bye(p->session, GNUTLS_SHUT_WR);
}

static void body_ends(struct chan *ch)
{
	char c;

	tls_scene_reads_pattern(ch, 0, 50000);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(tls_scene_read(ch, &c, 1), 0); /* it stays so */
}

TEST(test_tls_an_end_with_or_without_a_goodbye_reads_as_the_end)
{
	tls.plan.act = act_bye;
	tls.body = body_ends;
	tls_scene_works();
	tls.plan.arg = "goodbye";
	tls_scene_works();
	tls.plan.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2:+ECDHE-PSK:+DHE-PSK:+PSK";
	tls_scene_works();
	tls.plan.arg = NULL;
	tls_scene_works();
}

static void act_cut(struct tls_peer *p)
{
	const int *bytes = p->plan->arg;

	tls_peer_send_pattern(p, 0, 50000);
	tls_peer_send_raw(p, "\x17\3\3\x40\0abcdefgh", (size_t)*bytes);
}

static void body_is_cut(struct chan *ch)
{
	char c;

	tls_scene_reads_pattern(ch, 0, 50000);
	for (int i = 0; i < 3; i++) {
		tls.err = ERR_NONE;
		ck_assert_int_eq(tls_scene_read(ch, &c, 1), -ENODATA);
		tls_scene_says("cut off inside a TLS record");
	}
}

TEST(test_tls_cut_inside_a_record_is_an_error)
{
	tls.plan.act = act_cut;
	tls.body = body_is_cut;
	for (int bytes = 1; bytes < 12; bytes += 2) {
		tls.plan.arg = &bytes;
		tls_scene_works();
	}
}

static void act_forge(struct tls_peer *p)
{
	const char *what = p->plan->arg;

	tls_peer_send_pattern(p, 0, 50000);
	tls_peer_send_raw(p, what, 37);
	tls_peer_until_closed(p);
}

static void body_finds_forgery(struct chan *ch)
{
	char c;

	tls_scene_reads_pattern(ch, 0, 50000);
	for (int i = 0; i < 3; i++) {
		tls.err = ERR_NONE;
		ck_assert_int_eq(tls_scene_read(ch, &c, 1), -EPROTO);
		ck_assert_int_eq(tls.err.code, -EPROTO);
	}
}

TEST(test_tls_forged_bytes_are_found_behind_what_came_before)
{
	tls.plan.act = act_forge;
	tls.body = body_finds_forgery;
	tls.plan.arg = "\x17\3\3\0\x20"
	               "0123456789abcdef0123456789abcdef";
	tls_scene_works();
	tls_scene_says("fails its integrity check");
	tls.plan.arg = "\x15\3\3\0\x20"
	               "0123456789abcdef0123456789abcdef";
	tls_scene_works();
	tls.plan.arg = "QEVM\0\0\0\3"
	               "0123456789abcdef0123456789abc";
	tls_scene_works();
	tls_scene_says("no TLS record");
	tls.plan.arg = "\x17\3\3\xff\xff"
	               "0123456789abcdef0123456789abcdef";
	tls_scene_works();
	tls_scene_says("too long");
}

static void act_alert(struct tls_peer *p)
{
	tls_peer_send_pattern(p, 0, 1000);
	gnutls_alert_send(p->session, GNUTLS_AL_FATAL, GNUTLS_A_INTERNAL_ERROR);
}

static void body_gets_alert(struct chan *ch)
{
	char c;

	tls_scene_reads_pattern(ch, 0, 1000);
	ck_assert_int_eq(tls_scene_read(ch, &c, 1), -ECONNRESET);
	tls_scene_says("ended TLS with the alert 'Internal error'");
}

TEST(test_tls_alert_is_named)
{
	tls.plan.act = act_alert;
	tls.body = body_gets_alert;
	tls_scene_works();
}

static void act_renegotiate(struct tls_peer *p)
{
	tls_peer_send_pattern(p, 0, 1000);
	p->report.value = gnutls_handshake(p->session);
}

static void body_renegotiation(struct chan *ch)
{
	char c;

	tls_scene_reads_pattern(ch, 0, 1000);
	ck_assert_int_eq(tls_scene_read(ch, &c, 1), -EPROTO);
	tls_scene_says("asks for TLS renegotiation, which is refused");
}

TEST(test_tls_renegotiation_is_refused)
{
	tls_scene_use_x509();
	tls.plan.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2";
	tls.plan.act = act_renegotiate;
	tls.body = body_renegotiation;
	tls_scene_works();
	ck_assert_int_lt(tls.report.value, 0);
}

#endif
