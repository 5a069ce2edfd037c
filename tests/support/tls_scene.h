/*
 * tls_scene.h - the frame of a test of channels inside TLS: a server in a coroutine, a GnuTLS client in a process
 *
 *   tls.plan.act = act_something;     what the client does after the handshake, in its own process
 *   tls.body = body_something;        what the server does with the channel
 *   tls_scene_works();                both, until they are done
 *
 * Check runs each test in a process of its own, so there is one scene, `tls`. The fixture of TLS_SCENE sets it up
 * for each test: pre-shared keys, a socket pair, 30 seconds. Acts run in a child, which sees only what was in `tls`
 * before it started.
 */
#ifndef TESTS_SUPPORT_TLS_SCENE_H
#define TESTS_SUPPORT_TLS_SCENE_H

#include "config.h"
#include "tests/support/check_main.h"

#if HAVE_GNUTLS

#include "base/assert.h"
#include "base/err.h"
#include "coroutine/co.h"
#include "coroutine/group.h"
#include "coroutine/reactor.h"
#include "coroutine/wait.h"
#include "engine/channel/channel.h"
#include "engine/channel/tls/tls.h"
#include "engine/channel/tls/tls_creds.h"
#include "tests/support/tls_peer.h"

/* For acts: the child aborts, and the test with it. */
#define MUST_BE_ZERO(call) ASSERT((call) == 0)

/* The server's side of a test; afterwards the channel is closed. */
typedef void tls_scene_body(struct chan *ch);

struct tls_scene {
	/* What is to happen. */
	char dir[64]; /* as tls_dir_make makes it */
	struct tls_cert ca;
	struct tls_options opts;
	struct tls_peer_plan plan;
	uint64_t deadline_ns; /* of the handshake, and of what bodies read */
	tls_scene_body *body;
	bool over_tcp;     /* instead of a socket pair */
	size_t bite_bytes; /* at most so many in a read of the plain channel; 0: all */
	unsigned tell_at;  /* when this operation of the plain channel begins, set told; 0: never */
	bool cancel_self;  /* instead, cancel the coroutine that is about to park in it */
	co_fn *serve_fn;   /* tls_scene_serve, or something around it */

	/* What goes on. */
	struct reactor *reactor;
	struct group group;
	struct event told;    /* also set at the server's end */
	struct co *server_co; /* NULL when it has ended */
	struct tls_creds *creds;
	struct chan *plain; /* the server's, which bites and tells; gone with the channel */
	struct tls_peer peer;

	/* What was found. */
	unsigned ops; /* of the plain channel, since the start */
	int wrapped;  /* what tls_chan_wrap said */
	int later;    /* -ECANCELED: a cancel had not yet been delivered */
	struct err err;
	char session[TLS_SESSION_TEXT_BYTES];
	struct tls_peer_report report;
};

extern struct tls_scene tls;

/* Both sides with the certificates of dir. */
void tls_scene_use_x509(void);
/* A certificate of the source's, made after @how by @issuer; without a name in @how the usual one. */
void tls_scene_put_client(struct tls_cert_plan how, const struct tls_cert *issuer);

/* Runs server and source until both are done. In two steps for tests that add more coroutines. */
void tls_scene_run(void);
void tls_scene_start(void);
void tls_scene_finish(void);
/* The server's coroutine. */
int tls_scene_serve(void *arg);

/* The fixture, for TEST_CASE. */
#define TLS_SCENE .checked = { tls_scene_setup, tls_scene_teardown }
void tls_scene_setup(void);
void tls_scene_teardown(void);

/* Runs it. A Check failure unless the handshake works, or ends with @code and an error that has @words. */
void tls_scene_works(void);
void tls_scene_fails(int code, const char *words);
/* Checks that the last error has @words in it, and no secret. */
void tls_scene_says(const char *words);

/* Read until @bytes are there, the end, or an error. Return: bytes, or the error, which is in tls.err. */
ssize_t tls_scene_read(struct chan *ch, void *buf, size_t bytes);
/* Read what tls_peer_send_pattern sent: a Check failure if it is something else. */
void tls_scene_reads_pattern(struct chan *ch, uint64_t off, size_t bytes);

/* The least that both sides can do: the first eight bytes of a migration. */
void tls_scene_act_hello(struct tls_peer *p);
void tls_scene_body_hello(struct chan *ch);

#else

TEST_CASE("tls", 4);

TEST(test_tls_is_not_tested)
{
	test_skip("built without GnuTLS");
}

#endif
#endif
