/* A channel inside TLS against a GnuTLS client in a process of its own: engine/channel/tls.h */
#include "engine/channel/tls.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/err.h"
#include "config.h"
#include "coroutine/group.h"
#include "coroutine/io.h"
#include "coroutine/reactor.h"
#include "coroutine/wait.h"
#include "engine/channel/channel.h"
#include "engine/channel/socket.h"
#include "engine/channel/tls_creds.h"
#include "tests/support/census.h"
#include "tests/support/check_main.h"
#include "tests/support/tls_peer.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#if HAVE_VALGRIND
#include <valgrind/valgrind.h>
#else
#define RUNNING_ON_VALGRIND 0
#endif

#if HAVE_GNUTLS

/* ---- a channel in between: small bites, and a word when an operation is about to park --------------------------- */

struct slow_chan {
	struct chan chan;
	struct chan *plain; /* owned */
	size_t bite_bytes;  /* at most so much in a read; 0: all */
	unsigned ops;
	unsigned tell_at;   /* set told when this operation begins; 0: never */
	struct event *told;
};

static void slow_count(struct slow_chan *sc)
{
	if (++sc->ops == sc->tell_at)
		event_set(sc->told);
}

static ssize_t slow_readv(struct chan *ch, struct iovec *iov, int iov_count, uint64_t deadline_ns, struct err *err)
{
	struct slow_chan *sc = (struct slow_chan *)ch;
	struct iovec bite = iov[0];

	slow_count(sc);
	if (!sc->bite_bytes)
		return chan_readv(sc->plain, iov, iov_count, deadline_ns, err);
	if (bite.iov_len > sc->bite_bytes)
		bite.iov_len = sc->bite_bytes;
	return chan_readv(sc->plain, &bite, 1, deadline_ns, err);
}

static int slow_write_all(struct chan *ch, const void *buf, size_t bytes, uint64_t deadline_ns, struct err *err)
{
	struct slow_chan *sc = (struct slow_chan *)ch;

	slow_count(sc);
	return chan_write_all(sc->plain, buf, bytes, deadline_ns, err);
}

static unsigned ops_seen; /* of the last one closed */

static void slow_close(struct chan *ch)
{
	struct slow_chan *sc = (struct slow_chan *)ch;

	ops_seen = sc->ops;
	chan_close(sc->plain);
	free(sc);
}

static const struct chan_ops slow_ops = { .readv = slow_readv, .write_all = slow_write_all, .close = slow_close };

static struct slow_chan *slow_chan_new(struct chan *plain)
{
	struct slow_chan *sc = calloc(1, sizeof(*sc));

	ASSERT(sc);
	sc->chan.ops = &slow_ops;
	sc->chan.can_write = true;
	sc->plain = plain;
	memcpy(sc->chan.name, plain->name, sizeof(sc->chan.name));
	return sc;
}

/* ---- a server in a coroutine ---------------------------------------------------------------------------------------- */

static struct reactor *reactor;
static struct group group;
static char dir[64];
static struct tls_cert ca;
static struct tls_options opts;
static struct tls_peer_plan plan;
static struct tls_peer peer;
static struct tls_peer_report report;
static uint64_t deadline_ns;
static struct slow_chan *slow; /* the server's plain channel; gone with it */
static struct event told;
static size_t bite_bytes;
static unsigned tell_at;

#define MUST_BE_ZERO(call) ASSERT((call) == 0)

/* The server's side of a test; the channel is closed behind it. */
typedef void body_fn(struct chan *ch);
static body_fn *body;
static int wrapped; /* what tls_chan_wrap said */
static struct err err;
static char session[TLS_SESSION_TEXT_BYTES];
static struct co *server_co; /* NULL when it has ended */

static int serve(void *arg);
static co_fn *serve_fn = serve;

static void setup(void)
{
	int r = reactor_new(&reactor, &ring_uring, 0);

	if (r == -EPERM || r == -ENOSYS)
		test_skip("the kernel permits no io_uring");
	ck_assert_int_eq(r, 0);
	group_init(&group, &reactor->sched, "test");
	event_init(&told, &reactor->sched, "told");
	tls_dir_make(dir, &ca);
	opts = (struct tls_options){ .type = TLS_CREDS_PSK, .dir = dir, .verify_peer = true };
	plan = (struct tls_peer_plan){ .kind = TLS_PEER_PSK, .dir = dir };
	deadline_ns = deadline_after_ns(30 * NS_PER_S);
	body = NULL;
	bite_bytes = 0;
	tell_at = 0;
}

static void teardown(void)
{
	ck_assert_uint_eq(reactor->ring->in_flight, 0);
	reactor_free(reactor);
	tls_cert_free(&ca);
	tls_dir_remove(dir);
}

static void use_x509(void)
{
	opts.type = TLS_CREDS_X509;
	plan.kind = TLS_PEER_X509;
}

struct server {
	struct chan *plain;
	struct tls_creds *creds;
};

static void serve_wrapped(struct chan *ch)
{
	tls_chan_describe(ch, session);
	if (body)
		body(ch);
	chan_close(ch);
}

static int serve(void *arg)
{
	struct server *server = arg;
	struct chan *ch = NULL;

	server_co = reactor->sched.current;
	wrapped = tls_chan_wrap(&ch, server->plain, server->creds, &opts, deadline_ns, &err);
	if (wrapped == 0)
		serve_wrapped(ch);
	else
		ck_assert(!ch && err.code == wrapped);
	server_co = NULL;
	event_set(&told); /* nothing to wait for any more */
	return 0;
}

static bool over_tcp;

static void make_pair(int sv[2])
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t sa_bytes = sizeof(sa);
	int listener;

	if (!over_tcp) {
		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
		return;
	}
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(listener, (struct sockaddr *)&sa, sizeof(sa)), 0);
	ck_assert_int_eq(listen(listener, 1), 0);
	ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&sa, &sa_bytes), 0);
	sv[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(connect(sv[1], (struct sockaddr *)&sa, sizeof(sa)), 0);
	sv[0] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	ck_assert_int_ge(sv[0], 0);
	close(listener);
}

static void start(struct server *server)
{
	struct chan *plain;
	int sv[2];

	err = ERR_NONE;
	wrapped = 1;
	session[0] = '\0';
	ck_assert_msg(tls_creds_load(&server->creds, &opts, &err) == 0, "%s", err.text);
	make_pair(sv);
	tls_peer_start(&peer, &plan, sv[1]);
	ck_assert_int_eq(socket_chan_new(&plain, reactor, sv[0], "pair"), 0);
	slow = slow_chan_new(plain);
	slow->bite_bytes = bite_bytes;
	slow->tell_at = tell_at;
	slow->told = &told;
	server->plain = &slow->chan;
	event_clear(&told);
	ck_assert_int_eq(group_spawn(&group, "server", serve_fn, server), 0);
}

static void finish(struct server *server)
{
	int r = reactor_run(reactor, &group, deadline_after_ns(40 * NS_PER_S));

	ck_assert_msg(r == 0, "%s", strerror(-r));
	tls_peer_wait(&peer, &report);
	tls_creds_free(server->creds);
}

/* The whole of it: server and source, until both are done. */
static void run(void)
{
	struct server server;

	start(&server);
	finish(&server);
}

static void ck_says(const char *words)
{
	ck_assert_msg(strstr(err.text, words) != NULL, "'%s' is not in: %s", words, err.text);
	ck_assert_msg(!strstr(err.text, "00112233"), "a secret: %s", err.text);
	ck_assert_msg(!strstr(err.text, "ffeeddcc"), "a secret: %s", err.text);
}

static void ck_works(void)
{
	run();
	ck_assert_msg(wrapped == 0, "%s", err.text);
	ck_assert_int_eq(report.handshake, 0);
}

static void ck_fails(int code, const char *words)
{
	run();
	ck_assert_msg(wrapped == code, "%d instead of %d: %s", wrapped, code, err.text);
	ck_says(words);
}

/* A certificate of the source's, made after @how by @issuer. */
static void put_client(struct tls_cert_plan how, const struct tls_cert *issuer)
{
	struct tls_cert cert;

	if (!how.name)
		how.name = "CN=mfsource,O=mf";
	tls_cert_make(&cert, &how, issuer);
	tls_cert_save(&cert, dir, "client-cert.pem", "client-key.pem");
	tls_cert_free(&cert);
}

/* Read until @bytes are there, the end, or an error. Return: bytes, or the error. */
static ssize_t read_fully(struct chan *ch, void *buf, size_t bytes)
{
	size_t got = 0;

	while (got < bytes) {
		struct iovec iov = { (char *)buf + got, bytes - got };
		ssize_t n = chan_readv(ch, &iov, 1, deadline_ns, &err);

		if (n < 0)
			return n;
		if (n == 0)
			break;
		got += (size_t)n;
	}
	return (ssize_t)got;
}

static void ck_reads_pattern(struct chan *ch, uint64_t off, size_t bytes)
{
	uint8_t *got = malloc(bytes), *want = malloc(bytes);

	ck_assert_int_eq(read_fully(ch, got, bytes), (ssize_t)bytes);
	tls_pattern(want, off, bytes);
	ck_assert(memcmp(got, want, bytes) == 0);
	free(got);
	free(want);
}

/* ---- handshakes that end well ------------------------------------------------------------------------------------- */

static void act_hello(struct tls_peer *p)
{
	tls_peer_send(p, "QEVM\0\0\0\3", 8);
	tls_peer_until_closed(p);
}

static void body_hello(struct chan *ch)
{
	char first[8];

	ck_assert_int_eq(read_fully(ch, first, 8), 8);
	ck_assert_mem_eq(first, "QEVM\0\0\0\3", 8);
	ck_assert(tls_chan_is(ch));
	ck_assert(ch->can_write);
	ck_assert_str_eq(ch->name, "pair");
	ck_assert_uint_eq(ch->bytes_in, 8);
}

START_TEST(test_tls_each_type_of_credentials_works)
{
	plan.act = act_hello;
	body = body_hello;
	ck_works();
	ck_assert_ptr_nonnull(strstr(session, "TLS1.3"));
	use_x509();
	ck_works();
	ck_assert_ptr_nonnull(strstr(session, "TLS1.3"));
	opts.type = TLS_CREDS_ANON;
	plan.kind = TLS_PEER_ANON;
	ck_works();
	ck_assert_ptr_nonnull(strstr(session, "ANON-DH"));
}
END_TEST

START_TEST(test_tls_1_2_works_and_1_1_does_not)
{
	use_x509();
	plan.act = act_hello;
	body = body_hello;
	plan.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2";
	ck_works();
	ck_assert_ptr_nonnull(strstr(session, "TLS1.2"));
	plan.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.1:+SHA1:+SIGN-RSA-SHA1:+SIGN-ECDSA-SHA1";
	ck_fails(-ECONNREFUSED, "nothing in common with the source");
}
END_TEST

/* PSK shares keys of the day all the same: who learns the key later cannot read what was recorded. */
START_TEST(test_tls_psk_is_forward_secret)
{
	plan.act = act_hello;
	ck_works();
	ck_assert_msg(strstr(session, "DHE"), "%s", session);
}
END_TEST

START_TEST(test_tls_server_chooses_the_cipher)
{
	const char *source = "NORMAL:-CIPHER-ALL:+CHACHA20-POLY1305:+AES-256-GCM:+AES-128-GCM:+PSK:+DHE-PSK:+ECDHE-PSK";
	char buf[TLS_PRIORITY_BYTES];

	plan.priority = source;
	opts.priority = tls_creds_priority(buf, &opts, true);
	ck_works();
	ck_assert_msg(strstr(session, "AES-128-GCM"), "%s", session);
	opts.priority = NULL;
	opts.priority = tls_creds_priority(buf, &opts, false);
	ck_works();
	ck_assert_msg(strstr(session, "CHACHA20"), "%s", session);
	opts.priority = "SECURE256:-CIPHER-ALL:+AES-256-GCM"; /* no key exchange with SHA-384 is in TLS 1.3's PSK */
	ck_fails(-ECONNREFUSED, "nothing in common");
	use_x509();
	plan.priority = NULL;
	opts.priority = "NORMAL:-CIPHER-ALL:+AES-256-GCM";
	ck_works();
	ck_assert_msg(strstr(session, "AES-256-GCM"), "%s", session);
}
END_TEST

START_TEST(test_tls_handshake_byte_by_byte)
{
	plan.act = act_hello;
	body = body_hello;
	bite_bytes = 1;
	ck_works();
	use_x509();
	ck_works();
}
END_TEST

START_TEST(test_tls_hexadecimal_identity)
{
	tls_file_save(dir, "keys.psk", "other:0011\n#71656d75:" TLS_PEER_PSK_KEY "\n");
	ck_works();
}
END_TEST

/* ---- who may not come ------------------------------------------------------------------------------------------------ */

START_TEST(test_tls_certificate_of_another_ca)
{
	struct tls_cert other;

	use_x509();
	tls_cert_make(&other, &(struct tls_cert_plan){ .name = "CN=other ca", .ca = true }, NULL);
	put_client((struct tls_cert_plan){ 0 }, &other);
	plan.act = tls_peer_until_closed;
	ck_fails(-EACCES, "is not signed by the CA in ca-cert.pem");
	ck_assert_int_eq(report.alert, GNUTLS_A_UNKNOWN_CA);
	/* With the same name it is another one all the same. */
	tls_cert_free(&other);
	tls_cert_make(&other, &(struct tls_cert_plan){ .name = "CN=the ca", .ca = true }, NULL);
	put_client((struct tls_cert_plan){ 0 }, &other);
	ck_fails(-EACCES, "is not signed by the CA in ca-cert.pem");
	put_client((struct tls_cert_plan){ 0 }, NULL);
	ck_fails(-EACCES, "is not signed by the CA in ca-cert.pem");
	tls_cert_free(&other);
}
END_TEST

START_TEST(test_tls_certificate_out_of_its_dates)
{
	use_x509();
	plan.act = tls_peer_until_closed;
	put_client((struct tls_cert_plan){ .from_s = -7200, .to_s = -60 }, &ca);
	ck_fails(-EACCES, "has expired");
	ck_assert_int_eq(report.alert, GNUTLS_A_CERTIFICATE_EXPIRED);
	put_client((struct tls_cert_plan){ .from_s = 60, .to_s = 7200 }, &ca);
	ck_fails(-EACCES, "is not yet valid");
}
END_TEST

START_TEST(test_tls_certificate_not_for_clients)
{
	use_x509();
	put_client((struct tls_cert_plan){ .purpose = GNUTLS_KP_TLS_WWW_SERVER }, &ca);
	ck_fails(-EACCES, "key purpose");
	put_client((struct tls_cert_plan){ .purpose = GNUTLS_KP_ANY }, &ca);
	ck_works();
}
END_TEST

START_TEST(test_tls_certificate_revoked)
{
	struct tls_cert cert;

	use_x509();
	tls_cert_make(&cert, &(struct tls_cert_plan){ .name = "CN=mfsource,O=mf" }, &ca);
	tls_cert_save(&cert, dir, "client-cert.pem", "client-key.pem");
	ck_works();
	tls_crl_save(&ca, &cert, dir, 3600);
	plan.act = tls_peer_until_closed;
	ck_fails(-EACCES, "has been revoked");
	ck_assert_int_eq(report.alert, GNUTLS_A_CERTIFICATE_REVOKED);
	tls_cert_free(&cert);
}
END_TEST

START_TEST(test_tls_source_without_certificate)
{
	use_x509();
	plan.cert_name = "";
	ck_fails(-EACCES, "shows no certificate");
	plan.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2";
	ck_fails(-EACCES, "shows no certificate");
	opts.verify_peer = false;
	ck_works();
}
END_TEST

START_TEST(test_tls_name_not_authorised)
{
	use_x509();
	opts.authz = "CN=somebody;O=mf,CN=other*;CN=mfsource,O=mf";
	plan.act = tls_peer_until_closed;
	ck_fails(-EACCES, "'O=mf,CN=mfsource' is not among those that tls-authz accepts");
	ck_assert_int_eq(report.alert, GNUTLS_A_ACCESS_DENIED);
	opts.authz = "CN=somebody;O=mf,CN=mf*";
	plan.act = act_hello;
	body = body_hello;
	ck_works();
}
END_TEST

START_TEST(test_tls_source_rejects_our_certificate)
{
	struct tls_cert other;

	use_x509();
	plan.ca_name = "ca-cert.pem";
	ck_works();
	tls_cert_make(&other, &(struct tls_cert_plan){ .name = "CN=other ca", .ca = true }, NULL);
	tls_cert_save(&other, dir, "other-ca.pem", NULL);
	tls_cert_free(&other);
	plan.ca_name = "other-ca.pem";
	ck_fails(-ECONNREFUSED, "the source ends the TLS handshake with the alert '");
}
END_TEST

START_TEST(test_tls_wrong_pre_shared_key)
{
	plan.key = "ffeeddccbbaa99887766554433221100";
	ck_fails(-EACCES, "the source's pre-shared key for identity 'qemu' is not the one in keys.psk");
	plan.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2:+ECDHE-PSK:+DHE-PSK:+PSK";
	ck_fails(-EACCES, "the source's pre-shared key for identity 'qemu' is not the one in keys.psk");
}
END_TEST

START_TEST(test_tls_unknown_identity)
{
	plan.identity = "some'body";
	ck_fails(-EACCES, "identity 'some\\x27body' is not in keys.psk");
	plan.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2:+ECDHE-PSK:+DHE-PSK:+PSK";
	ck_fails(-EACCES, "identity 'some\\x27body' is not in keys.psk");
}
END_TEST

START_TEST(test_tls_credentials_of_another_type)
{
	static const int kinds[][2] = {
		{ TLS_CREDS_PSK, TLS_PEER_X509 }, { TLS_CREDS_PSK, TLS_PEER_ANON },  { TLS_CREDS_X509, TLS_PEER_PSK },
		{ TLS_CREDS_ANON, TLS_PEER_PSK }, { TLS_CREDS_ANON, TLS_PEER_X509 },
	};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		opts.type = (enum tls_creds_type)kinds[i][0];
		plan.kind = kinds[i][1];
		plan.priority = plan.kind == TLS_PEER_PSK ? "NORMAL:-KX-ALL:+ECDHE-PSK:+DHE-PSK:+PSK" : NULL;
		if (plan.kind == TLS_PEER_ANON)
			plan.priority = "NORMAL:-KX-ALL:+ANON-DH";
		ck_fails(-ECONNREFUSED, "compare the types of credentials");
	}
}
END_TEST

/* Encryption without authentication: only if asked for by name. */
START_TEST(test_tls_no_stranger_is_let_in_by_offering_less)
{
	plan.kind = TLS_PEER_ANON;
	plan.priority = "NORMAL:+ANON-DH:+ANON-ECDH:+PSK:+NULL";
	opts.type = TLS_CREDS_X509;
	ck_fails(-ECONNREFUSED, "nothing in common");
}
END_TEST

/* ---- who does not speak TLS ------------------------------------------------------------------------------------------- */

#define RAW_BYTES 16

static void act_raw(struct tls_peer *p)
{
	const char *text = p->plan->arg;

	if (text)
		tls_peer_send_raw(p, text, RAW_BYTES);
	tls_peer_until_closed(p);
}

START_TEST(test_tls_plain_source_is_told_what_is_missing)
{
	plan.kind = TLS_PEER_RAW;
	plan.act = act_raw;
	plan.arg = "QEVM\0\0\0\3xxxxxxxx";
	ck_fails(-EPROTO, "the source speaks without TLS, which is required here");
	bite_bytes = 1;
	ck_fails(-EPROTO, "began with 'Q', which is not TLS");
	bite_bytes = 0;
	plan.arg = "GET / HTTP/1.0\r\n";
	ck_fails(-EPROTO, "began with 'GET ', which is not TLS");
	plan.arg = "\x17\3\3\0\1xxxxxxxxxxx";
	ck_fails(-EPROTO, "which is not TLS");
}
END_TEST

START_TEST(test_tls_garbage_that_begins_as_tls)
{
	plan.kind = TLS_PEER_RAW;
	plan.act = act_raw;
	plan.arg = "\x16\3\1\0\x0b\2\0\0\7" "abcdefg";
	ck_fails(-EPROTO, "TLS handshake: ");
	plan.arg = "\x16\3\1\xff\xff" "abcdefghijk";
	ck_fails(-EPROTO, "too long");
	plan.arg = "\x16\5\1\0\x0b" "abcdefghijk";
	ck_fails(-EPROTO, "no TLS record");
}
END_TEST

static void act_nothing(struct tls_peer *p)
{
	(void)p;
}

START_TEST(test_tls_source_that_hangs_up)
{
	plan.kind = TLS_PEER_RAW;
	plan.act = act_nothing;
	ck_fails(-ENODATA, "closed before the TLS handshake");
	use_x509();
	plan.hang_up_after = 20;
	ck_fails(-ENODATA, "closed in the middle of its first TLS message");
	plan.hang_up_after = 600; /* in its second flight, with the certificate */
	ck_fails(-ENODATA, "closed in the middle of the TLS handshake");
}
END_TEST

/* What QEMU does when the server takes another type of credentials: unread bytes turn its close into a reset. */
static void act_reset(struct tls_peer *p)
{
	const struct linger now = { 1, 0 };

	tls_peer_send_raw(p, p->plan->arg, RAW_BYTES);
	ASSERT(setsockopt(p->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)) == 0);
	usleep(50000);
}

START_TEST(test_tls_source_that_resets)
{
	plan.kind = TLS_PEER_RAW;
	plan.act = act_reset;
	plan.arg = "\x16\3\1\1\0abcdefghijk";
	over_tcp = true;
	ck_fails(-ENODATA, "closed in the middle of its first TLS message");
}
END_TEST

START_TEST(test_tls_source_that_stalls)
{
	static const size_t after[] = { 1, 5, 100, 600 }; /* the last one is in the second flight */

	use_x509();
	for (size_t i = 0; i < sizeof(after) / sizeof(after[0]); i++) {
		uint64_t begun_ns = clock_now_ns();

		plan.stall_after = after[i];
		deadline_ns = deadline_after_ns(200 * NS_PER_MS);
		ck_fails(-ETIMEDOUT, "the TLS handshake was not over before the deadline");
		ck_assert_uint_lt(clock_now_ns() - begun_ns, 5 * NS_PER_S);
	}
	plan.kind = TLS_PEER_RAW;
	plan.act = act_raw;
	deadline_ns = deadline_after_ns(100 * NS_PER_MS);
	ck_fails(-ETIMEDOUT, "; 0 bytes came");
}
END_TEST

/* The deadline is for the whole: a byte now and then does not push it out. */
START_TEST(test_tls_deadline_covers_the_whole_handshake)
{
	plan.kind = TLS_PEER_RAW;
	plan.arg = "\x16\3\1\1\0abcdefghijk"; /* of 256 bytes that do not come */
	plan.act = act_raw;
	bite_bytes = 1;
	deadline_ns = deadline_after_ns(100 * NS_PER_MS);
	ck_fails(-ETIMEDOUT, "; 16 bytes came");
}
END_TEST

/* ---- cancel ----------------------------------------------------------------------------------------------------------- */

static int canceller(void *arg)
{
	(void)arg;
	if (event_wait(&told, DEADLINE_NEVER) == 0 && server_co) /* the limit of the test is reactor_run's */
		co_cancel(server_co);
	return 0;
}

/* Return: was the handshake over before the @nth operation of the plain channel? */
static bool cancel_at(unsigned nth)
{
	struct census before;
	struct server server;
	bool reached;

	census_take(&before);
	tell_at = nth;
	start(&server);
	ck_assert_int_eq(group_spawn(&group, "canceller", canceller, NULL), 0);
	finish(&server);
	reached = ops_seen >= nth;
	if (reached && wrapped != 0) {
		ck_assert_int_eq(wrapped, -ECANCELED);
		ck_assert_str_eq(err.text, "");
	} else {
		ck_assert_int_eq(wrapped, 0);
	}
	ck_assert_uint_eq(census_differs(&before), 0);
	census_free(&before);
	return !reached;
}

START_TEST(test_tls_cancel_at_every_park_of_the_handshake_leaves_nothing)
{
	unsigned n, cancelled = 0;

	use_x509();
	bite_bytes = 64; /* many reads */
	for (n = 1; !cancel_at(n); n++)
		cancelled += wrapped == -ECANCELED;
	/* A client's hello and its answer with a certificate are more than 600 bytes. A cancel that comes when the last
	 * operation has completed already is the next one's, and how many there are is not the same each time. */
	ck_assert_uint_gt(n, 10);
	ck_assert_uint_ge(cancelled, n * 3 / 4);
}
END_TEST

START_TEST(test_tls_cancel_during_the_refusal_is_not_lost)
{
	unsigned n;

	plan.key = "ffeeddccbbaa99887766554433221100";
	for (n = 1; n < 20; n++) {
		struct server server;

		tell_at = n;
		start(&server);
		ck_assert_int_eq(group_spawn(&group, "canceller", canceller, NULL), 0);
		finish(&server);
		if (ops_seen < n)
			break;
		ck_assert_msg(wrapped == -ECANCELED || wrapped == -EACCES, "%d: %s", wrapped, err.text);
	}
	ck_assert_uint_gt(n, 2);
	ck_assert_int_eq(wrapped, -EACCES);
}
END_TEST

/* ---- silence ----------------------------------------------------------------------------------------------------------- */

static void act_send_and_listen(struct tls_peer *p)
{
	tls_peer_send_pattern(p, 0, 100000);
	tls_peer_listen(p);
	tls_peer_until_closed(p);
}

static void body_read_and_wait(struct chan *ch)
{
	ck_reads_pattern(ch, 0, 100000);
	io_sleep_until(reactor, deadline_after_ns(400 * NS_PER_MS));
}

START_TEST(test_tls_server_writes_nothing_after_the_handshake)
{
	plan.act = act_send_and_listen;
	body = body_read_and_wait;
	ck_works();
	ck_assert_uint_eq(report.bytes_unread, 0);
	use_x509();
	ck_works();
	ck_assert_uint_eq(report.bytes_unread, 0);
	plan.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2";
	ck_works();
	ck_assert_uint_eq(report.bytes_unread, 0);
}
END_TEST

/* The control: with tickets the test above would see them. */
START_TEST(test_tls_tickets_would_be_seen)
{
	plan.act = act_send_and_listen;
	body = body_read_and_wait;
	opts.tickets = true;
	use_x509();
	ck_works();
	ck_assert_uint_gt(report.bytes_unread, 0);
}
END_TEST

static void act_read_to_the_end(struct tls_peer *p)
{
	char c;

	p->report.value = gnutls_record_recv(p->session, &c, 1);
}

START_TEST(test_tls_close_says_no_goodbye)
{
	plan.act = act_read_to_the_end;
	ck_works();
	ck_assert_int_eq(report.value, GNUTLS_E_PREMATURE_TERMINATION);
}
END_TEST

/* ---- data ------------------------------------------------------------------------------------------------------------------ */

#define BIG_BYTES (24u << 20)

static void act_big(struct tls_peer *p)
{
	tls_peer_send_pattern(p, 0, BIG_BYTES);
}

/* Vectors of every odd shape: empty ones, single bytes, pages, more than a read of the socket brings. */
static int odd_iovecs(struct iovec *iov, uint8_t *buf, unsigned turn)
{
	static const size_t shapes[][5] = {
		{ 4096, 4096, 4096, 4096, 4096 }, { 1, 0, 1, 3, 16384 }, { 0, 0, 0, 0, 1 }, { 16385, 7, 0, 1, 40000 },
		{ 65536, 65536, 65536, 65536, 100000 }, { 16384, 1, 16384, 0, 5 }, { 2, 2, 2, 2, 2 },
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

		n = chan_readv(ch, iov, odd_iovecs(iov, buf, turn), deadline_ns, &err);
		if (n <= 0)
			break;
		tls_pattern(want, got, (size_t)n);
		ck_assert_msg(memcmp(buf, want, (size_t)n) == 0, "wrong near %zu", got);
		got += (size_t)n;
	}
	ck_assert_msg(n == 0, "%s", err.text);
	ck_assert_uint_eq(got, BIG_BYTES);
	ck_assert_uint_eq(ch->bytes_in, BIG_BYTES);
	free(buf);
	free(want);
}

START_TEST(test_tls_data_of_all_shapes_is_whole)
{
	plan.act = act_big;
	body = body_big;
	ck_works();
	bite_bytes = 1000; /* records come in pieces */
	ck_works();
	bite_bytes = 0;
	plan.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2:+ECDHE-PSK:+DHE-PSK:+PSK";
	ck_works();
}
END_TEST

/* More than one record in one read of the channel, and in one of the socket. */
static void body_reads_are_large(struct chan *ch)
{
	uint8_t *buf = malloc(1 << 19);
	struct iovec iov = { buf, 1 << 19 };

	/* What came with the end of the handshake is read first; then let the socket fill. */
	ck_assert_int_gt(chan_readv(ch, &iov, 1, deadline_ns, &err), 0);
	io_sleep_until(reactor, deadline_after_ns(300 * NS_PER_MS));
	slow->ops = 0;
	ck_assert_int_gt(chan_readv(ch, &iov, 1, deadline_ns, &err), 65536);
	ck_assert_uint_eq(slow->ops, 1);
	free(buf);
}

START_TEST(test_tls_reads_take_many_records)
{
	plan.act = act_big;
	body = body_reads_are_large;
	ck_works();
}
END_TEST

static void act_empty_records(struct tls_peer *p)
{
	tls_peer_send_pattern(p, 0, 100);
	for (int i = 0; i < 3; i++)
		gnutls_record_send2(p->session, "", 0, 10, 0);
	tls_peer_send_pattern(p, 100, 100);
	gnutls_bye(p->session, GNUTLS_SHUT_WR);
}

static void body_200_then_clean_end(struct chan *ch)
{
	char c;

	ck_reads_pattern(ch, 0, 200);
	ck_assert_int_eq(read_fully(ch, &c, 1), 0);
	ck_assert(tls_chan_ended_clean(ch));
}

START_TEST(test_tls_empty_records_are_not_the_end)
{
	plan.act = act_empty_records;
	body = body_200_then_clean_end;
	ck_works();
}
END_TEST

/* ---- ends ------------------------------------------------------------------------------------------------------------------- */

static void act_bye(struct tls_peer *p)
{
	tls_peer_send_pattern(p, 0, 50000);
	if (p->plan->arg)
		gnutls_bye(p->session, GNUTLS_SHUT_WR);
}

static void body_ends(struct chan *ch)
{
	char c;

	ck_reads_pattern(ch, 0, 50000);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(read_fully(ch, &c, 1), 0); /* it stays so */
	ck_assert_int_eq(tls_chan_ended_clean(ch), plan.arg != NULL);
}

START_TEST(test_tls_clean_end_is_told_from_a_bare_one)
{
	plan.act = act_bye;
	body = body_ends;
	ck_works();
	plan.arg = "goodbye";
	ck_works();
	plan.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2:+ECDHE-PSK:+DHE-PSK:+PSK";
	ck_works();
	plan.arg = NULL;
	ck_works();
}
END_TEST

static void act_cut(struct tls_peer *p)
{
	const int *bytes = p->plan->arg;

	tls_peer_send_pattern(p, 0, 50000);
	tls_peer_send_raw(p, "\x17\3\3\x40\0abcdefgh", (size_t)*bytes);
}

static void body_is_cut(struct chan *ch)
{
	char c;

	ck_reads_pattern(ch, 0, 50000);
	for (int i = 0; i < 3; i++) {
		err = ERR_NONE;
		ck_assert_int_eq(read_fully(ch, &c, 1), -ENODATA);
		ck_says("cut off inside a TLS record");
	}
	ck_assert(!tls_chan_ended_clean(ch));
}

START_TEST(test_tls_cut_inside_a_record_is_an_error)
{
	plan.act = act_cut;
	body = body_is_cut;
	for (int bytes = 1; bytes < 12; bytes += 2) {
		plan.arg = &bytes;
		ck_works();
	}
}
END_TEST

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

	ck_reads_pattern(ch, 0, 50000);
	for (int i = 0; i < 3; i++) {
		err = ERR_NONE;
		ck_assert_int_eq(read_fully(ch, &c, 1), -EPROTO);
		ck_assert_int_eq(err.code, -EPROTO);
	}
	ck_assert(!tls_chan_ended_clean(ch));
}

START_TEST(test_tls_forged_bytes_are_found_behind_what_came_before)
{
	plan.act = act_forge;
	body = body_finds_forgery;
	plan.arg = "\x17\3\3\0\x20" "0123456789abcdef0123456789abcdef";
	ck_works();
	ck_says("fails its integrity check");
	plan.arg = "\x15\3\3\0\x20" "0123456789abcdef0123456789abcdef";
	ck_works();
	plan.arg = "QEVM\0\0\0\3" "0123456789abcdef0123456789abc";
	ck_works();
	ck_says("no TLS record");
	plan.arg = "\x17\3\3\xff\xff" "0123456789abcdef0123456789abcdef";
	ck_works();
	ck_says("too long");
}
END_TEST

static void act_alert(struct tls_peer *p)
{
	tls_peer_send_pattern(p, 0, 1000);
	gnutls_alert_send(p->session, GNUTLS_AL_FATAL, GNUTLS_A_INTERNAL_ERROR);
}

static void body_gets_alert(struct chan *ch)
{
	char c;

	ck_reads_pattern(ch, 0, 1000);
	ck_assert_int_eq(read_fully(ch, &c, 1), -ECONNRESET);
	ck_says("ended TLS with the alert 'Internal error'");
	ck_assert(!tls_chan_ended_clean(ch));
}

START_TEST(test_tls_alert_is_named)
{
	plan.act = act_alert;
	body = body_gets_alert;
	ck_works();
}
END_TEST

static void act_renegotiate(struct tls_peer *p)
{
	tls_peer_send_pattern(p, 0, 1000);
	p->report.value = gnutls_handshake(p->session);
}

static void body_renegotiation(struct chan *ch)
{
	char c;

	ck_reads_pattern(ch, 0, 1000);
	ck_assert_int_eq(read_fully(ch, &c, 1), -EPROTO);
	ck_says("asks for TLS renegotiation, which is refused");
}

START_TEST(test_tls_renegotiation_is_refused)
{
	use_x509();
	plan.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2";
	plan.act = act_renegotiate;
	body = body_renegotiation;
	ck_works();
	ck_assert_int_lt(report.value, 0);
}
END_TEST

/* ---- waiting ------------------------------------------------------------------------------------------------------------------ */

static void act_on_request(struct tls_peer *p)
{
	char c;

	for (uint64_t i = 0; i < 3; i++) {
		MUST_BE_ZERO(tls_peer_recv(p, &c, 1));
		tls_peer_send_pattern(p, i * 20000, 20000);
	}
	tls_peer_until_closed(p);
}

/* A deadline that passes, in the middle of a record, too, costs nothing. */
static void body_deadlines(struct chan *ch)
{
	struct iovec iov = { (char[1]){ 0 }, 1 };

	for (uint64_t i = 0; i < 3; i++) {
		ck_assert_int_eq(chan_readv(ch, &iov, 1, deadline_after_ns(20 * NS_PER_MS), &err), -ETIMEDOUT);
		ck_assert_int_eq(err.code, -ETIMEDOUT);
		ck_assert_int_eq(chan_write_all(ch, "x", 1, deadline_ns, &err), 0);
		ck_reads_pattern(ch, i * 20000, 20000);
	}
}

START_TEST(test_tls_read_goes_on_after_its_deadline)
{
	plan.act = act_on_request;
	body = body_deadlines;
	ck_works();
}
END_TEST

static void body_cancelled(struct chan *ch)
{
	struct iovec iov = { (char[1]){ 0 }, 1 };

	for (uint64_t i = 0; i < 3; i++) {
		co_cancel(reactor->sched.current);
		ck_assert_int_eq(chan_readv(ch, &iov, 1, deadline_ns, &err), -ECANCELED);
		ck_assert_str_eq(err.text, "");
		ck_assert_int_eq(chan_write_all(ch, "x", 1, deadline_ns, &err), 0);
		ck_reads_pattern(ch, i * 20000, 20000);
	}
}

START_TEST(test_tls_read_goes_on_after_a_cancel)
{
	plan.act = act_on_request;
	body = body_cancelled;
	ck_works();
}
END_TEST

/* Every record in two parts with a pause between them. */
static ssize_t push_in_two_parts(gnutls_transport_ptr_t ptr, const void *buf, size_t bytes)
{
	struct tls_peer *p = ptr;

	tls_peer_send_raw(p, buf, bytes / 2);
	usleep(30000);
	tls_peer_send_raw(p, (const char *)buf + bytes / 2, bytes - bytes / 2);
	return (ssize_t)bytes;
}

static void act_records_in_two_parts(struct tls_peer *p)
{
	gnutls_transport_set_push_function(p->session, push_in_two_parts);
	tls_peer_send_pattern(p, 0, 100000);
}

static void body_short_deadlines(struct chan *ch)
{
	uint8_t *got = malloc(100000), *want = malloc(100000);
	size_t bytes = 0;
	unsigned expired = 0;

	while (bytes < 100000) {
		struct iovec iov = { got + bytes, 100000 - bytes };
		ssize_t n = chan_readv(ch, &iov, 1, deadline_after_ns(5 * NS_PER_MS), &err);

		expired += n == -ETIMEDOUT;
		ck_assert(n > 0 || n == -ETIMEDOUT);
		bytes += n > 0 ? (size_t)n : 0;
	}
	ck_assert_uint_gt(expired, 0);
	tls_pattern(want, 0, 100000);
	ck_assert_int_eq(memcmp(got, want, 100000), 0);
	free(got);
	free(want);
}

START_TEST(test_tls_deadlines_inside_records_lose_nothing)
{
	plan.act = act_records_in_two_parts;
	body = body_short_deadlines;
	ck_works();
}
END_TEST

static void act_read_nothing(struct tls_peer *p)
{
	char c;

	sleep(1);
	while (recv(p->fd, &c, 1, 0) > 0)
		;
}

static void body_write_into_a_wall(struct chan *ch)
{
	char *big = calloc(1, 8 << 20);

	ck_assert_int_eq(chan_write_all(ch, big, 8 << 20, deadline_after_ns(100 * NS_PER_MS), &err), -ETIMEDOUT);
	ck_assert_int_eq(chan_write_all(ch, "x", 1, deadline_ns, &err), -EPIPE);
	ck_says("an earlier write ended half way");
	free(big);
}

START_TEST(test_tls_write_that_ended_half_way_is_not_followed_by_another)
{
	plan.act = act_read_nothing;
	body = body_write_into_a_wall;
	ck_works();
}
END_TEST

/* ---- both directions, and new keys ---------------------------------------------------------------------------------------------- */

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
		ck_assert_msg(chan_write_all(duplex_chan, buf, n, deadline_ns, &err) == 0, "%s", err.text);
		out += n;
		/* All the time the other side sends. */
		ck_assert_int_eq(io_sleep_until(reactor, deadline_after_ns(8 * NS_PER_MS)), 0);
	}
	return 0;
}

static void body_duplex(struct chan *ch)
{
	uint8_t *got = malloc(DUPLEX_BYTES);
	struct group writer;
	char c;

	duplex_chan = ch;
	group_init(&writer, &reactor->sched, "writer");
	ck_assert_int_eq(group_spawn(&writer, "writer", duplex_writer, NULL), 0);
	ck_reads_pattern(ch, 0, DUPLEX_BYTES);
	ck_assert_int_eq(group_join(&writer), 0);
	ck_assert_uint_eq(ch->bytes_out, DUPLEX_BYTES);
	ck_assert_int_eq(read_fully(ch, &c, 1), 0);
	ck_assert(tls_chan_ended_clean(ch));
	free(got);
}

START_TEST(test_tls_both_directions_at_once)
{
	plan.act = act_duplex;
	body = body_duplex;
	ck_works();
}
END_TEST

START_TEST(test_tls_new_keys_of_the_source_under_way)
{
	unsigned flags = 0;

	plan.act = act_duplex;
	plan.arg = &flags;
	body = body_duplex;
	ck_works();
}
END_TEST

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
START_TEST(test_tls_new_keys_asked_for_are_given_in_silence)
{
	plan.act = act_new_keys_one_way;
	body = body_read_and_wait;
	ck_works();
	ck_assert_uint_eq(report.bytes_unread, 0);
}
END_TEST

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
		ck_reads_pattern(ch, i * 25000, 25000);
		ck_assert_int_eq(read_fully(ch, &c, 1), 1);
		tls_pattern(buf, i * 50000, sizeof(buf));
		ck_assert_msg(chan_write_all(ch, buf, sizeof(buf), deadline_ns, &err) == 0, "%s", err.text);
	}
	ck_assert_int_eq(read_fully(ch, &c, 1), 0);
}

START_TEST(test_tls_new_keys_asked_for_come_with_the_next_write)
{
	plan.act = act_new_keys_then_read;
	body = body_answers_with_new_keys;
	ck_works();
}
END_TEST

/* ---- the stack ------------------------------------------------------------------------------------------------------------------ */

#define PAINT 0xc5

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#endif
#ifndef WITH_ASAN
#define WITH_ASAN 0
#endif

static size_t stack_used;

/* Bytes of this coroutine's stack that differ from the paint, from the lowest such on. */
static size_t stack_depth(const struct stack *stack)
{
	const volatile uint8_t *p = stack->base;
	size_t i = 0;

	while (i < stack->bytes && p[i] == PAINT)
		i++;
	return stack->bytes - i;
}

static __attribute__((noinline)) void stack_paint(const struct stack *stack)
{
	volatile uint8_t *p = stack->base;
	volatile uint8_t *here = __builtin_frame_address(0);

	while (p < here - 512)
		*p++ = PAINT;
}

static int serve_on_a_painted_stack(void *arg)
{
	int r;

	stack_paint(&reactor->sched.current->stack);
	r = serve(arg);
	stack_used = stack_depth(&reactor->sched.current->stack);
	return r;
}

START_TEST(test_tls_handshake_fits_the_stack)
{
	struct tls_cert_plan rsa = { .name = "CN=mfsource,O=mf", .rsa_bits = 4096 };
	struct tls_cert server;

	if (WITH_ASAN || RUNNING_ON_VALGRIND)
		test_skip("a checker has frames of its own, and looks after the stack itself");
	/* The largest numbers that anybody uses. */
	use_x509();
	put_client(rsa, &ca);
	rsa.name = "CN=localhost";
	tls_cert_make(&server, &rsa, &ca);
	tls_cert_save(&server, dir, "server-cert.pem", "server-key.pem");
	tls_cert_free(&server);
	deadline_ns = deadline_after_ns(30 * NS_PER_S); /* making such keys takes its time */
	plan.act = act_hello;
	body = body_hello;
	serve_fn = serve_on_a_painted_stack;
	ck_works();
	printf("a handshake with RSA of 4096 bits takes %zu bytes of stack\n", stack_used);
	ck_assert_uint_gt(stack_used, 2048);
	ck_assert_uint_lt(stack_used, TLS_STACK_BYTES);
	plan.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+DHE-RSA:+ECDHE-RSA";
	opts.priority = "NORMAL:-KX-ALL:+DHE-RSA:%SERVER_PRECEDENCE";
	ck_works();
	printf("with finite field Diffie-Hellman and TLS 1.2 %zu\n", stack_used);
	ck_assert_uint_lt(stack_used, TLS_STACK_BYTES);
	opts.type = TLS_CREDS_ANON;
	opts.priority = plan.priority = NULL;
	plan.kind = TLS_PEER_ANON;
	ck_works();
	printf("anonymous %zu\n", stack_used);
	ck_assert_uint_lt(stack_used, TLS_STACK_BYTES);
}
END_TEST

#else

START_TEST(test_tls_without_gnutls_is_refused)
{
	struct err err;

	ck_assert_int_eq(tls_chan_wrap(NULL, NULL, NULL, NULL, 0, &err), -ENOTSUP);
}
END_TEST

#endif

Suite *suite(void)
{
	Suite *s = suite_create("tls");
	TCase *tc = tcase_create("tls");

	tcase_set_timeout(tc, 60);
#if HAVE_GNUTLS
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, test_tls_each_type_of_credentials_works);
	tcase_add_test(tc, test_tls_1_2_works_and_1_1_does_not);
	tcase_add_test(tc, test_tls_psk_is_forward_secret);
	tcase_add_test(tc, test_tls_server_chooses_the_cipher);
	tcase_add_test(tc, test_tls_handshake_byte_by_byte);
	tcase_add_test(tc, test_tls_hexadecimal_identity);
	tcase_add_test(tc, test_tls_certificate_of_another_ca);
	tcase_add_test(tc, test_tls_certificate_out_of_its_dates);
	tcase_add_test(tc, test_tls_certificate_not_for_clients);
	tcase_add_test(tc, test_tls_certificate_revoked);
	tcase_add_test(tc, test_tls_source_without_certificate);
	tcase_add_test(tc, test_tls_name_not_authorised);
	tcase_add_test(tc, test_tls_source_rejects_our_certificate);
	tcase_add_test(tc, test_tls_wrong_pre_shared_key);
	tcase_add_test(tc, test_tls_unknown_identity);
	tcase_add_test(tc, test_tls_credentials_of_another_type);
	tcase_add_test(tc, test_tls_no_stranger_is_let_in_by_offering_less);
	tcase_add_test(tc, test_tls_plain_source_is_told_what_is_missing);
	tcase_add_test(tc, test_tls_garbage_that_begins_as_tls);
	tcase_add_test(tc, test_tls_source_that_hangs_up);
	tcase_add_test(tc, test_tls_source_that_resets);
	tcase_add_test(tc, test_tls_source_that_stalls);
	tcase_add_test(tc, test_tls_deadline_covers_the_whole_handshake);
	tcase_add_test(tc, test_tls_cancel_at_every_park_of_the_handshake_leaves_nothing);
	tcase_add_test(tc, test_tls_cancel_during_the_refusal_is_not_lost);
	tcase_add_test(tc, test_tls_server_writes_nothing_after_the_handshake);
	tcase_add_test(tc, test_tls_tickets_would_be_seen);
	tcase_add_test(tc, test_tls_close_says_no_goodbye);
	tcase_add_test(tc, test_tls_data_of_all_shapes_is_whole);
	tcase_add_test(tc, test_tls_reads_take_many_records);
	tcase_add_test(tc, test_tls_empty_records_are_not_the_end);
	tcase_add_test(tc, test_tls_clean_end_is_told_from_a_bare_one);
	tcase_add_test(tc, test_tls_cut_inside_a_record_is_an_error);
	tcase_add_test(tc, test_tls_forged_bytes_are_found_behind_what_came_before);
	tcase_add_test(tc, test_tls_alert_is_named);
	tcase_add_test(tc, test_tls_renegotiation_is_refused);
	tcase_add_test(tc, test_tls_read_goes_on_after_its_deadline);
	tcase_add_test(tc, test_tls_read_goes_on_after_a_cancel);
	tcase_add_test(tc, test_tls_deadlines_inside_records_lose_nothing);
	tcase_add_test(tc, test_tls_write_that_ended_half_way_is_not_followed_by_another);
	tcase_add_test(tc, test_tls_both_directions_at_once);
	tcase_add_test(tc, test_tls_new_keys_of_the_source_under_way);
	tcase_add_test(tc, test_tls_new_keys_asked_for_are_given_in_silence);
	tcase_add_test(tc, test_tls_new_keys_asked_for_come_with_the_next_write);
	tcase_add_test(tc, test_tls_handshake_fits_the_stack);
#else
	tcase_add_test(tc, test_tls_without_gnutls_is_refused);
#endif
	suite_add_tcase(s, tc);
	return s;
}
