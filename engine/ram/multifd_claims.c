#include "engine/ram/multifd_claims.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "engine/channel/channel.h"
#include "engine/options/options.h"
#include "engine/ram/multifd.h"
#include "engine/ram/multifd_channel.h"
#include "engine/ram/multifd_decode.h"
#include "engine/stream/hello.h"
#include "memory/block.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of which there may be so many, beside two for each channel: see multifd_claims.h. */
#define CLAIMS_SPARE 64

/* One that came before main is so many times as far from it as one that came after. */
#define EARLY_FACTOR 16

/* A claim that came so long before main may be somebody else's: we wait a little for the source's own. */
#define EARLY_NS (20 * NS_PER_MS)
#define EARLY_GRACE_NS (1 * NS_PER_S)

/* A channel of the source's own has gone, and another one of its id may be under way: not longer. */
#define GONE_NS (1 * NS_PER_S)

static struct multifd_channel *claim_at(struct list *at)
{
	return container_of(at, struct multifd_channel, node);
}

/* By the host that main comes from? Before that there is nobody's. */
static bool is_own(const struct multifd *m, const struct multifd_channel *c)
{
	return m->main->ch && chan_same_peer(c->ch->name, m->main->ch->name);
}

/* The rest of one packet without pages, and what TLS puts around it and after it. */
#define REMAINS_BYTES_MAX (MULTIFD_HEADER_BYTES_MAX + 128)

/*
 * It has ended, and left no more than its first packet. A source that has sent a small guest and closed looks like
 * this, too. A coroutine that waits for the start does not read, and does not notice the end of its channel.
 */
static bool is_dead(const struct multifd_channel *c)
{
	return c->co && chan_hung_up(c->ch) && chan_pending(c->ch) <= REMAINS_BYTES_MAX;
}

/* Of a connection that went away before this source came. */
static bool is_remains(const struct multifd *m, const struct multifd_channel *c)
{
	return c->came_ns < m->main->came_ns && is_dead(c);
}

/* ---- claims come and go ---- */

static bool are_rivals(const struct multifd_channel *a, const struct multifd_channel *b)
{
	return a != b && a->id == b->id && chan_same_peer(a->ch->name, b->ch->name);
}

static void count_rivals(struct multifd *m, struct multifd_channel *c, int by)
{
	for (struct list *at = m->claims.next; at != &m->claims; at = at->next) {
		if (!are_rivals(c, claim_at(at)))
			continue;
		c->rivals += (unsigned)by;
		claim_at(at)->rivals += (unsigned)by;
	}
}

static void enter(struct multifd *m, struct multifd_channel *c)
{
	list_push_tail(&m->claims, &c->node);
	m->claim_count++;
	count_rivals(m, c, 1);
}

static void leave(struct multifd_channel *c)
{
	if (!list_linked(&c->node))
		return;
	list_unlink(&c->node);
	c->m->claim_count--;
	count_rivals(c->m, c, -1);
}

/* It ends in its turn. */
static void pass_over(struct multifd_channel *c)
{
	leave(c);
	c->passed_over = true;
	if (c->co)
		co_cancel(c->co);
}

/* The oldest of those whose host claims one id most often. */
static void evict_one(struct multifd *m)
{
	struct multifd_channel *worst = claim_at(m->claims.next);

	for (struct list *at = m->claims.next; at != &m->claims; at = at->next)
		if (claim_at(at)->rivals > worst->rivals)
			worst = claim_at(at);
	log_often(m->log, LOG_CHANNELS, LOG_INFO, "multifd channel %u (%s) closed: %u connections claim to be one",
	          worst->id, worst->ch->name, m->claim_count);
	pass_over(worst);
}

/* The source's own is gone, and the list of blocks has come: that is what is wrong, if no other one comes. */
static void note_gone(struct multifd_channel *c, int result, const struct err *err)
{
	struct multifd *m = c->m;

	if (m->gone.result < 0 || m->ram->count == 0 || !is_own(m, c))
		return;
	m->gone = (struct multifd_gone){ .id = c->id, .at_ns = clock_now_ns(), .result = result, .err = *err };
	if (result == 0)
		m->gone.result = err_set(&m->gone.err, -ENODATA, "the source closed it before RAM was complete");
}

/* It has ended with @result, or was not chosen. Frees it. */
static void end_claim(struct multifd_channel *c, int result, const struct err *err)
{
	struct multifd *m = c->m;

	if (!c->passed_over && result <= 0 && result != -ECANCELED) {
		log_often(m->log, LOG_CHANNELS, LOG_INFO, "multifd channel %u (%s) closed before the start%s%s", c->id,
		          c->ch->name, result < 0 ? ": " : "", result < 0 ? err->text : "");
		note_gone(c, result, err);
	}
	leave(c);
	event_set(&m->arrived);
	multifd_channel_free(c);
}

/*
 * Until the channels are chosen. It reads meanwhile, to notice an end at once, but not beyond the first prefix.
 * Return: 1; 0 when it has ended before; or the error.
 *
 * There is no deadline, because the main stream has none. But without a main channel it is the rest of a source that
 * has lost that one and may not have noticed, because it writes here: each would wait for the other forever. Twice
 * connect-deadline: a main channel that says no more than who it is may take one of them. And what has come while this
 * process was stopped is seen by the second look.
 */
static may_park int await_choice(struct multifd_channel *c, struct err *err)
{
	const struct multifd *m = c->m;
	uint64_t deadline_s = m->opts->connect_deadline_s, deadline_ns;
	unsigned in_vain = 0;
	int e;

	while (in_vain < 2) {
		deadline_ns = multifd_is_settled(m) ? DEADLINE_NEVER : deadline_after_ns(deadline_s * NS_PER_S);
		e = multifd_channel_read_first(c, deadline_ns, err);
		if (e > 0)
			e = event_wait(&c->m->started, deadline_ns);
		else if (e == 0)
			return 0;
		if (e != -ETIMEDOUT)
			return e < 0 ? e : 1;
		in_vain = m->main->ch || multifd_is_settled(m) ? 0 : in_vain + 1;
	}
	return err_set(err, -ETIMEDOUT, "no main channel came within %" PRIu64 " s (twice connect-deadline)",
	               2 * deadline_s);
}

/* A channel's coroutine, from its claim to its end. */
static may_park int run_claim(void *arg)
{
	struct multifd_channel *c = arg;
	struct err err = ERR_NONE;
	int e;

	c->co = c->go.sched->current;
	e = c->passed_over ? -ECANCELED : await_choice(c, &err);
	if (e > 0 && c->chosen)
		e = multifd_channel_read(c, &err);
	if (!c->chosen) {
		end_claim(c, e, &err);
		return 0;
	}
	return multifd_channel_end(c, e, &err);
}

/* Return: the id, or why this connection is no channel of ours. */
static may_park int read_hello(struct multifd *m, const struct hello *h, uint64_t deadline_ns, struct err *err)
{
	uint8_t hello[MULTIFD_HELLO_BYTES];
	struct iovec iov = { hello + HELLO_BYTES, sizeof(hello) - HELLO_BYTES };
	ssize_t n;
	int id;

	memcpy(hello, h->first, HELLO_BYTES);
	n = chan_read_full(h->ch, &iov, 1, deadline_ns, err);
	if (n < 0)
		return (int)n;
	if ((size_t)n < sizeof(hello) - HELLO_BYTES)
		return err_set(err, -ENODATA, "closed inside the first packet");
	id = multifd_hello_check(hello, m->opts->has_uuid ? m->opts->uuid : NULL, m->channels, err);
	if (id >= 0 && m->started.set)
		return err_set(err, -EEXIST, "multifd channel %d is there already", id);
	return id;
}

static struct multifd_channel *claim_new(struct multifd *m, unsigned id, const struct hello *h)
{
	struct multifd_channel *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->m = m;
	c->id = id;
	c->ch = h->ch;
	c->came_ns = h->came_ns;
	list_init(&c->node);
	semaphore_init(&c->go, m->arrived.sched, "multifd sync point", 0);
	return c;
}

int multifd_join(struct multifd *m, struct hello *h, uint64_t deadline_ns, struct err *err)
{
	struct multifd_channel *c = NULL;
	int e = read_hello(m, h, deadline_ns, err);
	char name[32];

	if (e >= 0)
		c = claim_new(m, (unsigned)e, h);
	if (e >= 0 && !c)
		e = err_set(err, -ENOMEM, "no memory for a multifd channel");
	if (e < 0)
		chan_close(h->ch);
	/* One step, without a park: from a connection to a claim with a reader. By (1) of multifd.h. */
	h->ch = NULL;
	if (e < 0)
		return e;
	snprintf(name, sizeof(name), "multifd %u", c->id);
	e = group_spawn(m->readers, name, run_claim, c);
	if (e < 0) {
		multifd_channel_free(c);
		return err_set(err, e, "no memory for a coroutine");
	}
	enter(m, c);
	if (m->claim_count > 2 * m->channels + CLAIMS_SPARE)
		evict_one(m);
	log_often(m->log, LOG_CHANNELS, LOG_INFO, "multifd channel %u: %s", c->id, c->ch->name);
	event_set(&m->arrived);
	return 0;
}

/* ---- which of them it is ---- */

/* From main, in time. A source connects main first, and the network may change the order by a little, no more. */
static uint64_t distance_ns(const struct multifd *m, const struct multifd_channel *c)
{
	uint64_t a = c->came_ns, b = m->main->came_ns;

	return a > b ? a - b : EARLY_FACTOR * (b - a);
}

/*
 * A source connects all it has within moments, from one host. So of those that live: one by main's host before others,
 * then the one whose connection came nearest to main's.
 */
static bool is_better(const struct multifd *m, const struct multifd_channel *a, const struct multifd_channel *b)
{
	if (!b)
		return true;
	if (is_dead(a) != is_dead(b))
		return is_dead(b);
	if (is_own(m, a) != is_own(m, b))
		return is_own(m, a);
	return distance_ns(m, a) < distance_ns(m, b);
}

static struct multifd_channel *best_of(const struct multifd *m, unsigned id)
{
	struct multifd_channel *best = NULL;

	for (struct list *at = m->claims.next; at != &m->claims; at = at->next)
		if (claim_at(at)->id == id && is_better(m, claim_at(at), best))
			best = claim_at(at);
	return best;
}

/* How many ids have a claim; @own: one by main's host that is no remains. */
static unsigned covered(const struct multifd *m, bool own)
{
	bool has[MULTIFD_CHANNELS_MAX] = { false };
	unsigned count = 0;

	for (struct list *at = m->claims.next; at != &m->claims; at = at->next) {
		const struct multifd_channel *c = claim_at(at);

		if (has[c->id] || (own && (!is_own(m, c) || is_remains(m, c))))
			continue;
		has[c->id] = true;
		count++;
	}
	return count;
}

/* What it needs to receive is made only now: a claim holds no memory but its own. */
static int equip(struct multifd_channel *c, struct err *err)
{
	struct multifd *m = c->m;

	c->payload = malloc(m->compression ? MULTIFD_PAYLOAD_BYTES_MAX : MULTIFD_PACKET_PAGE_BYTES);
	if (!c->payload)
		return err_set(err, -ENOMEM, "no memory for a multifd channel");
	return m->compression ? multifd_decoder_new(&c->decoder, m->compression, &m->windows, err) : 0;
}

int multifd_claims_settle(struct multifd *m, struct err *err)
{
	int e = 0;

	if (m->started.set)
		return 0;
	for (unsigned id = 0; e == 0 && id < m->channels; id++) {
		struct multifd_channel *c = best_of(m, id);

		if (!c)
			continue;
		leave(c);
		c->chosen = true;
		m->slots[id] = c;
		e = equip(c, err);
	}
	while (!list_empty(&m->claims))
		pass_over(claim_at(m->claims.next));
	if (e == 0)
		event_set(&m->started);
	return e;
}

static uint64_t sooner(uint64_t a_ns, uint64_t b_ns)
{
	return a_ns < b_ns ? a_ns : b_ns;
}

static bool is_gone(const struct multifd *m)
{
	return m->gone.result < 0 && !best_of(m, m->gone.id);
}

/* A source connects main first. On a lossy network main may be late all the same: so it is only a reason to wait. */
static bool has_early(const struct multifd *m)
{
	for (unsigned id = 0; id < m->channels; id++) {
		const struct multifd_channel *c = best_of(m, id);

		if (c && c->came_ns + EARLY_NS < m->main->came_ns)
			return true;
	}
	return false;
}

static bool is_waited_for(const struct multifd *m, uint64_t grace_ns)
{
	return covered(m, true) < m->channels || (clock_now_ns() < grace_ns && has_early(m));
}

/* Return: -ETIMEDOUT at @deadline_ns. */
static may_park int await_own(struct multifd *m, uint64_t deadline_ns, struct err *err)
{
	uint64_t gone_ns, grace_ns = deadline_after_ns(EARLY_GRACE_NS);
	int e;

	while (is_waited_for(m, grace_ns)) {
		gone_ns = is_gone(m) ? m->gone.at_ns + GONE_NS : DEADLINE_NEVER;
		if (gone_ns <= clock_now_ns()) {
			*err = m->gone.err;
			return err_up(err, m->gone.result, "channel %u", m->gone.id);
		}
		event_clear(&m->arrived);
		if (covered(m, true) == m->channels)
			gone_ns = sooner(gone_ns, grace_ns);
		e = event_wait(&m->arrived, sooner(deadline_ns, gone_ns));
		if (e == -ECANCELED || (e == -ETIMEDOUT && clock_now_ns() >= deadline_ns))
			return e;
	}
	return 0;
}

int multifd_claims_await(struct multifd *m, struct err *err)
{
	int e = 0;

	if (m->started.set)
		return 0;
	e = await_own(m, deadline_after_ns(m->opts->connect_deadline_s * NS_PER_S), err);
	/* A source may have more than one address. */
	if (e == -ETIMEDOUT && covered(m, false) == m->channels)
		e = 0;
	if (e == -ETIMEDOUT)
		return err_set(err, e,
		               "%u of %u multifd channels have come; parameter multifd-channels must be the same on "
		               "both sides",
		               covered(m, false), m->channels);
	return e < 0 ? e : multifd_claims_settle(m, err);
}
