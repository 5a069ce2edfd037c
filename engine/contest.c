#include "engine/contest.h"

#include "base/clock.h"
#include "base/err.h"
#include "engine/channel/channel.h"
#include "engine/options/options.h"
#include "engine/pause.h"
#include "engine/stream/opening.h"

#include <errno.h>

struct candidate {
	struct list node;
};

void contest_init(struct contest *c, struct sched *s)
{
	list_init(&c->candidates);
	event_init(&c->main_there, s, "main channel");
	event_init(&c->news, s, "main channel's place");
}

/* Could a connection that begins like this one become main now, or when the place is free? */
static bool is_open(const struct contest *c, const struct hello *h)
{
	switch (hello_first(h->first, h->got)) {
	case HELLO_QEVM:
		return !c->committed;
	case HELLO_COMMAND:
		return c->pause->on;
	default:
		return false;
	}
}

static int look(const struct contest *c, const struct hello *h, struct err *err)
{
	if (hello_first(h->first, h->got) == HELLO_COMMAND)
		return opening_look_recovery(h->first, h->got, c->ram, err);
	return opening_look(h->first, h->got, c->opts->send_configuration, err);
}

static may_park int read_opening(const struct contest *c, struct hello *h, uint64_t deadline_ns, struct err *err)
{
	for (;;) {
		struct iovec iov = { h->first + h->got, sizeof(h->first) - h->got };
		int far = look(c, h, err);
		ssize_t n;

		if (far < 0)
			return far;
		if (far == OPENING_DONE || iov.iov_len == 0)
			return 0;
		n = chan_readv(h->ch, &iov, 1, deadline_ns, err);
		/* Silent here by right. If nobody else wants the place, it may have it. */
		if (n == -ETIMEDOUT && far == OPENING_SETTLED)
			return 0;
		if (n == -ETIMEDOUT)
			return err_set(err, -ETIMEDOUT, "it began as a source does, and said no more than %zu bytes",
			               h->got);
		if (n < 0)
			return (int)n;
		if (n == 0)
			return err_set(err, -ENODATA, "it began as a source does, and closed after %zu bytes", h->got);
		h->got += (size_t)n;
	}
}

static uint64_t patience_ns(const struct contest *c)
{
	uint64_t deadline_ns = c->opts->connect_deadline_s * NS_PER_S;

	return c->pause->on || deadline_ns < CONTEST_PATIENCE_NS ? deadline_ns : CONTEST_PATIENCE_NS;
}

/* Its owner finds out by itself: its channel is at its end, or its coroutine is cancelled. */
static void displace(struct contest *c)
{
	struct err err = ERR_NONE;

	c->displaced = true;
	if (!c->pause->on) {
		chan_shut_down(c->main.ch);
		return;
	}
	err_set(&err, -ECONNABORTED,
	        "another connection wants to recover, and this one has not come to RESUME within "
	        "%llu s (connect-deadline)",
	        (unsigned long long)c->opts->connect_deadline_s);
	c->lost(c->opaque, -ECONNABORTED, &err);
}

/* When the owner's patience ends; there is none to end where the place is free, or about to be. */
static uint64_t patience_end_ns(const struct contest *c)
{
	if (!c->taken || c->displaced)
		return DEADLINE_NEVER;
	return c->until_ns;
}

static may_park int await_place(struct contest *c, const struct hello *h, const struct candidate *me)
{
	int e = 0;

	while (e == 0 && is_open(c, h) && (c->taken || c->candidates.next != &me->node)) {
		event_clear(&c->news);
		e = event_wait(&c->news, patience_end_ns(c));
		if (e != -ETIMEDOUT)
			continue;
		/* The place may have changed hands in the same turn. */
		if (is_open(c, h) && patience_end_ns(c) <= clock_now_ns())
			displace(c);
		e = 0;
	}
	return e;
}

int contest_enter(struct contest *c, struct hello *h, uint64_t deadline_ns, struct err *err)
{
	struct candidate me;
	int e;

	if (!is_open(c, h))
		return 0; /* hello_decide says why not */
	e = read_opening(c, h, deadline_ns, err);
	if (e < 0)
		return e;
	h->ready_ns = clock_now_ns();
	list_push_tail(&c->candidates, &me.node);
	e = await_place(c, h, &me);
	list_unlink(&me.node);
	/* The next one is the first one now. */
	event_set(&c->news);
	return e;
}

void contest_take(struct contest *c, struct hello *h)
{
	uint64_t now_ns = clock_now_ns(), until_ns = now_ns + patience_ns(c);

	c->main = *h;
	h->ch = NULL;
	c->taken = true;
	if (!c->pause->on && c->main.ready_ns)
		until_ns = c->main.ready_ns + patience_ns(c);
	c->until_ns = until_ns > now_ns + CONTEST_MOMENT_NS ? until_ns : now_ns + CONTEST_MOMENT_NS;
	c->displaced = false;
	event_set(&c->main_there);
}

void contest_close(struct contest *c)
{
	if (c->main.ch)
		c->main_bytes += c->main.ch->bytes_in;
	chan_close(c->main.ch);
	c->main.ch = NULL;
}

uint64_t contest_main_bytes(const struct contest *c)
{
	return c->main_bytes + (c->main.ch ? c->main.ch->bytes_in : 0);
}

void contest_extend(struct contest *c)
{
	c->until_ns = clock_now_ns() + patience_ns(c);
}

void contest_free(struct contest *c)
{
	contest_close(c);
	c->taken = false;
	c->displaced = false;
	event_clear(&c->main_there);
	event_set(&c->news);
}

void contest_settled(struct contest *c)
{
	event_set(&c->news);
}

int contest_check(const struct contest *c, struct err *err)
{
	return c->displaced ? err_set(err, -ECONNABORTED, "another connection has taken its place") : 0;
}

int contest_commit(struct contest *c, struct err *err)
{
	int e;

	if (c->committed)
		return 0;
	e = contest_check(c, err);
	if (e < 0)
		return e;
	c->committed = true;
	event_set(&c->news);
	return 1;
}

/* It went away, as opposed to: it said something that cannot be. */
static bool is_gone(int result)
{
	return result == -ENODATA || result == -ECONNRESET || result == -ECONNABORTED || result == -EPIPE ||
	       result == -EHOSTUNREACH || result == -ENETUNREACH || result == -ENETDOWN;
}

bool contest_may_drop(const struct contest *c, int result)
{
	return !c->single && !c->committed && (c->displaced || is_gone(result));
}
