#include "engine/preempt.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "coroutine/reactor.h"
#include "engine/arrival.h"
#include "engine/channel/channel.h"
#include "engine/options/options.h"
#include "engine/story.h"
#include "postcopy/postcopy.h"

#include <errno.h>
#include <inttypes.h>

/* Between two looks at a main channel that nobody reads. */
#define HUNG_UP_NS (100 * NS_PER_MS)

void preempt_init(struct preempt *p)
{
	event_init(&p->news, &p->reactor->sched, "preempt channel");
	event_init(&p->listening, &p->reactor->sched, "POSTCOPY_LISTEN");
}

static bool is_expected(const struct preempt *p)
{
	return options_has(p->opts, CAP_POSTCOPY_PREEMPT);
}

enum hello_need preempt_need(const struct preempt *p)
{
	if (!is_expected(p))
		return HELLO_OFF;
	return p->ch || p->done ? HELLO_THERE : HELLO_OWED;
}

/* ---- its reader ---- */

static may_park int read_pages(struct preempt *p, struct err *err)
{
	int e = event_wait(&p->listening, DEADLINE_NEVER); /* nothing comes before; a failure ends this wait, too */

	return e < 0 ? e : ram_load_preempt(&p->loader, &p->reader, err);
}

static int refuse_end(const struct preempt *p, struct err *err)
{
	return err_set(err, -ENODATA, "the preempt channel has ended with %" PRIu64 " pages missing",
	               postcopy_missing(p->postcopy));
}

static int run(void *arg)
{
	struct preempt *p = arg;
	struct err err = ERR_NONE;
	int e = read_pages(p, &err);

	if (e == -ECANCELED)
		return e;
	/* An EOS record, or the end: sources up to 7.2 say so, later ones when they have been told that all is here. */
	p->done = true;
	if (e == 0 && postcopy_missing(p->postcopy) > 0)
		e = refuse_end(p, &err);
	if (e < 0) {
		story_lost(p->story, e, &err);
		return e;
	}
	event_set(&p->story->news);
	return 0;
}

int preempt_take(struct preempt *p, struct hello *h, struct err *err)
{
	int e;

	/* Its first bytes and the end of the stream came in the same turn. */
	if (p->story->loading.cancelled)
		return -ECANCELED;
	e = reader_init(&p->reader, &p->reactor->sched, h->ch, h->first, h->got);
	if (e < 0)
		return err_set(err, e, "no memory for the preempt channel's buffer");
	p->ch = h->ch;
	h->ch = NULL;
	p->loader = (struct ram_loader){
		.ram = p->ram, .opts = p->opts, .trace = p->trace, .postcopy = p->postcopy, .listed = true
	};
	log_often(p->log, LOG_CHANNELS, LOG_INFO, "preempt channel: %s", p->ch->name);
	event_set(&p->news);
	e = group_spawn(&p->story->loading, "preempt channel", run, p);
	if (e == 0)
		return 0;
	preempt_close(p);
	return err_set(err, e, "no memory for a coroutine");
}

uint64_t preempt_total_bytes(const struct preempt *p)
{
	return p->bytes + (p->ch ? p->ch->bytes_in : 0);
}

void preempt_close(struct preempt *p)
{
	if (!p->ch)
		return;
	p->bytes += p->ch->bytes_in;
	ram_loader_fini(&p->loader);
	reader_fini(&p->reader);
	chan_close(p->ch);
	p->ch = NULL;
}

/* ---- is it there? ---- */

/* Nobody reads the main channel meanwhile, so its end must be looked for. */
static int check_main(const struct preempt *p, struct err *err)
{
	if (!chan_hung_up(p->main->ch))
		return 0;
	return err_set(err, -ENOTCONN, "the source closed the main channel before its preempt channel had come");
}

static uint64_t sooner(uint64_t a_ns, uint64_t b_ns)
{
	return a_ns < b_ns ? a_ns : b_ns;
}

static bool has_come(const struct preempt *p)
{
	return !is_expected(p) || p->ch || arrival_has_silent(p->arrival);
}

int preempt_check(const struct preempt *p, struct err *err)
{
#ifdef CONTROL_NO_PREEMPT_WAIT
	return 0; /* as below */
#endif
	return has_come(p) || postcopy_missing(p->postcopy) == 0 ? 0 : refuse_end(p, err);
}

/*
 * Pages are asked for only when they can come (doc/wire/channels.md 4.4, 6 item 3). A channel that has been silent
 * counts: when all others are there it can be nothing else, and it has a coroutine that reads it.
 */
int preempt_await(struct preempt *p, struct err *err)
{
	uint64_t deadline_ns = deadline_after_ns(p->opts->connect_deadline_s * NS_PER_S);
	int e = 0;

#ifdef CONTROL_NO_PREEMPT_WAIT
	return 0; /* only in the control of test_switchover, which must then fail */
#endif
	while (!has_come(p)) {
		event_clear(&p->news);
		e = event_wait(&p->news, sooner(deadline_ns, deadline_after_ns(HUNG_UP_NS)));
		if (e == -ETIMEDOUT && clock_now_ns() < deadline_ns)
			e = check_main(p, err);
		if (e < 0)
			break;
	}
	if (e == -ETIMEDOUT)
		return err_set(err, e, "the preempt channel has not come within %" PRIu64 " s (connect-deadline)",
		               p->opts->connect_deadline_s);
	return e;
}
