/* Which peers may not come into a channel inside TLS, and what we say about it: engine/channel/tls/tls.h */
#include "base/clock.h"
#include "tests/support/tls_scene.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#if HAVE_GNUTLS

/* ---- who may not come ------------------------------------------------------------------------------------------- */

TEST_CASE("refusals", 60, TLS_SCENE);

TEST(test_tls_certificate_of_another_ca)
{
	struct tls_cert other;

	tls_scene_use_x509();
	tls_cert_make(&other, &(struct tls_cert_plan){ .name = "CN=other ca", .ca = true }, NULL);
	tls_scene_put_client((struct tls_cert_plan){ 0 }, &other);
	tls.plan.act = tls_peer_until_closed;
	tls_scene_fails(-EACCES, "is not signed by the CA in ca-cert.pem");
	ck_assert_int_eq(tls.report.alert, GNUTLS_A_UNKNOWN_CA);
	/* With the same name it is another one all the same. */
	tls_cert_free(&other);
	tls_cert_make(&other, &(struct tls_cert_plan){ .name = "CN=the ca", .ca = true }, NULL);
	tls_scene_put_client((struct tls_cert_plan){ 0 }, &other);
	tls_scene_fails(-EACCES, "is not signed by the CA in ca-cert.pem");
	tls_scene_put_client((struct tls_cert_plan){ 0 }, NULL);
	tls_scene_fails(-EACCES, "is not signed by the CA in ca-cert.pem");
	tls_cert_free(&other);
}

TEST(test_tls_certificate_out_of_its_dates)
{
	tls_scene_use_x509();
	tls.plan.act = tls_peer_until_closed;
	tls_scene_put_client((struct tls_cert_plan){ .from_s = -7200, .to_s = -60 }, &tls.ca);
	tls_scene_fails(-EACCES, "has expired");
	ck_assert_int_eq(tls.report.alert, GNUTLS_A_CERTIFICATE_EXPIRED);
	tls_scene_put_client((struct tls_cert_plan){ .from_s = 60, .to_s = 7200 }, &tls.ca);
	tls_scene_fails(-EACCES, "valid only from a later time");
}

TEST(test_tls_certificate_not_for_clients)
{
	tls_scene_use_x509();
	tls_scene_put_client((struct tls_cert_plan){ .purpose = GNUTLS_KP_TLS_WWW_SERVER }, &tls.ca);
	tls_scene_fails(-EACCES, "key purpose");
	tls_scene_put_client((struct tls_cert_plan){ .purpose = GNUTLS_KP_ANY }, &tls.ca);
	tls_scene_works();
}

TEST(test_tls_certificate_revoked)
{
	struct tls_cert cert;

	tls_scene_use_x509();
	tls_cert_make(&cert, &(struct tls_cert_plan){ .name = "CN=mfsource,O=mf" }, &tls.ca);
	tls_cert_save(&cert, tls.dir, "client-cert.pem", "client-key.pem");
	tls_scene_works();
	tls_crl_save(&tls.ca, &cert, tls.dir, 3600);
	tls.plan.act = tls_peer_until_closed;
	tls_scene_fails(-EACCES, "has been revoked");
	ck_assert_int_eq(tls.report.alert, GNUTLS_A_CERTIFICATE_REVOKED);
	tls_cert_free(&cert);
}

TEST(test_tls_source_without_certificate)
{
	tls_scene_use_x509();
	tls.plan.cert_name = "";
	tls_scene_fails(-EACCES, "shows no certificate");
	tls.plan.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2";
	tls_scene_fails(-EACCES, "shows no certificate");
	tls.opts.verify_peer = false;
	tls_scene_works();
}

TEST(test_tls_name_not_authorised)
{
	tls_scene_use_x509();
	tls.opts.authz = "CN=somebody;O=mf,CN=other*;CN=mfsource,O=mf";
	tls.plan.act = tls_peer_until_closed;
	tls_scene_fails(-EACCES, "'O=mf,CN=mfsource' is not among those that tls-authz accepts");
	ck_assert_int_eq(tls.report.alert, GNUTLS_A_ACCESS_DENIED);
	tls.opts.authz = "CN=somebody;O=mf,CN=mf*";
	tls.plan.act = tls_scene_act_hello;
	tls.body = tls_scene_body_hello;
	tls_scene_works();
}

TEST(test_tls_source_rejects_our_certificate)
{
	struct tls_cert other;

	tls_scene_use_x509();
	tls.plan.ca_name = "ca-cert.pem";
	tls_scene_works();
	tls_cert_make(&other, &(struct tls_cert_plan){ .name = "CN=other ca", .ca = true }, NULL);
	tls_cert_save(&other, tls.dir, "other-ca.pem", NULL);
	tls_cert_free(&other);
	tls.plan.ca_name = "other-ca.pem";
	tls_scene_fails(-ECONNREFUSED, "the source ends the TLS handshake with the alert '");
}

TEST(test_tls_wrong_pre_shared_key)
{
	tls.plan.key = "ffeeddccbbaa99887766554433221100";
	tls_scene_fails(-EACCES, "the source's pre-shared key for identity 'qemu' is not the one in keys.psk");
	tls.plan.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2:+ECDHE-PSK:+DHE-PSK:+PSK";
	tls_scene_fails(-EACCES, "the source's pre-shared key for identity 'qemu' is not the one in keys.psk");
}

TEST(test_tls_unknown_identity)
{
	tls.plan.identity = "some'body";
	tls_scene_fails(-EACCES, "identity 'some\\x27body' is not in keys.psk");
	tls.plan.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2:+ECDHE-PSK:+DHE-PSK:+PSK";
	tls_scene_fails(-EACCES, "identity 'some\\x27body' is not in keys.psk");
}

TEST(test_tls_credentials_of_another_type)
{
	static const int kinds[][2] = {
		{ TLS_CREDS_PSK, TLS_PEER_X509 }, { TLS_CREDS_PSK, TLS_PEER_ANON },  { TLS_CREDS_X509, TLS_PEER_PSK },
		{ TLS_CREDS_ANON, TLS_PEER_PSK }, { TLS_CREDS_ANON, TLS_PEER_X509 },
	};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		tls.opts.type = (enum tls_creds_type)kinds[i][0];
		tls.plan.kind = kinds[i][1];
		tls.plan.priority = tls.plan.kind == TLS_PEER_PSK ? "NORMAL:-KX-ALL:+ECDHE-PSK:+DHE-PSK:+PSK" : NULL;
		if (tls.plan.kind == TLS_PEER_ANON)
			tls.plan.priority = "NORMAL:-KX-ALL:+ANON-DH";
		tls_scene_fails(-ECONNREFUSED, "compare the types of credentials");
	}
}

/* Encryption without authentication: only if asked for by name. */
TEST(test_tls_no_stranger_is_let_in_by_offering_less)
{
	tls.plan.kind = TLS_PEER_ANON;
	tls.plan.priority = "NORMAL:+ANON-DH:+ANON-ECDH:+PSK:+NULL";
	tls.opts.type = TLS_CREDS_X509;
	tls_scene_fails(-ECONNREFUSED, "nothing in common");
}

/* ---- who does not speak TLS ------------------------------------------------------------------------------------- */

#define RAW_BYTES 16

static void act_raw(struct tls_peer *p)
{
	const char *text = p->plan->arg;

	if (text)
		tls_peer_send_raw(p, text, RAW_BYTES);
	tls_peer_until_closed(p);
}

TEST(test_tls_plain_source_is_told_what_is_missing)
{
	tls.plan.kind = TLS_PEER_RAW;
	tls.plan.act = act_raw;
	tls.plan.arg = "QEVM\0\0\0\3xxxxxxxx";
	tls_scene_fails(-EPROTO, "the source speaks without TLS, which is required here");
	tls.bite_bytes = 1;
	tls_scene_fails(-EPROTO, "began with 'Q', which is not TLS");
	tls.bite_bytes = 0;
	tls.plan.arg = "GET / HTTP/1.0\r\n";
	tls_scene_fails(-EPROTO, "began with 'GET ', which is not TLS");
	tls.plan.arg = "\x17\3\3\0\1xxxxxxxxxxx";
	tls_scene_fails(-EPROTO, "which is not TLS");
}

TEST(test_tls_garbage_that_begins_as_tls)
{
	tls.plan.kind = TLS_PEER_RAW;
	tls.plan.act = act_raw;
	tls.plan.arg = "\x16\3\1\0\x0b\2\0\0\7"
	               "abcdefg";
	tls_scene_fails(-EPROTO, "TLS handshake: ");
	tls.plan.arg = "\x16\3\1\xff\xff"
	               "abcdefghijk";
	tls_scene_fails(-EPROTO, "too long");
	tls.plan.arg = "\x16\5\1\0\x0b"
	               "abcdefghijk";
	tls_scene_fails(-EPROTO, "no TLS record");
}

static void act_nothing(struct tls_peer *p)
{
	(void)p;
}

TEST(test_tls_source_that_hangs_up)
{
	tls.plan.kind = TLS_PEER_RAW;
	tls.plan.act = act_nothing;
	tls_scene_fails(-ENODATA, "closed before the TLS handshake");
	tls_scene_use_x509();
	tls.plan.hang_up_after = 20;
	tls_scene_fails(-ENODATA, "closed in the middle of its first TLS message");
	tls.plan.hang_up_after = 600; /* in its second flight, with the certificate */
	tls_scene_fails(-ENODATA, "closed in the middle of the TLS handshake");
}

/* What QEMU does when the server takes another type of credentials: unread bytes turn its close into a reset. */
static void act_reset(struct tls_peer *p)
{
	const struct linger now = { 1, 0 };

	tls_peer_send_raw(p, p->plan->arg, RAW_BYTES);
	ASSERT(setsockopt(p->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)) == 0);
	usleep(50000);
}

TEST(test_tls_source_that_resets)
{
	tls.plan.kind = TLS_PEER_RAW;
	tls.plan.act = act_reset;
	tls.plan.arg = "\x16\3\1\1\0abcdefghijk";
	tls.over_tcp = true;
	tls_scene_fails(-ENODATA, "closed in the middle of its first TLS message");
}

TEST(test_tls_source_that_stalls)
{
	static const size_t after[] = { 1, 5, 100, 600 }; /* the last one is in the second flight */

	tls_scene_use_x509();
	for (size_t i = 0; i < sizeof(after) / sizeof(after[0]); i++) {
		uint64_t begun_ns = clock_now_ns();

		tls.plan.stall_after = after[i];
		tls.deadline_ns = deadline_after_ns(200 * NS_PER_MS);
		tls_scene_fails(-ETIMEDOUT, "the TLS handshake was not over before the deadline");
		ck_assert_uint_lt(clock_now_ns() - begun_ns, 5 * NS_PER_S);
	}
	tls.plan.kind = TLS_PEER_RAW;
	tls.plan.act = act_raw;
	tls.deadline_ns = deadline_after_ns(100 * NS_PER_MS);
	tls_scene_fails(-ETIMEDOUT, "; 0 bytes came");
}

/* The deadline is for the whole: a byte now and then does not push it out. */
TEST(test_tls_deadline_covers_the_whole_handshake)
{
	tls.plan.kind = TLS_PEER_RAW;
	tls.plan.arg = "\x16\3\1\1\0abcdefghijk"; /* of 256 bytes that do not come */
	tls.plan.act = act_raw;
	tls.bite_bytes = 1;
	tls.deadline_ns = deadline_after_ns(100 * NS_PER_MS);
	tls_scene_fails(-ETIMEDOUT, "; 16 bytes came");
}

#endif
