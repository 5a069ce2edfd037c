/* A server in a coroutine and a GnuTLS client in a process of its own. See tls_scene.h. */
#include "config.h"

#if HAVE_GNUTLS

#include "tests/support/tls_scene.h"

#include "base/clock.h"
#include "engine/channel/socket.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct tls_scene tls;

/* ---- a channel in between: small bites, and a word when an operation is about to park --------------------------- */

struct slow_chan {
	struct chan chan;
	struct chan *plain; /* owned */
};

static void slow_count(void)
{
	if (++tls.ops != tls.tell_at)
		return;
	if (tls.cancel_self)
		co_cancel(tls.reactor->sched.current);
	else
		event_set(&tls.told);
}

static ssize_t slow_readv(struct chan *ch, struct iovec *iov, int iov_count, uint64_t deadline_ns, struct err *err)
{
	struct slow_chan *sc = (struct slow_chan *)ch;
	struct iovec bite = iov[0];

	slow_count();
	if (!tls.bite_bytes)
		return chan_readv(sc->plain, iov, iov_count, deadline_ns, err);
	if (bite.iov_len > tls.bite_bytes)
		bite.iov_len = tls.bite_bytes;
	return chan_readv(sc->plain, &bite, 1, deadline_ns, err);
}

static int slow_write_all(struct chan *ch, const void *buf, size_t bytes, uint64_t deadline_ns, struct err *err)
{
	struct slow_chan *sc = (struct slow_chan *)ch;

	slow_count();
	return chan_write_all(sc->plain, buf, bytes, deadline_ns, err);
}

static void slow_close(struct chan *ch)
{
	struct slow_chan *sc = (struct slow_chan *)ch;

	chan_close(sc->plain);
	free(sc);
}

static const struct chan_ops slow_ops = { .readv = slow_readv, .write_all = slow_write_all, .close = slow_close };

static struct chan *slow_chan_new(struct chan *plain)
{
	struct slow_chan *sc = calloc(1, sizeof(*sc));

	ASSERT(sc);
	sc->chan.ops = &slow_ops;
	sc->chan.can_write = true;
	sc->plain = plain;
	memcpy(sc->chan.name, plain->name, sizeof(sc->chan.name));
	return &sc->chan;
}

/* ---- the fixture ------------------------------------------------------------------------------------------------ */

void tls_scene_setup(void)
{
	int r;

	tls = (struct tls_scene){ .serve_fn = tls_scene_serve };
	r = reactor_new(&tls.reactor, &ring_uring, 0);
	if (r == -EPERM || r == -ENOSYS)
		test_skip("the kernel permits no io_uring");
	ck_assert_int_eq(r, 0);
	group_init(&tls.group, &tls.reactor->sched, "test");
	event_init(&tls.told, &tls.reactor->sched, "told");
	tls_dir_make(tls.dir, &tls.ca);
	tls.opts = (struct tls_options){ .type = TLS_CREDS_PSK, .dir = tls.dir, .verify_peer = true };
	tls.plan = (struct tls_peer_plan){ .kind = TLS_PEER_PSK, .dir = tls.dir };
	tls.deadline_ns = deadline_after_ns(30 * NS_PER_S);
}

void tls_scene_teardown(void)
{
	ck_assert_uint_eq(tls.reactor->ring->in_flight, 0);
	reactor_free(tls.reactor);
	tls_cert_free(&tls.ca);
	tls_dir_remove(tls.dir);
}

void tls_scene_use_x509(void)
{
	tls.opts.type = TLS_CREDS_X509;
	tls.plan.kind = TLS_PEER_X509;
}

void tls_scene_put_client(struct tls_cert_plan how, const struct tls_cert *issuer)
{
	struct tls_cert cert;

	if (!how.name)
		how.name = "CN=mfsource,O=mf";
	tls_cert_make(&cert, &how, issuer);
	tls_cert_save(&cert, tls.dir, "client-cert.pem", "client-key.pem");
	tls_cert_free(&cert);
}

/* ---- both sides ------------------------------------------------------------------------------------------------- */

static void serve_wrapped(struct chan *ch)
{
	tls_chan_describe(ch, tls.session);
	if (tls.body)
		tls.body(ch);
	chan_close(ch);
}

int tls_scene_serve(void *arg)
{
	struct chan *ch = NULL;

	(void)arg;
	tls.server_co = tls.reactor->sched.current;
	tls.wrapped = tls_chan_wrap(&ch, tls.plain, tls.creds, &tls.opts, tls.deadline_ns, &tls.err);
	if (tls.wrapped == 0)
		serve_wrapped(ch);
	else
		ck_assert(!ch && tls.err.code == tls.wrapped);
	tls.later = co_yield(&tls.reactor->sched);
	tls.server_co = NULL;
	event_set(&tls.told); /* nothing to wait for any more */
	return 0;
}

static void make_pair(int sv[2])
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t sa_bytes = sizeof(sa);
	int listener;

	if (!tls.over_tcp) {
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

void tls_scene_start(void)
{
	struct chan *plain;
	int sv[2];

	tls.err = ERR_NONE;
	tls.wrapped = 1;
	tls.session[0] = '\0';
	tls.ops = 0;
	ck_assert_msg(tls_creds_load(&tls.creds, &tls.opts, &tls.err) == 0, "%s", tls.err.text);
	make_pair(sv);
	tls_peer_start(&tls.peer, &tls.plan, sv[1]);
	ck_assert_int_eq(socket_chan_new(&plain, tls.reactor, sv[0], "pair"), 0);
	tls.plain = slow_chan_new(plain);
	event_clear(&tls.told);
	ck_assert_int_eq(group_spawn(&tls.group, "server", tls.serve_fn, NULL), 0);
}

void tls_scene_finish(void)
{
	int r = reactor_run(tls.reactor, &tls.group, deadline_after_ns(40 * NS_PER_S));

	ck_assert_msg(r == 0, "%s", strerror(-r));
	tls_peer_wait(&tls.peer, &tls.report);
	tls_creds_free(tls.creds);
}

void tls_scene_run(void)
{
	tls_scene_start();
	tls_scene_finish();
}

/* ---- how it went ------------------------------------------------------------------------------------------------ */

void tls_scene_says(const char *words)
{
	ck_assert_msg(strstr(tls.err.text, words) != NULL, "'%s' is not in: %s", words, tls.err.text);
	ck_assert_msg(!strstr(tls.err.text, "00112233"), "a secret: %s", tls.err.text);
	ck_assert_msg(!strstr(tls.err.text, "ffeeddcc"), "a secret: %s", tls.err.text);
}

void tls_scene_works(void)
{
	tls_scene_run();
	ck_assert_msg(tls.wrapped == 0, "%s", tls.err.text);
	ck_assert_int_eq(tls.report.handshake, 0);
}

void tls_scene_fails(int code, const char *words)
{
	tls_scene_run();
	ck_assert_msg(tls.wrapped == code, "%d instead of %d: %s", tls.wrapped, code, tls.err.text);
	tls_scene_says(words);
}

/* ---- bytes ------------------------------------------------------------------------------------------------------ */

ssize_t tls_scene_read(struct chan *ch, void *buf, size_t bytes)
{
	size_t got = 0;

	while (got < bytes) {
		struct iovec iov = { (char *)buf + got, bytes - got };
		ssize_t n = chan_readv(ch, &iov, 1, tls.deadline_ns, &tls.err);

		if (n < 0)
			return n;
		if (n == 0)
			break;
		got += (size_t)n;
	}
	return (ssize_t)got;
}

void tls_scene_reads_pattern(struct chan *ch, uint64_t off, size_t bytes)
{
	uint8_t *got = malloc(bytes), *want = malloc(bytes);

	ck_assert_int_eq(tls_scene_read(ch, got, bytes), (ssize_t)bytes);
	tls_pattern(want, off, bytes);
	ck_assert(memcmp(got, want, bytes) == 0);
	free(got);
	free(want);
}

void tls_scene_act_hello(struct tls_peer *p)
{
	tls_peer_send(p, "QEVM\0\0\0\3", 8);
	tls_peer_until_closed(p);
}

void tls_scene_body_hello(struct chan *ch)
{
	char first[8];

	ck_assert_int_eq(tls_scene_read(ch, first, 8), 8);
	ck_assert_mem_eq(first, "QEVM\0\0\0\3", 8);
	ck_assert(tls_chan_is(ch));
	ck_assert(ch->can_write);
	ck_assert_str_eq(ch->name, "pair");
	ck_assert_uint_eq(ch->bytes_in, 8);
}

#endif
