#include "engine/contest.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "engine/channel/channel.h"
#include "engine/incoming.h"
#include "engine/stream/opening.h"

#include <errno.h>
#include <stdio.h>

struct candidate {
	struct list node;
};

void contest_init(struct inm *inm)
{
	list_init(&inm->contest.candidates);
	event_init(&inm->contest.news, &inm->reactor->sched, "main channel's place");
}

/* Could a connection that begins like this one become main now, or when the place is free? */
static bool is_open(const struct inm *inm, const struct hello *h)
{
	switch (hello_first(h->first, h->got)) {
	case HELLO_QEVM:
		return !inm->contest.committed;
	case HELLO_COMMAND:
		return inm->recovering;
	default:
		return false;
	}
}

static int look(const struct inm *inm, const struct hello *h, struct err *err)
{
	if (hello_first(h->first, h->got) == HELLO_COMMAND)
		return opening_look_recovery(h->first, h->got, &inm->ram, err);
	return opening_look(h->first, h->got, inm->opts.send_configuration, err);
}

static may_park int read_opening(const struct inm *inm, struct hello *h, uint64_t deadline_ns, struct err *err)
{
	for (;;) {
		struct iovec iov = { h->first + h->got, sizeof(h->first) - h->got };
		int far = look(inm, h, err);
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

static uint64_t patience_ns(const struct inm *inm)
{
	uint64_t deadline_ns = inm->opts.connect_deadline_s * NS_PER_S;

	return inm->recovering || deadline_ns < CONTEST_PATIENCE_NS ? deadline_ns : CONTEST_PATIENCE_NS;
}

/* Its owner finds out by itself: its channel is at its end, or its coroutine is cancelled. */
static void displace(struct inm *inm)
{
	struct contest *c = &inm->contest;
	struct err err = ERR_NONE;

	c->displaced = true;
	if (!inm->recovering) {
		chan_shut_down(inm->main.ch);
		return;
	}
	err_set(&err, -ECONNABORTED,
	        "another connection wants to recover, and this one has not come to RESUME within "
	        "%llu s (connect-deadline)",
	        (unsigned long long)inm->opts.connect_deadline_s);
	incoming_lost(inm, -ECONNABORTED, &err);
}

/* When the owner's patience ends; there is none to end where the place is free, or about to be. */
static uint64_t patience_end_ns(const struct inm *inm)
{
	if (!inm->main_seen || inm->contest.displaced)
		return DEADLINE_NEVER;
	return inm->contest.until_ns;
}

static may_park int await_place(struct inm *inm, const struct hello *h, const struct candidate *me)
{
	struct contest *c = &inm->contest;
	int e = 0;

	while (e == 0 && is_open(inm, h) && (inm->main_seen || c->candidates.next != &me->node)) {
		event_clear(&c->news);
		e = event_wait(&c->news, patience_end_ns(inm));
		if (e != -ETIMEDOUT)
			continue;
		/* The place may have changed hands in the same turn. */
		if (is_open(inm, h) && patience_end_ns(inm) <= clock_now_ns())
			displace(inm);
		e = 0;
	}
	return e;
}

int contest_enter(struct inm *inm, struct hello *h, uint64_t deadline_ns, struct err *err)
{
	struct candidate me;
	int e;

	if (!is_open(inm, h))
		return 0; /* hello_decide says why not */
	e = read_opening(inm, h, deadline_ns, err);
	if (e < 0)
		return e;
	h->ready_ns = clock_now_ns();
	list_push_tail(&inm->contest.candidates, &me.node);
	e = await_place(inm, h, &me);
	list_unlink(&me.node);
	/* The next one is the first one now. */
	event_set(&inm->contest.news);
	return e;
}

void contest_taken(struct inm *inm)
{
	uint64_t now_ns = clock_now_ns(), until_ns = now_ns + patience_ns(inm);

	if (!inm->recovering && inm->main.ready_ns)
		until_ns = inm->main.ready_ns + patience_ns(inm);
	inm->contest.until_ns = until_ns > now_ns + CONTEST_MOMENT_NS ? until_ns : now_ns + CONTEST_MOMENT_NS;
	inm->contest.displaced = false;
}

void contest_extend(struct inm *inm)
{
	inm->contest.until_ns = clock_now_ns() + patience_ns(inm);
}

void contest_free(struct inm *inm)
{
	inm->main_seen = false;
	inm->contest.displaced = false;
	event_clear(&inm->main_there);
	event_set(&inm->contest.news);
}

int contest_check(const struct inm *inm, struct err *err)
{
	return inm->contest.displaced ? err_set(err, -ECONNABORTED, "another connection has taken its place") : 0;
}

int contest_commit(struct inm *inm, struct err *err)
{
	struct contest *c = &inm->contest;
	int e;

	if (c->committed)
		return 0;
	e = contest_check(inm, err);
	if (e < 0)
		return e;
	c->committed = true;
	incoming_set_state(inm, INM_STATE_ACTIVE);
	event_set(&c->news);
	return 0;
}

/* It went away, as opposed to: it said something that cannot be. */
static bool is_gone(int result)
{
	return result == -ENODATA || result == -ECONNRESET || result == -ECONNABORTED || result == -EPIPE ||
	       result == -EHOSTUNREACH || result == -ENETUNREACH || result == -ENETDOWN;
}

bool contest_drop(struct inm *inm, int result, const struct err *err)
{
	struct contest *c = &inm->contest;

	if (inm->single || c->committed || inm->loading.cancelled || !(c->displaced || is_gone(result)))
		return false;
	snprintf(inm->error_text, sizeof(inm->error_text),
	         "incoming: %s began a migration and did not go on: %s; "
	         "the next source is welcome",
	         inm->main.ch->name, c->displaced ? "no list of RAM blocks, and another one has come" : err->text);
	/* Once is news; a stranger that does it again and again is not. */
	log_often(&inm->log, LOG_CONNECTIONS, c->drops++ ? LOG_INFO : LOG_WARN, "%s", inm->error_text);
	if (inm->load_made)
		load_fini(&inm->load);
	inm->load_made = false;
	inm->load = (struct load){ .opts = NULL };
	ram_fini(&inm->ram);
	inm->switchover_ns = 0;
	incoming_close_main(inm);
	contest_free(inm);
	return true;
}
