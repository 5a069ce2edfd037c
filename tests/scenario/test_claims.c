/*
 * Several connections claim to be the same multifd channel. Whatever they are, and whatever they do then, the library
 * chooses the source's own (engine/ram/multifd_claims.h). Strangers come from 127.0.0.9, or over the same unix socket.
 */
#include "tests/support/check_main.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "engine/inm.h"
#include "tests/support/order.h"
#include "tests/support/said.h"

static const struct multifd_opts two = { .channels = 2 };

/* several_connect from another address. */
static unsigned connect_from(struct several *s, const struct wire *w, uint32_t host)
{
	int fd = source_connect(s->address, host);

	ck_assert_int_eq(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	s->lines[s->line_count] = (struct pump){ .wire = w, .fd = fd, .end = PUMP_HOLD };
	return s->line_count++;
}

static unsigned stranger(struct several *s, unsigned id, bool sync)
{
	const struct wire *w = &s->h.channels[id];
	unsigned line = s->dir[0] ? several_connect(s, w) : connect_from(s, w, SOURCE_HOST(8));

	several_allow(s, line, sync ? wire_find(w, "interval", 0) : WIRE_MULTIFD_HELLO_BYTES);
	return line;
}

/* As a source does: all of them at once. */
static void connect_honest(struct several *s, struct order_real *r)
{
	for (unsigned i = 0; i < 3; i++)
		r->line[i] = several_connect(s, several_wire(s, i));
	for (unsigned i = 1; i < 3; i++)
		several_allow(s, r->line[i], WIRE_MULTIFD_HELLO_BYTES);
}

/* Long before the source, on the scale of what a source takes to connect. */
static void wait_a_while(struct several *s, unsigned claims)
{
	for (uint64_t end_ns = deadline_after_ns(20 * NS_PER_S);
	     s->scene.e.inm->multifd.claim_count < claims && clock_now_ns() < end_ns;)
		several_run(s, 10);
	ck_assert_uint_eq(s->scene.e.inm->multifd.claim_count, claims);
	usleep(100000);
	several_settle(s);
}

TEST_CASE("claims", 60);

TEST_EACH(test_channels_that_strangers_hold_do_not_keep_the_source_out, 8)
{
	bool tcp = _i & 1, sync = _i & 2, closes = _i & 4;

	for (unsigned subset = 1; subset < 4; subset++) {
		unsigned first, last;
		struct order_real r;
		struct several s;

		several_begin(&s, &two, &(struct several_opts){ .tcp = tcp, .deadline_s = "20", SAID });
		first = s.line_count;
		for (unsigned id = 0; id < 2; id++)
			if (subset >> id & 1)
				stranger(&s, id, sync);
		last = s.line_count;
		wait_a_while(&s, last - first);
		for (unsigned i = first; closes && i < last; i++)
			several_close(&s, i);
		several_settle(&s);
		connect_honest(&s, &r);
		order_lands(&s, &r);
	}
}

/* They come later than the source's own, from another host. */
TEST_EACH(test_strangers_do_not_take_the_place_of_channels_that_are_there, 2)
{
	struct order_real r;
	struct several s;

	several_begin(&s, &two, &(struct several_opts){ .tcp = true, .deadline_s = "20", SAID });
	connect_honest(&s, &r);
	several_settle(&s);
	for (unsigned i = 0; i < 4; i++)
		stranger(&s, i % 2, _i);
	several_settle(&s);
	order_finish(&s, &r);
	several_check_landed(&s);
	/* They were told so, and are not waited for. */
	for (unsigned i = 3; i < 7; i++)
		ck_assert(s.lines[i].report.peer_closed);
	several_end(&s);
}

/* Main is at its first sync point, and only strangers claim channel 0: the source's own is on its way. */
TEST_EACH(test_a_channel_that_only_a_stranger_claims_is_waited_for, 2)
{
	struct order_real r;
	struct several s;

	several_begin(&s, &two, &(struct several_opts){ .tcp = true, .deadline_s = "20", SAID });
	stranger(&s, 0, _i);
	order_connect(&s, &r, 0, SEVERAL_ALL);
	order_connect(&s, &r, 2, SEVERAL_ALL);
	ck_assert_int_eq(s.result, 1);
	ck_assert(!multifd_is_settled(&s.scene.e.inm->multifd));
	order_connect(&s, &r, 1, SEVERAL_ALL);
	order_lands(&s, &r);
}

/* Where nobody's host can be told, on a unix socket: a claim that is older than main is not believed at once. */
TEST_EACH(test_a_channel_that_came_before_main_does_not_keep_a_slow_one_out, 2)
{
	struct order_real r;
	struct several s;

	several_begin(&s, &two, &(struct several_opts){ .deadline_s = "20", SAID });
	stranger(&s, 1, _i);
	wait_a_while(&s, 1);
	order_connect(&s, &r, 0, SEVERAL_ALL);
	order_connect(&s, &r, 1, SEVERAL_ALL);
	several_run(&s, 100);
	ck_assert(!multifd_is_settled(&s.scene.e.inm->multifd));
	order_connect(&s, &r, 2, SEVERAL_ALL);
	order_lands(&s, &r);
}

/* A source with several addresses: nobody else has come by the deadline. */
TEST(test_channels_from_another_address_are_taken_when_no_others_come)
{
	struct order_real r;
	struct several s;

	several_begin(&s, &two, &(struct several_opts){ .tcp = true, .deadline_s = "1", SAID });
	order_connect(&s, &r, 0, SEVERAL_ALL);
	for (unsigned i = 1; i < 3; i++)
		r.line[i] = connect_from(&s, several_wire(&s, i), SOURCE_HOST(8));
	order_lands(&s, &r);
}

TEST(test_a_flood_of_claims_is_bounded_and_does_not_keep_the_source_out)
{
	struct order_real r;
	struct several s;

	test_need_files(400);
	several_begin(&s, &two, &(struct several_opts){ .tcp = true, .deadline_s = "20", SAID });
	connect_honest(&s, &r);
	several_settle(&s);
	for (unsigned i = 0; i < 150; i++) {
		stranger(&s, i % 2, i % 3 == 0);
		if (i % 16 == 0)
			several_settle(&s);
	}
	several_settle(&s);
	ck_assert_uint_le(s.scene.e.inm->multifd.claim_count, 2 * 2 + 64);
	order_lands(&s, &r);
}

/* A claim holds nothing of what a channel needs to receive: that is made when it is chosen. */
TEST(test_a_claim_has_no_buffers)
{
	struct order_real r;
	struct several s;

	several_begin(&s, &(struct multifd_opts){ .channels = 2, .method = WIRE_MULTIFD_ZSTD }, NULL);
	connect_honest(&s, &r);
	several_settle(&s);
	ck_assert_uint_eq(s.scene.e.inm->multifd.claim_count, 2);
	ck_assert_ptr_null(s.scene.e.inm->multifd.slots[0]);
	order_lands(&s, &r);
}

/* Its source has lost main and writes here: nobody would ever notice. */
TEST_EACH(test_channels_without_a_main_channel_are_closed, 2)
{
	struct order_real r;
	struct several s;
	unsigned line;

	several_begin(&s, &two, &(struct several_opts){ .tcp = true, .deadline_s = "1", SAID });
	line = several_connect(&s, &s.h.channels[0]);
	several_allow(&s, line, _i ? wire_find(&s.h.channels[0], "interval", 0) : WIRE_MULTIFD_HELLO_BYTES);
	for (uint64_t end_ns = deadline_after_ns(20 * NS_PER_S);
	     !s.lines[line].report.peer_closed && clock_now_ns() < end_ns;)
		several_turn(&s);
	ck_assert(s.lines[line].report.peer_closed);
	ck_assert_int_eq(s.result, 1);
	connect_honest(&s, &r);
	order_lands(&s, &r);
}

TEST(test_channels_wait_for_a_main_channel_that_is_slow)
{
	struct order_real r;
	struct several s;

	several_begin(&s, &two, &(struct several_opts){ .tcp = true, .deadline_s = "1", SAID });
	connect_honest(&s, &r);
	several_allow(&s, r.line[0], wire_find(s.lines[r.line[0]].wire, "START", 0));
	for (uint64_t end_ns = deadline_after_ns(3 * NS_PER_S); clock_now_ns() < end_ns;)
		several_turn(&s);
	ck_assert(!s.lines[r.line[1]].report.peer_closed);
	order_lands(&s, &r);
}
