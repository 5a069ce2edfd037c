#include "engine/stream/hello.h"

#include "base/be.h"
#include "base/err.h"
#include "engine/channel/channel.h"
#include "engine/stream/wire.h"

#include <errno.h>

int hello_read(struct hello *h, uint64_t deadline_ns, struct err *err)
{
	while (h->got < HELLO_BYTES) {
		struct iovec iov = { h->first + h->got, HELLO_BYTES - h->got };
		ssize_t n = chan_readv(h->ch, &iov, 1, deadline_ns, err);

		if (n == -ETIMEDOUT)
			return err_set(err, -ETIMEDOUT, "%zu of the first %d bytes before the deadline", h->got,
			               HELLO_BYTES);
		if (n < 0)
			return (int)n;
		if (n == 0)
			return err_set(err, -ENODATA, "closed after %zu bytes", h->got);
		h->got += (size_t)n;
	}
	return 0;
}

enum hello_first hello_first(const uint8_t first[static HELLO_BYTES], size_t got)
{
	if (got < HELLO_BYTES)
		return HELLO_NOTHING;
	switch (be32_load(first)) {
	case WIRE_MAGIC:
		return HELLO_QEVM;
	case WIRE_MAGIC_MULTIFD:
		return HELLO_PACKET;
	case WIRE_MAGIC_CPR:
		return HELLO_CPR;
	}
	if (first[0] == WIRE_COMMAND)
		return HELLO_COMMAND;
	if (first[0] == 0)
		return HELLO_PAGE;
	/* A TLS record of type handshake, version 3.x. */
	return first[0] == 0x16 && first[1] == 0x03 ? HELLO_TLS : HELLO_OTHER;
}

/* Bit masks over the values of an input, so that a row can speak of several. */
#define IN(value) (1u << (value))
#define ANY 0xffu
#define NO IN(false)
#define YES IN(true)
#define NOT(value) (ANY & ~IN(value))

struct row {
	enum hello_first first;
	unsigned tls, recovery, main, multifd, preempt;
	enum hello_role role;
	const char *reason;
};

/* doc/wire/channels.md 4.1, 4.2. Read a line as: these first bytes, in this state, are this. */
static const struct row table[] = {
	/* first        tls  recov main               multifd            preempt            */
	{ HELLO_QEVM, ANY, NO, IN(HELLO_OWED), ANY, ANY, HELLO_IS_MAIN, "the main channel" },
	{ HELLO_QEVM, ANY, NO, NOT(HELLO_OWED), ANY, ANY, HELLO_REFUSED, "a second main channel" },
	{ HELLO_QEVM, ANY, YES, ANY, ANY, ANY, HELLO_REFUSED, "a new migration, and another waits to be recovered" },

	{ HELLO_COMMAND, ANY, YES, IN(HELLO_OWED), ANY, ANY, HELLO_IS_MAIN, "the main channel of a recovery" },
	{ HELLO_COMMAND, ANY, YES, NOT(HELLO_OWED), ANY, ANY, HELLO_REFUSED, "a second main channel of a recovery" },
	{ HELLO_COMMAND, ANY, NO, ANY, ANY, ANY, HELLO_REFUSED, "a recovery, and nothing is paused here" },

	{ HELLO_PACKET, ANY, ANY, ANY, IN(HELLO_OFF), ANY, HELLO_REFUSED,
	  "a multifd channel: the source has multifd on, and it is off here; set it the same on both sides" },
	{ HELLO_PACKET, ANY, NO, ANY, IN(HELLO_OWED), ANY, HELLO_IS_MULTIFD, "a multifd channel" },
	{ HELLO_PACKET, ANY, YES, ANY, IN(HELLO_OWED), ANY, HELLO_REFUSED, "a multifd channel; a recovery has none" },
	{ HELLO_PACKET, ANY, ANY, ANY, IN(HELLO_THERE), ANY, HELLO_REFUSED,
	  "a multifd channel, and all are there: set multifd-channels to the same on both sides" },

	{ HELLO_PAGE, ANY, NO, ANY, ANY, IN(HELLO_OWED), HELLO_IS_PREEMPT, "the preempt channel, with a page" },
	{ HELLO_PAGE, ANY, YES, NOT(HELLO_OWED), ANY, IN(HELLO_OWED), HELLO_IS_PREEMPT,
	  "the preempt channel, with a page" },
	{ HELLO_PAGE, ANY, YES, IN(HELLO_OWED), ANY, IN(HELLO_OWED), HELLO_REFUSED,
	  "a page, and the main channel of the recovery is not there" },
	{ HELLO_PAGE, ANY, ANY, ANY, ANY, IN(HELLO_OFF), HELLO_REFUSED,
	  "a preempt channel, but capability postcopy-preempt is off here" },
	{ HELLO_PAGE, ANY, ANY, ANY, ANY, IN(HELLO_THERE), HELLO_REFUSED, "a second preempt channel" },

	/* A silent one can still be anything, unless nothing but preempt is missing. */
	{ HELLO_NOTHING, ANY, ANY, ANY, ANY, NOT(HELLO_OWED), HELLO_UNDECIDED, "nothing said" },
	{ HELLO_NOTHING, ANY, ANY, IN(HELLO_OWED), ANY, IN(HELLO_OWED), HELLO_UNDECIDED, "nothing said" },
	{ HELLO_NOTHING, ANY, NO, NOT(HELLO_OWED), IN(HELLO_OWED), IN(HELLO_OWED), HELLO_UNDECIDED, "nothing said" },
	{ HELLO_NOTHING, ANY, NO, NOT(HELLO_OWED), NOT(HELLO_OWED), IN(HELLO_OWED), HELLO_IS_PREEMPT,
	  "silent, and only the preempt channel is missing" },
	{ HELLO_NOTHING, ANY, YES, NOT(HELLO_OWED), ANY, IN(HELLO_OWED), HELLO_IS_PREEMPT,
	  "silent, and only the preempt channel is missing" },

	{ HELLO_CPR, ANY, ANY, ANY, ANY, ANY, HELLO_REFUSED, "a cpr channel: mode cpr-transfer is not supported" },
	{ HELLO_TLS, NO, ANY, ANY, ANY, ANY, HELLO_REFUSED, "it begins with a TLS handshake, and TLS is off here" },
	{ HELLO_TLS, YES, ANY, ANY, ANY, ANY, HELLO_REFUSED, "a TLS handshake inside TLS" },
	{ HELLO_OTHER, ANY, ANY, ANY, ANY, ANY, HELLO_REFUSED, "not a migration channel" },
};

static bool matches(const struct row *row, const struct hello_state *state, enum hello_first first)
{
	return row->first == first && row->tls & IN(state->tls) && row->recovery & IN(state->recovery) &&
	       row->main & IN(state->main) && row->multifd & IN(state->multifd) && row->preempt & IN(state->preempt);
}

int hello_matches(const struct hello_state *state, enum hello_first first)
{
	int n = 0;

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		n += matches(&table[i], state, first);
	return n;
}

enum hello_role hello_decide(const struct hello_state *state, enum hello_first first, const char **ret_reason)
{
#ifdef CONTROL_ARRIVAL_ORDER
	/* Only in the control of test_discovery, which must then fail: the first one is main, the next ones multifd. */
	*ret_reason = "by its place in the order";
	if (first != HELLO_NOTHING && state->main == HELLO_OWED)
		return HELLO_IS_MAIN;
	if (first != HELLO_NOTHING && state->multifd == HELLO_OWED)
		return HELLO_IS_MULTIFD;
#endif
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (matches(&table[i], state, first)) {
			*ret_reason = table[i].reason;
			return table[i].role;
		}
	}
	/* Not reached while the test is green. If it ever is, only this connection suffers. */
	*ret_reason = "no rule for it";
	return HELLO_REFUSED;
}
