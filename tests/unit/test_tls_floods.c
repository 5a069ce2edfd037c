/* Too much TLS that is not data: (5) of engine/channel/tls/tls.h */
#include "base/be.h"
#include "base/clock.h"
#include "tests/support/tls_scene.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#if HAVE_GNUTLS

#define TOO_MUCH "more than 131072 bytes or 512 records of handshake"

enum { CCS = 20, ALERT, HANDSHAKE, DATA };

/* Until the server has closed. Return: whether it has. */
static bool send_record(struct tls_peer *p, unsigned type, const void *body, size_t bytes)
{
	uint8_t head[5] = { (uint8_t)type, 3, 1, (uint8_t)(bytes >> 8), (uint8_t)bytes };

	return send(p->fd, head, sizeof(head), MSG_NOSIGNAL) != sizeof(head) ||
	       (bytes > 0 && send(p->fd, body, bytes, MSG_NOSIGNAL) != (ssize_t)bytes);
}

/* Records that say nothing, or next to nothing, as many as a source is heard. */
struct flood {
	const char *what;
	unsigned type;
	size_t first_bytes, bytes;
	uint8_t first[4], each;
	const char *says; /* NULL: TOO_MUCH */
};

static const struct flood floods[] = {
	{ "a hello of 16 MiB", HANDSHAKE, 4, 16380, { 1, 0xff, 0xff, 0xff }, 'y', NULL },
	{ "a hello of 16 MiB in small records", HANDSHAKE, 4, 512, { 1, 0xff, 0xff, 0xff }, 'y', NULL },
	{ "a hello in records of a byte", HANDSHAKE, 4, 1, { 1, 0xff, 0xff, 0xff }, 'y', NULL },
	/* GnuTLS refuses these itself, at once. */
	{ "empty records", HANDSHAKE, 4, 0, { 1, 0, 0xff, 0xff }, 0, "TLS handshake: " },
	{ "changes of cipher", CCS, 1, 1, { 1 }, 1, "T" },
	{ "warnings", ALERT, 2, 2, { 1, 90 }, 1, "T" },
};

static void act_flood(struct tls_peer *p)
{
	const struct flood *f = p->plan->arg;
	uint8_t body[16384];
	bool closed = send_record(p, f->type, f->first, f->first_bytes);
	unsigned sent = 0;

	memset(body, f->each, sizeof(body));
	for (; !closed && sent < 1000000; sent++)
		closed = send_record(p, f->type, body, f->bytes);
	ASSERT(closed);
	p->report.value = sent;
}

TEST_CASE("floods", 60, TLS_SCENE);

TEST_ROWS(test_tls_a_handshake_without_end_is_refused, floods)
{
	const struct flood *f = &floods[_i];
	uint64_t begin_ns = clock_now_ns();

	tls_scene_use_x509();
	tls.plan = (struct tls_peer_plan){ .kind = TLS_PEER_RAW, .dir = tls.dir, .act = act_flood, .arg = f };
	tls_scene_fails(-EPROTO, f->says ? f->says : TOO_MUCH);
	printf("%s: closed after %lld records at most, %.3f s\n", f->what, (long long)tls.report.value,
	       (double)(clock_now_ns() - begin_ns) / 1e9);
}

/* Fourteen CAs between the source and ours; GnuTLS verifies no longer chains than that. */
#define CHAIN 14

static size_t append_file(char *text, size_t text_bytes, size_t room, const char *name)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", tls.dir, name);
	f = fopen(path, "r");
	ck_assert_ptr_nonnull(f);
	text_bytes += fread(text + text_bytes, 1, room - 1 - text_bytes, f);
	fclose(f);
	text[text_bytes] = '\0';
	return text_bytes;
}

/* The source's first, then the signer of the previous one. */
static size_t put_chain(void)
{
	static char text[64 << 10];
	struct tls_cert cas[CHAIN + 1], client;
	size_t bytes;
	char name[64];

	cas[0] = tls.ca;
	for (unsigned i = 1; i <= CHAIN; i++) {
		snprintf(name, sizeof(name), "CN=a certificate authority between with number %u,O=mf", i);
		tls_cert_make(&cas[i], &(struct tls_cert_plan){ .name = name, .ca = true }, &cas[i - 1]);
	}
	tls_cert_make(&client, &(struct tls_cert_plan){ .name = "CN=mfsource,O=mf" }, &cas[CHAIN]);
	tls_cert_save(&client, tls.dir, "client-cert.pem", "client-key.pem");
	tls_cert_free(&client);
	bytes = append_file(text, 0, sizeof(text), "client-cert.pem");
	for (unsigned i = CHAIN; i > 0; i--) {
		tls_cert_save(&cas[i], tls.dir, "between.pem", NULL);
		bytes = append_file(text, bytes, sizeof(text), "between.pem");
		tls_cert_free(&cas[i]);
	}
	tls_file_save(tls.dir, "client-cert.pem", text);
	return bytes;
}

TEST(test_tls_a_long_chain_of_certificates_is_taken)
{
	size_t bytes;

	tls_scene_use_x509();
	bytes = put_chain();
	printf("a chain of %d certificates, %zu bytes as text\n", CHAIN + 1, bytes);
	ck_assert_uint_gt(bytes, 8192);
	tls.plan.act = tls_scene_act_hello;
	tls.body = tls_scene_body_hello;
	for (unsigned i = 0; i < 2; i++) {
		tls.plan.priority = i ? "NORMAL:-VERS-ALL:+VERS-TLS1.2" : NULL;
		tls_scene_works();
	}
}

/* Two such are within 128 KiB; what is beyond is refused as what it is. */
static void act_hello_twice(struct tls_peer *p)
{
	uint8_t body[60] = { 1, 0, 0, 56, 3, 3 };

	send_record(p, HANDSHAKE, body, sizeof(body));
	send_record(p, HANDSHAKE, body, sizeof(body));
	tls_peer_until_closed(p);
}

TEST(test_tls_a_hello_that_is_none_is_refused)
{
	tls_scene_use_x509();
	tls.plan = (struct tls_peer_plan){ .kind = TLS_PEER_RAW, .dir = tls.dir, .act = act_hello_twice };
	tls_scene_run();
	ck_assert_int_lt(tls.wrapped, 0);
}

/* ---- after the handshake ---------------------------------------------------------------------------------------- */

static void act_warnings(struct tls_peer *p)
{
	const unsigned *count = p->plan->arg;

	for (unsigned i = 0; i < *count; i++)
		ASSERT(gnutls_alert_send(p->session, GNUTLS_AL_WARNING, GNUTLS_A_NO_RENEGOTIATION) >= 0);
	tls_peer_send(p, "x", 1);
}

/* Sending to a peer that has closed is not the peer's error. */
static void act_many_warnings(struct tls_peer *p)
{
	for (unsigned i = 0; i < 100000; i++)
		gnutls_alert_send(p->session, GNUTLS_AL_WARNING, GNUTLS_A_NO_RENEGOTIATION);
}

static void body_one_byte(struct chan *ch)
{
	char byte;

	ck_assert_int_eq(tls_scene_read(ch, &byte, 1), 1);
}

static void body_too_much(struct chan *ch)
{
	char byte;

	ck_assert_int_eq(tls_scene_read(ch, &byte, 1), -EPROTO);
	tls_scene_says("more than 131072 bytes or 512 records of TLS's own among its data");
}

TEST(test_tls_what_is_no_data_is_bounded_behind_the_handshake)
{
	static const unsigned few = 400;

	tls.plan.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2:+ECDHE-PSK:+DHE-PSK:+PSK";
	tls.plan.act = act_warnings;
	tls.plan.arg = &few;
	tls.body = body_one_byte;
	tls_scene_works();
	tls.plan.act = act_many_warnings;
	tls.body = body_too_much;
	tls_scene_works();
}

/* Each asks for a new key of ours, too, which nobody has a use for. */
static void act_key_updates(struct tls_peer *p)
{
	for (unsigned i = 0; i < 20000; i++)
		if (gnutls_session_key_update(p->session, GNUTLS_KU_PEER) < 0)
			return;
}

static void body_key_updates(struct chan *ch)
{
	char byte;

	ck_assert_int_eq(tls_scene_read(ch, &byte, 1), -EPROTO);
	printf("%s\n", tls.err.text);
	/* Nothing was written for them. */
	ck_assert_uint_lt(ch->bytes_out, 1);
}

TEST(test_tls_a_flood_of_key_updates_is_refused)
{
	tls.plan.act = act_key_updates;
	tls.body = body_key_updates;
	tls_scene_works();
}

/* A record of TLS 1.3 with a content type of our choice, which no function of GnuTLS sends. */
struct forger {
	gnutls_aead_cipher_hd_t cipher;
	uint8_t iv[12];
	uint64_t seq;
};

static void forger_init(struct forger *f, gnutls_session_t session)
{
	unsigned char seq[8];
	gnutls_datum_t iv, key;

	MUST_BE_ZERO(gnutls_record_get_state(session, 0, NULL, &iv, &key, seq));
	ASSERT(iv.size == sizeof(f->iv));
	memcpy(f->iv, iv.data, sizeof(f->iv));
	MUST_BE_ZERO(gnutls_aead_cipher_init(&f->cipher, gnutls_cipher_get(session), &key));
	f->seq = be64_load(seq);
}

static bool forger_send(struct forger *f, struct tls_peer *p, uint8_t type, const void *body, size_t bytes)
{
	static uint8_t record[5 + 16384 + 1 + 16], plain[16384 + 1];
	size_t sealed = sizeof(record) - 5;
	uint8_t nonce[12];

	memcpy(plain, body, bytes);
	plain[bytes] = type;
	memcpy(record, (uint8_t[]){ 23, 3, 3, (uint8_t)((bytes + 17) >> 8), (uint8_t)(bytes + 17) }, 5);
	memcpy(nonce, f->iv, sizeof(nonce));
	for (unsigned i = 0; i < 8; i++)
		nonce[4 + i] ^= (uint8_t)(f->seq >> (56 - 8 * i));
	f->seq++;
	MUST_BE_ZERO(gnutls_aead_cipher_encrypt(f->cipher, nonce, sizeof(nonce), record, 5, 16, plain, bytes + 1,
	                                        record + 5, &sealed));
	return send(p->fd, record, 5 + sealed, MSG_NOSIGNAL) == (ssize_t)(5 + sealed);
}

/* A message of 16 MiB that never ends; with data between its pieces, or without. */
static void act_long_message(struct tls_peer *p)
{
	const bool *between = p->plan->arg;
	uint8_t body[16384] = { 24, 0xff, 0xff, 0xff };
	struct forger f;

	forger_init(&f, p->session);
	for (unsigned i = 0; i < 1000; i++) {
		if (!forger_send(&f, p, 22, body, sizeof(body)))
			break;
		if (*between && !forger_send(&f, p, 23, "x", 1))
			break;
		memset(body, 0, 4);
		p->report.value++;
	}
	gnutls_aead_cipher_deinit(f.cipher);
}

static void body_to_an_error(struct chan *ch)
{
	char byte;
	ssize_t n;

	do
		n = tls_scene_read(ch, &byte, 1);
	while (n == 1);
	ck_assert_int_eq(n, -EPROTO);
	printf("%s\n", tls.err.text);
	ck_assert_uint_lt(ch->bytes_in, 100);
}

TEST_EACH(test_tls_a_long_message_behind_the_handshake_is_refused, 2)
{
	static const bool between[] = { false, true };

	tls.plan.act = act_long_message;
	tls.plan.arg = &between[_i];
	tls.body = body_to_an_error;
	tls_scene_works();
	printf("%lld pieces of 16 KiB\n", (long long)tls.report.value);
	/* What is under way in the sockets, too. */
	ck_assert_int_lt(tls.report.value, 100);
}

/* Data are not counted, in whatever pieces they come, and they earn what renewals of keys need. */
static void act_pieces(struct tls_peer *p)
{
	for (unsigned i = 0; i < 3000; i++) {
		tls_peer_send(p, "x", 1);
		if (i % 500 == 0)
			ASSERT(gnutls_session_key_update(p->session, 0) >= 0);
	}
	tls_peer_send_pattern(p, 0, 1 << 20);
}

static void body_pieces(struct chan *ch)
{
	char bytes[3000];

	ck_assert_int_eq(tls_scene_read(ch, bytes, sizeof(bytes)), sizeof(bytes));
	tls_scene_reads_pattern(ch, 0, 1 << 20);
}

TEST(test_tls_data_are_not_counted_as_something_else)
{
	tls.plan.act = act_pieces;
	tls.body = body_pieces;
	tls_scene_works();
}

#endif
