/* Which channel is it? The whole cross product against doc/wire/channels.md 4, written a second time in code. */
#include "tests/support/check_main.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "engine/channel/channel.h"
#include "engine/stream/hello.h"

/* ---- the decision ---------------------------------------------------------------------------------------------- */

static const char *const first_names[] = { "nothing", "QEVM", "packet", "command", "page", "cpr", "TLS", "other" };

/* 4.1 and 4.2, in sentences and not as a table, so that a mistake in the one is not a mistake in the other. */
static enum hello_role expected_role(const struct hello_state *s, enum hello_first first)
{
	bool main_owed = s->main == HELLO_OWED, multifd_owed = s->multifd == HELLO_OWED;
	bool preempt_owed = s->preempt == HELLO_OWED;

	if (first == HELLO_QEVM)
		return main_owed && !s->recovery ? HELLO_IS_MAIN : HELLO_REFUSED;
	if (first == HELLO_COMMAND)
		return main_owed && s->recovery ? HELLO_IS_MAIN : HELLO_REFUSED;
	if (first == HELLO_PACKET)
		return multifd_owed && !s->recovery ? HELLO_IS_MULTIFD : HELLO_REFUSED;
	if (first == HELLO_PAGE)
		return preempt_owed && !(s->recovery && main_owed) ? HELLO_IS_PREEMPT : HELLO_REFUSED;
	if (first != HELLO_NOTHING)
		return HELLO_REFUSED;
	if (!preempt_owed || main_owed)
		return HELLO_UNDECIDED;
	/* multifd channels are never reconnected, so in a recovery they are not waited for. */
	return multifd_owed && !s->recovery ? HELLO_UNDECIDED : HELLO_IS_PREEMPT;
}

/* Of bits: which combination. */
static struct hello_state state_of(unsigned n)
{
	return (struct hello_state){
		.tls = n % 2, .recovery = n / 2 % 2, .main = n / 4 % 3, .multifd = n / 12 % 3, .preempt = n / 36 % 3
	};
}

#define STATES (2 * 2 * 3 * 3 * 3)

TEST_CASE("decide", 4);

TEST(test_every_combination_matches_exactly_one_row)
{
	for (unsigned n = 0; n < STATES; n++) {
		struct hello_state s = state_of(n);

		for (unsigned first = 0; first < HELLO_FIRST_COUNT; first++)
			ck_assert_msg(hello_matches(&s, first) == 1,
			              "%s, tls %d, recovery %d, main %d, multifd %d, preempt %d: %d rows",
			              first_names[first], s.tls, s.recovery, s.main, s.multifd, s.preempt,
			              hello_matches(&s, first));
	}
}

TEST(test_every_combination_has_the_role_of_the_rules)
{
	for (unsigned n = 0; n < STATES; n++) {
		struct hello_state s = state_of(n);

		for (unsigned first = 0; first < HELLO_FIRST_COUNT; first++) {
			const char *reason = NULL;
			enum hello_role role = hello_decide(&s, first, &reason), want = expected_role(&s, first);

			ck_assert_msg(role == want,
			              "%s, tls %d, recovery %d, main %d, multifd %d, preempt %d: role %d, not %d",
			              first_names[first], s.tls, s.recovery, s.main, s.multifd, s.preempt, role, want);
			ck_assert_msg(reason && reason[0] && strcmp(reason, "no rule for it"), "%s: no reason",
			              first_names[first]);
		}
	}
}

/* TLS is off and the peer speaks it, or the other way round: the reason must say so, not "not a migration channel". */
TEST(test_reasons_name_what_is_wrong)
{
	static const struct {
		struct hello_state state;
		enum hello_first first;
		const char *word;
	} rows[] = {
		{ { .main = HELLO_THERE }, HELLO_QEVM, "second main" },
		{ { .main = HELLO_THERE, .recovery = true }, HELLO_COMMAND, "second main" },
		{ { .main = HELLO_OWED }, HELLO_COMMAND, "nothing is paused" },
		{ { .main = HELLO_OWED, .recovery = true }, HELLO_QEVM, "recovered" },
		{ { .main = HELLO_OWED }, HELLO_PACKET, "the source has multifd on, and it is off here" },
		{ { .multifd = HELLO_THERE }, HELLO_PACKET, "multifd-channels" },
		{ { .main = HELLO_OWED }, HELLO_PAGE, "preempt is off" },
		{ { .preempt = HELLO_THERE }, HELLO_PAGE, "second preempt" },
		{ { .main = HELLO_OWED }, HELLO_CPR, "cpr" },
		{ { .main = HELLO_OWED }, HELLO_TLS, "TLS is off" },
		{ { .tls = true }, HELLO_TLS, "inside TLS" },
		{ { .main = HELLO_OWED }, HELLO_OTHER, "not a migration" },
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const char *reason;

		ck_assert_int_eq(hello_decide(&rows[i].state, rows[i].first, &reason), HELLO_REFUSED);
		ck_assert_msg(strstr(reason, rows[i].word), "no '%s' in '%s'", rows[i].word, reason);
	}
}

/* ---- the first bytes ------------------------------------------------------------------------------------------- */

static const struct {
	const char *bytes;
	enum hello_first first;
} beginnings[] = {
	{ "QEVM", HELLO_QEVM },
	{ "\x11\x22\x33\x44", HELLO_PACKET },
	{ "QCPR", HELLO_CPR },
	{ "\x08\x00\x0a\x00", HELLO_COMMAND },
	{ "\x08zzz", HELLO_COMMAND },
	{ "\x00\x00\x00\x00", HELLO_PAGE },
	{ "\x00\xff\xff\xff", HELLO_PAGE },
	{ "\x16\x03\x01\x02", HELLO_TLS },
	{ "\x16\x03\x03\x00", HELLO_TLS },
	{ "\x16\x02\x01\x02", HELLO_OTHER },
	{ "\x15\x03\x01\x02", HELLO_OTHER },
	{ "QEVN", HELLO_OTHER },
	{ "qevm", HELLO_OTHER },
	{ "MVEQ", HELLO_OTHER },
	{ "\x44\x33\x22\x11", HELLO_OTHER },
	{ "\x11\x22\x33\x45", HELLO_OTHER },
	{ "GET ", HELLO_OTHER },
	{ "SSH-", HELLO_OTHER },
	{ "\x01\x00\x00\x00", HELLO_OTHER },
	{ "\xff\xff\xff\xff", HELLO_OTHER },
};

#define BEGINNINGS (sizeof(beginnings) / sizeof(beginnings[0]))

TEST_CASE("first", 4);

TEST(test_beginnings_are_told_apart)
{
	for (unsigned i = 0; i < BEGINNINGS; i++)
		ck_assert_msg(hello_first((const uint8_t *)beginnings[i].bytes, 4) == beginnings[i].first, "row %u: %d",
		              i, hello_first((const uint8_t *)beginnings[i].bytes, 4));
}

TEST(test_fewer_than_four_bytes_say_nothing)
{
	for (unsigned i = 0; i < BEGINNINGS; i++)
		for (size_t got = 0; got < HELLO_BYTES; got++)
			ck_assert_int_eq(hello_first((const uint8_t *)beginnings[i].bytes, got), HELLO_NOTHING);
}

/* ---- reading them ---------------------------------------------------------------------------------------------- */

/* A channel that hands out what its script says, a step a call. */
struct scripted {
	struct chan chan;
	const uint8_t *bytes;
	const int *steps; /* bytes to hand out, 0 the end, or negative errno */
	unsigned calls;
	size_t at, asked_max;
	uint64_t deadline_ns;
};

static ssize_t scripted_readv(struct chan *ch, struct iovec *iov, int iov_count, uint64_t deadline_ns, struct err *err)
{
	struct scripted *s = (struct scripted *)ch;
	int step = s->steps[s->calls++];

	ck_assert_int_eq(iov_count, 1);
	s->deadline_ns = deadline_ns;
	if (iov->iov_len > s->asked_max)
		s->asked_max = iov->iov_len;
	ck_assert_uint_le(s->at + iov->iov_len, HELLO_BYTES); /* never beyond: the rest is the consumer's */
	if (step < 0)
		return err_set(err, step, "the transport's own words");
	ck_assert_uint_le(step, iov->iov_len);
	memcpy(iov->iov_base, s->bytes + s->at, (size_t)step);
	s->at += (size_t)step;
	return step;
}

static const struct chan_ops scripted_ops = { .readv = scripted_readv };

static int read_scripted(struct hello *h, const int *steps, struct scripted *s, struct err *err)
{
	*s = (struct scripted){ .chan = { .ops = &scripted_ops }, .bytes = (const uint8_t *)"QEVM", .steps = steps };
	*h = (struct hello){ .ch = &s->chan };
	*err = ERR_NONE;
	return hello_read(h, 12345, err);
}

TEST_CASE("read", 4);

TEST(test_four_bytes_are_read_in_any_pieces)
{
	static const int pieces[][5] = { { 4 }, { 1, 1, 1, 1 }, { 1, 3 }, { 3, 1 }, { 2, 2 }, { 1, 2, 1 } };

	for (unsigned i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
		struct scripted s;
		struct hello h;
		struct err err;

		ck_assert_int_eq(read_scripted(&h, pieces[i], &s, &err), 0);
		ck_assert_uint_eq(h.got, HELLO_BYTES);
		ck_assert_int_eq(memcmp(h.first, "QEVM", 4), 0);
		ck_assert_uint_eq(s.deadline_ns, 12345);
		ck_assert_uint_eq(s.chan.bytes_in, 4);
	}
}

TEST(test_the_end_before_four_bytes_is_an_error_with_their_number)
{
	static const int ends[][5] = { { 0 }, { 1, 0 }, { 2, 0 }, { 1, 1, 1, 0 } };
	static const char *const words[] = { "after 0", "after 1", "after 2", "after 3" };

	for (unsigned i = 0; i < 4; i++) {
		struct scripted s;
		struct hello h;
		struct err err;

		ck_assert_int_eq(read_scripted(&h, ends[i], &s, &err), -ENODATA);
		ck_assert_msg(strstr(err.text, words[i]), "%s", err.text);
		ck_assert_int_eq(hello_first(h.first, h.got), HELLO_NOTHING);
	}
}

TEST(test_the_deadline_is_an_error_with_their_number)
{
	static const int slow[] = { 1, 1, -ETIMEDOUT };
	struct scripted s;
	struct hello h;
	struct err err;

	ck_assert_int_eq(read_scripted(&h, slow, &s, &err), -ETIMEDOUT);
	ck_assert_msg(strstr(err.text, "2 of the first 4"), "%s", err.text);
}

TEST(test_errors_of_the_transport_and_a_cancel_are_passed_on)
{
	static const int broken[] = { 3, -ECONNRESET }, cancelled[] = { 3, -ECANCELED };
	struct scripted s;
	struct hello h;
	struct err err;

	ck_assert_int_eq(read_scripted(&h, broken, &s, &err), -ECONNRESET);
	ck_assert_msg(strstr(err.text, "own words"), "%s", err.text);
	ck_assert_int_eq(read_scripted(&h, cancelled, &s, &err), -ECANCELED);
	ck_assert_str_eq(err.text, "");
}
