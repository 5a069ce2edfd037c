/* A source that distrusts our certificate closes without a word; what we say about it (doc/wire/channels.md 8.5). */
#include "tests/support/check_main.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "config.h"

#if HAVE_GNUTLS

#include "base/assert.h"
#include "base/clock.h"
#include "tests/support/order.h"
#include "tests/support/said.h"
#include "tests/support/tls_peer.h"

#define DISTRUST "does not trust our certificate"

/* ---- what the source does after its handshake ------------------------------------------------------------------- */

/* As QEMU does: it looks at the certificate only now, and has nothing to say. */
static void act_close(struct tls_peer *p)
{
	(void)p;
}

static void act_reset(struct tls_peer *p)
{
	const struct linger now = { 1, 0 };

	usleep(200000); /* or the reset would overtake the end of the handshake */
	ASSERT(setsockopt(p->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)) == 0);
}

static void act_goodbye(struct tls_peer *p)
{
	gnutls_bye(p->session, GNUTLS_SHUT_WR);
}

static void act_alert(struct tls_peer *p)
{
	gnutls_alert_send(p->session, GNUTLS_AL_FATAL, GNUTLS_A_UNKNOWN_CA);
}

static void act_two_bytes(struct tls_peer *p)
{
	tls_peer_send(p, "QE", 2);
}

static void act_half_a_record(struct tls_peer *p)
{
	tls_peer_send_raw(p, "\x17\3\3\0\x20xxxx", 9);
}

static const struct departure {
	const char *what;
	tls_peer_act *act;
	bool psk;
	const char *priority;
	const char *logged, *not_logged;
} departures[] = {
	{ "closes", act_close, .logged = DISTRUST },
	{ "closes, TLS 1.2", act_close, .priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2", .logged = DISTRUST },
	{ "resets", act_reset, .logged = DISTRUST },
	{ "says goodbye", act_goodbye, .logged = DISTRUST },
	/* Where it is not the likely cause, it is not said. */
	{ "closes, with a key", act_close, .psk = true, .logged = "closed after 0 bytes", .not_logged = "trust" },
	{ "alert", act_alert, .logged = "CA is unknown", .not_logged = DISTRUST },
	{ "two bytes", act_two_bytes, .logged = "closed after 2 bytes", .not_logged = "trust" },
	{ "half a record", act_half_a_record, .logged = "cut off inside a TLS record", .not_logged = "trust" },
};

/* Run until @words were logged. */
static void run_until_said(struct several *s, const char *words)
{
	uint64_t deadline_ns = deadline_after_ns(20 * NS_PER_S);

	while (!strstr(said, words) && clock_now_ns() < deadline_ns)
		several_run(s, 5);
	ck_assert_msg(strstr(said, words), "no '%s' in: %s", words, said);
}

TEST_CASE("distrust", 60);

TEST_ROWS(test_a_source_that_leaves_after_the_handshake_and_why, departures)
{
	const struct departure *d = &departures[_i];
	const struct multifd_opts m = { .channels = 2 };
	struct tls_peer_plan plan = { .kind = d->psk ? TLS_PEER_PSK : TLS_PEER_X509,
		                      .act = d->act,
		                      .priority = d->priority };
	struct tls_peer_report report;
	struct tls_peer peer;
	struct several s;
	char dir[64];
	const char *const params[] = {
		"tls-creds", "t", "tls-creds-dir", dir, "tls-creds-type", d->psk ? "psk" : "x509", NULL
	};

	tls_dir_make(dir, NULL);
	plan.dir = dir;
	several_begin(&s, &m, &(struct several_opts){ .tcp = true, .params = params, SAID });
	tls_peer_start(&peer, &plan, source_connect(s.address, 0));
	run_until_said(&s, " closed: ");
	tls_peer_wait(&peer, &report);
	ck_assert_int_eq(report.handshake, 0);
	ck_assert_msg(strstr(said, d->logged), "%s: no '%s' in: %s", d->what, d->logged, said);
	ck_assert_msg(!d->not_logged || !strstr(said, d->not_logged), "%s: '%s' in: %s", d->what, d->not_logged, said);
	/* It was a connection and no more: the source may set itself right and come again. */
	ck_assert_int_eq(s.result, 1);
	several_end(&s);
	tls_dir_remove(dir);
}

static void act_main(struct tls_peer *p)
{
	tls_peer_send(p, "QEVM\0\0\0\3\7\0\0\0\1m\1", 15);
	tls_peer_until_closed(p);
}

/* A source whose main channel is there trusts us: a channel that ends later has another reason. */
TEST(test_who_leaves_behind_the_main_channel_is_not_said_to_distrust_us)
{
	const struct multifd_opts m = { .channels = 2 };
	char dir[64];
	const char *const params[] = { "tls-creds", "t", "tls-creds-dir", dir, "tls-creds-type", "x509", NULL };
	const struct tls_peer_plan main_plan = { .kind = TLS_PEER_X509, .dir = dir, .act = act_main };
	const struct tls_peer_plan plan = { .kind = TLS_PEER_X509, .dir = dir, .act = act_close };
	struct tls_peer main_peer, peer;
	struct several s;

	tls_dir_make(dir, NULL);
	several_begin(&s, &m, &(struct several_opts){ .tcp = true, .params = params, SAID });
	tls_peer_start(&main_peer, &main_plan, source_connect(s.address, 0));
	run_until_said(&s, "main channel: ");
	tls_peer_start(&peer, &plan, source_connect(s.address, 0));
	run_until_said(&s, " closed: closed after 0 bytes");
	ck_assert_msg(!strstr(said, DISTRUST), "%s", said);
	tls_peer_wait(&peer, NULL);
	several_free(&s);
	tls_peer_wait(&main_peer, NULL);
	several_end(&s);
	tls_dir_remove(dir);
}

/* Over a descriptor it is the migration itself that ends. */
TEST(test_a_source_that_does_not_trust_us_over_a_descriptor_is_a_named_error)
{
	char dir[64];
	const char *const params[] = { "tls-creds", "t", "tls-creds-dir", dir, "tls-creds-type", "x509", NULL };
	struct tls_peer_plan plan = { .kind = TLS_PEER_X509, .dir = dir, .act = act_close };
	struct tls_peer_report report;
	struct tls_peer peer;
	struct scene s;
	int sv[2];

	tls_dir_make(dir, NULL);
	scene_begin(&s, NULL);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	land_new(&s.e, &(struct land_opts){ .params = params });
	ck_assert_int_eq(land_listen_fd(&s.e, sv[0]), 0);
	tls_peer_start(&peer, &plan, sv[1]);
	ck_assert_int_eq(inm_run_until(s.e.inm, deadline_after_ns(20 * NS_PER_S)), -ENODATA);
	ck_assert_msg(strstr(inm_error(s.e.inm), DISTRUST), "%s", inm_error(s.e.inm));
	tls_peer_wait(&peer, &report);
	ck_assert_int_eq(report.handshake, 0);
	scene_end(&s);
	tls_dir_remove(dir);
}

#else

TEST(test_discovery_inside_tls_is_not_tested)
{
	test_skip("built without GnuTLS");
}

#endif
