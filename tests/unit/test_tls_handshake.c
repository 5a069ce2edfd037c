/* TLS handshakes that end well or by a cancel, and their stack use: engine/channel/tls/tls.h */
#include "base/clock.h"
#include "base/err.h"
#include "config.h"
#include "engine/channel/tls/tls.h"
#include "tests/support/census.h"
#include "tests/support/tls_scene.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>

#if HAVE_VALGRIND
#include <valgrind/valgrind.h>
#else
#define RUNNING_ON_VALGRIND 0
#endif

#if HAVE_GNUTLS

/* ---- handshakes that end well ----------------------------------------------------------------------------------- */

TEST_CASE("handshake", 60, TLS_SCENE);

TEST(test_tls_each_type_of_credentials_works)
{
	tls.plan.act = tls_scene_act_hello;
	tls.body = tls_scene_body_hello;
	tls_scene_works();
	ck_assert_ptr_nonnull(strstr(tls.session, "TLS1.3"));
	tls_scene_use_x509();
	tls_scene_works();
	ck_assert_ptr_nonnull(strstr(tls.session, "TLS1.3"));
	tls.opts.type = TLS_CREDS_ANON;
	tls.plan.kind = TLS_PEER_ANON;
	tls_scene_works();
	ck_assert_ptr_nonnull(strstr(tls.session, "ANON-DH"));
}

TEST(test_tls_1_2_works_and_1_1_does_not)
{
	tls_scene_use_x509();
	tls.plan.act = tls_scene_act_hello;
	tls.body = tls_scene_body_hello;
	tls.plan.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2";
	tls_scene_works();
	ck_assert_ptr_nonnull(strstr(tls.session, "TLS1.2"));
	tls.plan.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.1:+SHA1:+SIGN-RSA-SHA1:+SIGN-ECDSA-SHA1";
	tls_scene_fails(-ECONNREFUSED, "nothing in common with the source");
}

/* PSK still uses ephemeral keys: an attacker who learns the key tls.later cannot read what was recorded. */
TEST(test_tls_psk_is_forward_secret)
{
	tls.plan.act = tls_scene_act_hello;
	tls_scene_works();
	ck_assert_msg(strstr(tls.session, "DHE"), "%s", tls.session);
}

TEST(test_tls_server_chooses_the_cipher)
{
	const char *source = "NORMAL:-CIPHER-ALL:+CHACHA20-POLY1305:+AES-256-GCM:+AES-128-GCM:+PSK:+DHE-PSK:+ECDHE-PSK";
	char buf[TLS_PRIORITY_BYTES];

	tls.plan.priority = source;
	tls.opts.priority = tls_creds_priority(buf, &tls.opts, true);
	tls_scene_works();
	ck_assert_msg(strstr(tls.session, "AES-128-GCM"), "%s", tls.session);
	tls.opts.priority = NULL;
	tls.opts.priority = tls_creds_priority(buf, &tls.opts, false);
	tls_scene_works();
	ck_assert_msg(strstr(tls.session, "CHACHA20"), "%s", tls.session);
	tls.opts.priority = "SECURE256:-CIPHER-ALL:+AES-256-GCM"; /* no key exchange with SHA-384 is in TLS 1.3's PSK */
	tls_scene_fails(-ECONNREFUSED, "nothing in common");
	tls_scene_use_x509();
	tls.plan.priority = NULL;
	tls.opts.priority = "NORMAL:-CIPHER-ALL:+AES-256-GCM";
	tls_scene_works();
	ck_assert_msg(strstr(tls.session, "AES-256-GCM"), "%s", tls.session);
}

TEST(test_tls_handshake_byte_by_byte)
{
	tls.plan.act = tls_scene_act_hello;
	tls.body = tls_scene_body_hello;
	tls.bite_bytes = 1;
	tls_scene_works();
	tls_scene_use_x509();
	tls_scene_works();
}

TEST(test_tls_hexadecimal_identity)
{
	tls_file_save(tls.dir, "keys.psk", "other:0011\n#71656d75:" TLS_PEER_PSK_KEY "\n");
	tls_scene_works();
}

/* ---- cancel ----------------------------------------------------------------------------------------------------- */

static int canceller(void *arg)
{
	(void)arg;
	if (event_wait(&tls.told, DEADLINE_NEVER) == 0 && tls.server_co) /* the limit of the test is reactor_run's */
		co_cancel(tls.server_co);
	return 0;
}

/* Return: was the handshake over before the @nth operation of the plain channel? */
static bool cancel_at(unsigned nth)
{
	struct census before;
	bool reached;

	census_take(&before);
	tls.tell_at = nth;
	tls_scene_start();
	ck_assert_int_eq(group_spawn(&tls.group, "canceller", canceller, NULL), 0);
	tls_scene_finish();
	reached = tls.ops >= nth;
	/* A cancel that comes when the operation has completed hits the next park, perhaps after the handshake. */
	if (reached && !tls.cancel_self && tls.wrapped == 0)
		ck_assert_int_eq(tls.later, -ECANCELED);
	else
		ck_assert_int_eq(tls.wrapped, reached ? -ECANCELED : 0);
	if (tls.wrapped < 0)
		ck_assert(tls.later == 0 && !tls.err.text[0]);
	ck_assert_uint_eq(census_differs(&before), 0);
	census_free(&before);
	return !reached;
}

TEST(test_tls_cancel_at_every_park_of_the_handshake_leaves_nothing)
{
	tls_scene_use_x509();
	tls.bite_bytes = 64; /* many reads */
	for (int pass = 0; pass < 2; pass++) {
		unsigned n = 1;

		tls.cancel_self = pass;
		while (!cancel_at(n))
			n++;
		/* A client's hello and its answer with a certificate are more than 600 bytes. */
		ck_assert_uint_gt(n, 10);
	}
}

/* The last operation is the alert, whose errors do not matter; it seldom parks, and then the cancel is the next's. */
TEST(test_tls_cancel_during_the_refusal_is_not_lost)
{
	unsigned n = 0;

	tls.plan.key = "ffeeddccbbaa99887766554433221100";
	tls.cancel_self = true;
	do {
		tls.tell_at = ++n;
		tls_scene_run();
		ck_assert(tls.wrapped == -ECANCELED || tls.wrapped == -EACCES);
		ck_assert_int_eq(tls.wrapped == -ECANCELED ? -ECANCELED : tls.later, tls.ops >= n ? -ECANCELED : 0);
	} while (tls.ops >= n);
	ck_assert_uint_gt(n, 2);
}

/* ---- the stack -------------------------------------------------------------------------------------------------- */

#define PAINT 0xc5

static size_t stack_used;

/* The portable switch keeps its context at the low end, see ctx_init. */
static size_t below_stack(void)
{
	return PORTABLE_SWITCH ? (sizeof(ucontext_t) + 63) & ~(size_t)63 : 0;
}

/* Bytes of this coroutine's stack that differ from the paint, from the lowest such on. */
static size_t stack_depth(const struct stack *stack)
{
	const volatile uint8_t *p = stack->base;
	size_t i = below_stack();

	while (i < stack->bytes && p[i] == PAINT)
		i++;
	return stack->bytes - i;
}

static __attribute__((noinline)) void stack_paint(const struct stack *stack)
{
	volatile uint8_t *p = (volatile uint8_t *)stack->base + below_stack();
	volatile uint8_t *here = __builtin_frame_address(0);

	while (p < here - 512)
		*p++ = PAINT;
}

static int serve_on_a_painted_stack(void *arg)
{
	int r;

	stack_paint(&tls.reactor->sched.current->stack);
	r = tls_scene_serve(arg);
	stack_used = stack_depth(&tls.reactor->sched.current->stack);
	return r;
}

TEST(test_tls_handshake_fits_the_stack)
{
	struct tls_cert_plan rsa = { .name = "CN=mfsource,O=mf", .rsa_bits = 4096 };
	struct tls_cert server;

	if (WITH_ASAN || RUNNING_ON_VALGRIND)
		test_skip("a checker has frames of its own, and looks after the stack itself");
	/* The largest numbers that anybody uses. */
	tls_scene_use_x509();
	tls_scene_put_client(rsa, &tls.ca);
	rsa.name = "CN=localhost";
	tls_cert_make(&server, &rsa, &tls.ca);
	tls_cert_save(&server, tls.dir, "server-cert.pem", "server-key.pem");
	tls_cert_free(&server);
	tls.deadline_ns = deadline_after_ns(30 * NS_PER_S); /* making such keys takes its time */
	tls.plan.act = tls_scene_act_hello;
	tls.body = tls_scene_body_hello;
	tls.serve_fn = serve_on_a_painted_stack;
	tls_scene_works();
	printf("a handshake with RSA of 4096 bits takes %zu bytes of stack\n", stack_used);
	ck_assert_uint_gt(stack_used, 2048);
	ck_assert_uint_lt(stack_used, TLS_STACK_BYTES);
	tls.plan.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+DHE-RSA:+ECDHE-RSA";
	tls.opts.priority = "NORMAL:-KX-ALL:+DHE-RSA:%SERVER_PRECEDENCE";
	tls_scene_works();
	printf("with finite field Diffie-Hellman and TLS 1.2 %zu\n", stack_used);
	ck_assert_uint_lt(stack_used, TLS_STACK_BYTES);
	tls.opts.type = TLS_CREDS_ANON;
	tls.opts.priority = tls.plan.priority = NULL;
	tls.plan.kind = TLS_PEER_ANON;
	tls_scene_works();
	printf("anonymous %zu\n", stack_used);
	ck_assert_uint_lt(stack_used, TLS_STACK_BYTES);
}

#else

TEST(test_tls_without_gnutls_is_refused)
{
	struct err err;

	ck_assert_int_eq(tls_chan_wrap(NULL, NULL, NULL, NULL, 0, &err), -ENOTSUP);
}

#endif
