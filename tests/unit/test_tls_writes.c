/* What a channel inside TLS writes, and what it does not; both directions; new keys: engine/channel/tls/tls.h */
#include "base/clock.h"
#include "coroutine/io.h"
#include "tests/support/tls_scene.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#if HAVE_GNUTLS

/* ---- silence ---------------------------------------------------------------------------------------------------- */

static void act_send_and_listen(struct tls_peer *p)
{
	tls_peer_send_pattern(p, 0, 100000);
	tls_peer_listen(p);
	tls_peer_until_closed(p);
}

static void body_read_and_wait(struct chan *ch)
{
	tls_scene_reads_pattern(ch, 0, 100000);
	io_sleep_until(tls.reactor, deadline_after_ns(400 * NS_PER_MS));
}

TEST_CASE("writes", 60, TLS_SCENE);

TEST(test_tls_server_writes_nothing_after_the_handshake)
{
	tls.plan.act = act_send_and_listen;
	tls.body = body_read_and_wait;
	tls_scene_works();
	ck_assert_uint_eq(tls.report.bytes_unread, 0);
	tls_scene_use_x509();
	tls_scene_works();
	ck_assert_uint_eq(tls.report.bytes_unread, 0);
	tls.plan.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2";
	tls_scene_works();
	ck_assert_uint_eq(tls.report.bytes_unread, 0);
}

static void body_write_and_wait(struct chan *ch)
{
	ck_assert_msg(chan_write_all(ch, "x", 1, tls.deadline_ns, &tls.err) == 0, "%s", tls.err.text);
	body_read_and_wait(ch);
}

/* The control: the test above would see a byte. That it would see tickets is shown by tests/scenario/test_tickets. */
TEST(test_tls_a_byte_after_the_handshake_would_be_seen)
{
	tls.plan.act = act_send_and_listen;
	tls.body = body_write_and_wait;
	tls.plan.listen_ms = 10000; /* as long as it takes */
	tls_scene_use_x509();
	tls_scene_works();
	ck_assert_uint_gt(tls.report.bytes_unread, 0);
}

static void act_read_to_the_end(struct tls_peer *p)
{
	char c;

	p->report.value = gnutls_record_recv(p->session, &c, 1);
}

TEST(test_tls_close_says_no_goodbye)
{
	tls.plan.act = act_read_to_the_end;
	tls_scene_works();
	ck_assert_int_eq(tls.report.value, GNUTLS_E_PREMATURE_TERMINATION);
}

/* ---- both directions, and new keys ------------------------------------------------------------------------------ */

#define DUPLEX_BYTES (4u << 20)

static int wait_for(pid_t pid)
{
	int status;

	return waitpid(pid, &status, 0) == pid ? status : -1;
}

/* Sends its pattern with new keys now and then, and reads ours at the same time. */
static void act_duplex(struct tls_peer *p)
{
	const unsigned *flags = p->plan->arg;
	uint8_t got[65536], want[65536];
	uint64_t in = 0;
	pid_t reader = fork();

	ASSERT(reader >= 0);
	/* Two processes share the connection; each uses its own half of the session. */
	if (reader == 0) {
		while (in < DUPLEX_BYTES) {
			MUST_BE_ZERO(tls_peer_recv(p, got, sizeof(got)));
			tls_pattern(want, in, sizeof(want));
			ASSERT(memcmp(got, want, sizeof(got)) == 0);
			in += sizeof(got);
		}
		_exit(0);
	}
	for (uint64_t out = 0; out < DUPLEX_BYTES; out += DUPLEX_BYTES / 8) {
		tls_peer_send_pattern(p, out, DUPLEX_BYTES / 8);
		if (flags)
			MUST_BE_ZERO(gnutls_session_key_update(p->session, *flags));
		usleep(150000); /* GnuTLS takes no more than eight in a second */
	}
	MUST_BE_ZERO(wait_for(reader));
	gnutls_bye(p->session, GNUTLS_SHUT_WR);
}

static struct chan *duplex_chan;

static int duplex_writer(void *arg)
{
	uint8_t buf[30000];

	(void)arg;
	for (uint64_t out = 0; out < DUPLEX_BYTES;) {
		size_t n = sizeof(buf) < DUPLEX_BYTES - out ? sizeof(buf) : (size_t)(DUPLEX_BYTES - out);

		tls_pattern(buf, out, n);
		ck_assert_msg(chan_write_all(duplex_chan, buf, n, tls.deadline_ns, &tls.err) == 0, "%s", tls.err.text);
		out += n;
		/* All the time the other side sends. */
		ck_assert_int_eq(io_sleep_until(tls.reactor, deadline_after_ns(8 * NS_PER_MS)), 0);
	}
	return 0;
}

static void body_duplex(struct chan *ch)
{
	uint8_t *got = malloc(DUPLEX_BYTES);
	struct group writer;
	char c;

	duplex_chan = ch;
	group_init(&writer, &tls.reactor->sched, "writer");
	ck_assert_int_eq(group_spawn(&writer, "writer", duplex_writer, NULL), 0);
	tls_scene_reads_pattern(ch, 0, DUPLEX_BYTES);
	ck_assert_int_eq(group_join(&writer), 0);
	ck_assert_uint_eq(ch->bytes_out, DUPLEX_BYTES);
	ck_assert_int_eq(tls_scene_read(ch, &c, 1), 0);
	free(got);
}

TEST(test_tls_both_directions_at_once)
{
	tls.plan.act = act_duplex;
	tls.body = body_duplex;
	tls_scene_works();
}

TEST(test_tls_new_keys_of_the_source_under_way)
{
	unsigned flags = 0;

	tls.plan.act = act_duplex;
	tls.plan.arg = &flags;
	tls.body = body_duplex;
	tls_scene_works();
}

static void act_new_keys_one_way(struct tls_peer *p)
{
	for (uint64_t i = 0; i < 4; i++) {
		tls_peer_send_pattern(p, i * 25000, 25000);
		MUST_BE_ZERO(gnutls_session_key_update(p->session, GNUTLS_KU_PEER));
	}
	tls_peer_listen(p);
	tls_peer_until_closed(p);
}

/* The source asks for new keys of ours, too: not with a byte of their own. */
TEST(test_tls_new_keys_asked_for_are_given_in_silence)
{
	tls.plan.act = act_new_keys_one_way;
	tls.body = body_read_and_wait;
	tls_scene_works();
	ck_assert_uint_eq(tls.report.bytes_unread, 0);
}

static void act_new_keys_then_read(struct tls_peer *p)
{
	uint8_t got[50000], want[50000];

	for (uint64_t i = 0; i < 4; i++) {
		tls_peer_send_pattern(p, i * 25000, 25000);
		MUST_BE_ZERO(gnutls_session_key_update(p->session, GNUTLS_KU_PEER));
		tls_peer_send(p, "x", 1);
		MUST_BE_ZERO(tls_peer_recv(p, got, sizeof(got)));
		tls_pattern(want, i * 50000, sizeof(want));
		ASSERT(memcmp(got, want, sizeof(got)) == 0);
	}
}

static void body_answers_with_new_keys(struct chan *ch)
{
	uint8_t buf[50000];
	char c;

	for (uint64_t i = 0; i < 4; i++) {
		tls_scene_reads_pattern(ch, i * 25000, 25000);
		ck_assert_int_eq(tls_scene_read(ch, &c, 1), 1);
		tls_pattern(buf, i * 50000, sizeof(buf));
		ck_assert_msg(chan_write_all(ch, buf, sizeof(buf), tls.deadline_ns, &tls.err) == 0, "%s", tls.err.text);
	}
	ck_assert_int_eq(tls_scene_read(ch, &c, 1), 0);
}

TEST(test_tls_new_keys_asked_for_come_with_the_next_write)
{
	tls.plan.act = act_new_keys_then_read;
	tls.body = body_answers_with_new_keys;
	tls_scene_works();
}

#endif
