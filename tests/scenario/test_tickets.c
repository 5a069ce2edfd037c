/*
 * A destination that sends session tickets loses pages, and this one sends none (doc/wire/multifd.md 9.3).
 *
 * The source never reads its multifd channels. If the destination has written there, even only a ticket, the source's
 * close is a reset, and the kernel throws away what it has not yet sent.
 */
#include "tests/support/check_main.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "config.h"

#if HAVE_GNUTLS

#include <dlfcn.h>
#include <gnutls/gnutls.h>

#include "base/assert.h"
#include "base/clock.h"
#include "engine/inm.h"
#include "tests/support/several.h"
#include "tests/support/tls_source.h"

/* ---- a GnuTLS that sends tickets -------------------------------------------------------------------------------- */

static bool tickets;

static void enable_tickets(gnutls_session_t session)
{
	gnutls_datum_t key;

	ASSERT(gnutls_session_ticket_key_generate(&key) == 0);
	ASSERT(gnutls_session_ticket_enable_server(session, &key) == 0);
	gnutls_free(key.data);
}

/*
 * The library has no option for tickets and shall have none, so the control takes its flags away between it and GnuTLS:
 * the program's function comes before that of the same name in a shared library.
 */
int gnutls_init(gnutls_session_t *session, unsigned flags)
{
	int (*real)(gnutls_session_t * session, unsigned flags);
	int r;

	*(void **)&real = dlsym(RTLD_NEXT, "gnutls_init");
	ASSERT(real);
	if (!tickets || !(flags & GNUTLS_SERVER))
		return real(session, flags);
	r = real(session, flags & ~(unsigned)(GNUTLS_NO_TICKETS | GNUTLS_NO_TICKETS_TLS12));
	if (r == 0)
		enable_tickets(*session);
	return r;
}

/* ---- the run ---------------------------------------------------------------------------------------------------- */

#define CHANNELS 3u
#define PAGES 50u

/*
 * For each channel 200 KiB: more than the destination's socket takes before it has read anything (64 KiB with the
 * kernel's defaults), and not more than that and the source's socket together, so that the source can send all of it
 * and close while the destination sleeps.
 */
static const struct wire_block blocks[] = {
	{ .name = "pc.ram", .bytes = CHANNELS * PAGES * WIRE_TPAGE_BYTES },
};
#define SEND_BUFFER_BYTES 212992

static enum wire_how fill_all(void *opaque, unsigned block, uint64_t tpage, unsigned round, uint8_t *page)
{
	wire_fill_default(opaque, block, tpage * 12, 0, page);
	page[0] = (uint8_t)(round + 1);
	return WIRE_SEND_PAGE;
}

struct run {
	struct several s;
	struct tls_source src;
	struct tls_source_report report;
	struct tls_source_plan plan;
	char dir[64];
};

/* Up to where everything is connected and nothing but the first 64 bytes of each channel has been sent. */
static void begin(struct run *r, bool with_tickets)
{
	const struct multifd_opts m = { .channels = CHANNELS,
		                        .blocks = blocks,
		                        .block_count = 1,
		                        .rounds = 1,
		                        .packet_pages = 4,
		                        .fill = fill_all };
	const char *const params[] = { "tls-creds", "t", "tls-creds-dir", r->dir, "tls-creds-type", "x509", NULL };
	uint64_t deadline_ns = deadline_after_ns(20 * NS_PER_S);

	tickets = with_tickets;
	tls_dir_make(r->dir, NULL);
	several_begin(&r->s, &m, &(struct several_opts){ .tcp = true, .params = params });
	r->plan = (struct tls_source_plan){ .h = &r->s.h,
		                            .address = r->s.address,
		                            .tls = { .kind = TLS_PEER_X509, .dir = r->dir },
		                            .send_buffer_bytes = SEND_BUFFER_BYTES };
	tls_source_start(&r->src, &r->plan);
	/* A channel is present when its handshake is over: the tickets have been written. */
	while (tls_source_step(&r->src, 1) == TLS_SOURCE_STARTED || r->s.scene.e.inm->multifd.claim_count < CHANNELS) {
		several_turn(&r->s);
		ck_assert_int_eq(r->s.result, 1);
		ck_assert_msg(clock_now_ns() < deadline_ns, "the source does not come");
	}
}

/* The destination reads nothing until the source has closed its channels. */
static void run_late(struct run *r)
{
	uint64_t deadline_ns = deadline_after_ns(20 * NS_PER_S);

	tls_source_go(&r->src);
	while (tls_source_step(&r->src, 100) != TLS_SOURCE_CLOSED)
		ck_assert_msg(clock_now_ns() < deadline_ns, "the channels' bytes do not fit into the sockets");
	several_run(&r->s, 10000);
}

static void run_at_once(struct run *r)
{
	tls_source_go(&r->src);
	several_run(&r->s, 10000);
}

static void end(struct run *r)
{
	several_free(&r->s); /* closes main: the source waits for it */
	tls_source_wait(&r->src, &r->report);
}

/* ---- the tests -------------------------------------------------------------------------------------------------- */

TEST_CASE("tickets", 60);

TEST_EACH(test_pages_of_a_source_that_closes_at_once_land, 2)
{
	struct run r;

	begin(&r, false);
	if (_i)
		run_late(&r);
	else
		run_at_once(&r);
	end(&r);
	several_check_landed(&r.s);
	ck_assert_uint_eq(r.report.unread_bytes, 0);
	several_end(&r.s);
	tls_dir_remove(r.dir);
}

/* The control: the same run with tickets loses pages. That is noticed, and named. */
TEST(test_with_tickets_pages_are_lost_and_the_migration_fails)
{
	struct embedder *e;
	unsigned lost;
	struct run r;

	begin(&r, true);
	run_late(&r);
	end(&r);
	ck_assert_uint_gt(r.report.unread_bytes, 0);
	several_check_failed(&r.s, -ECONNRESET, "multifd channel");
	e = &r.s.scene.e;
	ck_assert_msg(strstr(e->error, "reset by peer"), "%s", e->error);
	lost = embedder_compare(e, &r.s.h.image);
	printf("%zu bytes sent on %u channels, %zu of tickets unread; %u of %u pages lost; %s\n", r.report.sent_bytes,
	       CHANNELS, r.report.unread_bytes, lost, CHANNELS * PAGES, e->error);
	ck_assert_uint_gt(lost, 0);
	several_end(&r.s);
	tls_dir_remove(r.dir);
}

/* A fast reader may have everything before the reset comes. But a guest must never land and differ. */
TEST(test_with_tickets_nothing_lands_that_is_not_what_was_sent)
{
	unsigned landed = 0;

	for (unsigned i = 0; i < 10; i++) {
		struct run r;

		begin(&r, true);
		run_at_once(&r);
		end(&r);
		if (r.s.result == 0)
			several_check_landed(&r.s);
		else
			several_check_failed(&r.s, r.s.result, "reset by peer|closed");
		landed += r.s.result == 0;
		several_end(&r.s);
		tls_dir_remove(r.dir);
	}
	printf("%u of 10 landed\n", landed);
}

#else

TEST(test_tickets_are_not_tested)
{
	test_skip("built without GnuTLS");
}

#endif
