#include "postcopy/ledger.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/probe.h"
#include "coroutine/reactor.h"
#include "memory/block.h"
#include "postcopy/blocktime.h"
#include "postcopy/pblock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A thread of the guest that waits for a unit. */
struct blocked_thread {
	struct blocked_thread *next;
	struct fault_thread *thread; /* NULL: too many to tell apart */
	uint32_t tid;
	uint64_t since_ns;
};

void ledger_init(struct ledger *l, struct reactor *reactor, struct blocktime *blocktime,
                 int (*request)(void *opaque, const struct page_request *list, size_t count), void *opaque)
{
	*l = (struct ledger){ .reactor = reactor, .blocktime = blocktime, .request = request, .opaque = opaque };
	list_init(&l->unsent);
	list_init(&l->guessed);
	list_init(&l->sent);
	event_init(&l->unsent_there, &reactor->sched, "a page to ask for");
}

/* For the next ones: a fault allocates nothing. */
static void put_blocked(struct ledger *l, struct want *w)
{
	struct blocked_thread *t;

	while ((t = w->blocked)) {
		w->blocked = t->next;
		t->next = l->free_blocked;
		l->free_blocked = t;
	}
}

static struct blocked_thread *get_blocked(struct ledger *l)
{
	struct blocked_thread *t = l->free_blocked;

	if (!t)
		return malloc(sizeof(*t));
	l->free_blocked = t->next;
	return t;
}

/* An answer is due while somebody waits and the source can be asked: see struct reactor. */
static void be_eager(struct ledger *l)
{
	bool eager = l->outstanding > 0 && !l->offline;

	if (eager != l->eager)
		l->reactor->eager += eager ? 1u : -1u;
	l->eager = eager;
}

static void count_outstanding(struct ledger *l, int change)
{
	l->outstanding += (size_t)change;
	be_eager(l);
}

void ledger_fini(struct ledger *l)
{
	struct blocked_thread *t;
	struct want *w;

	l->outstanding = 0;
	be_eager(l);
	for (size_t i = 0; i < LEDGER_BUCKETS; i++) {
		while ((w = l->buckets[i])) {
			l->buckets[i] = w->chain;
			ASSERT(list_empty(&w->waiters));
			put_blocked(l, w);
			free(w);
		}
	}
	while ((t = l->free_blocked)) {
		l->free_blocked = t->next;
		free(t);
	}
	while ((w = l->free)) {
		l->free = w->chain;
		free(w);
	}
}

static struct want **bucket_of(struct ledger *l, const struct pblock *pb, size_t unit)
{
	uint64_t h = ((uint64_t)(uintptr_t)pb >> 4) * 0x9e3779b97f4a7c15ull + unit;

	h *= 0x9e3779b97f4a7c15ull;
	return &l->buckets[(h >> 40) % LEDGER_BUCKETS];
}

static struct want **find(struct ledger *l, const struct pblock *pb, size_t unit)
{
	struct want **w = bucket_of(l, pb, unit);

	while (*w && ((*w)->pb != pb || (*w)->unit != unit))
		w = &(*w)->chain;
	return w;
}

static struct want *add(struct ledger *l, struct pblock *pb, size_t unit, uint64_t now_ns, bool guess)
{
	struct want *w = l->free, **bucket = bucket_of(l, pb, unit);

	if (w)
		l->free = w->chain;
	else
		w = malloc(sizeof(*w));
	if (!w)
		return NULL;
	*w = (struct want){ .pb = pb, .unit = unit, .since_ns = now_ns, .guess = guess, .chain = *bucket };
	*bucket = w;
	list_init(&w->node);
	list_init(&w->waiters);
	list_push_tail(guess ? &l->guessed : &l->unsent, &w->node);
	bitmap_set(&pb->asked, unit);
	if (guess)
		l->guesses++;
	else
		count_outstanding(l, 1);
	if (!l->offline)
		event_set(&l->unsent_there);
	return w;
}

/* Accounting only: without memory the thread waits all the same, and is not counted. */
static void note_blocked(struct ledger *l, struct want *w, uint32_t tid, uint64_t now_ns)
{
	struct blocked_thread *t;

	/* A thread waits for one page: if it is here already, a signal has made it fault again. */
	for (t = w->blocked; t; t = t->next)
		if (t->tid == tid)
			return;
	t = get_blocked(l);
	if (!t)
		return;
	*t = (struct blocked_thread){
		.next = w->blocked, .thread = blocktime_thread(l->blocktime, tid), .tid = tid, .since_ns = now_ns
	};
	w->blocked = t;
	blocktime_blocks(l->blocktime, now_ns);
}

struct want *ledger_want(struct ledger *l, struct pblock *pb, size_t unit, uint32_t tid, uint64_t now_ns)
{
	struct want *w = bitmap_test(&pb->asked, unit) ? *find(l, pb, unit) : add(l, pb, unit, now_ns, false);

	if (!w)
		return NULL;
	if (w->guess) {
		/* Somebody waits for it now. */
		w->guess = false;
		w->since_ns = now_ns;
		l->guesses--;
		count_outstanding(l, 1);
		if (!w->sent) {
			list_unlink(&w->node);
			list_push_tail(&l->unsent, &w->node);
		}
	}
	if (tid)
		note_blocked(l, w, tid, now_ns);
	return w;
}

bool ledger_guess(struct ledger *l, struct pblock *pb, size_t unit, uint64_t now_ns)
{
	if (bitmap_test(&pb->asked, unit) || !add(l, pb, unit, now_ns, true))
		return false;
	l->guessed_pages += 1ull << block_unit_order(pb->b);
	return true;
}

static void note_served(struct ledger *l, uint64_t now_ns)
{
	if (!l->back_ns)
		return;
	l->served_ns = now_ns - l->back_ns;
	l->back_ns = 0;
}

void ledger_landed(struct ledger *l, struct pblock *pb, size_t unit)
{
	struct want **link = find(l, pb, unit), *w = *link;
	uint64_t now_ns = clock_now_ns();

	ASSERT(w);
	*link = w->chain;
	list_unlink(&w->node);
	bitmap_clear(&pb->asked, unit);
	if (w->guess) {
		l->guesses--;
	} else {
		count_outstanding(l, -1);
		note_served(l, now_ns);
		if (w->blocked)
			blocktime_page(l->blocktime, now_ns - w->since_ns);
	}
	PROBE3(postcopy__landed, pb->b->label, unit, now_ns - w->since_ns);
	for (struct blocked_thread *t = w->blocked; t; t = t->next)
		blocktime_goes_on(l->blocktime, t->thread, now_ns, now_ns - t->since_ns);
	if (w->blocked)
		l->reactor->soon_ns = LEDGER_SOON_NS;
	put_blocked(l, w);
	while (!list_empty(&w->waiters))
		co_wake(co_of_node(list_pop_head(&w->waiters)), 0);
	w->chain = l->free;
	l->free = w;
}

void ledger_offline(struct ledger *l, bool on)
{
	l->offline = on;
	be_eager(l);
	if (!on)
		event_set(&l->unsent_there);
}

void ledger_unsend(struct ledger *l)
{
	struct want *w;

	/* The oldest first, and all of them before what has not been asked for yet. */
	while (!list_empty(&l->sent)) {
		w = container_of(l->sent.prev, struct want, node);
		list_unlink(&w->node);
		w->sent = false;
		list_push_head(w->guess ? &l->guessed : &l->unsent, &w->node);
	}
}

static struct want *next_unsent(const struct ledger *l)
{
	if (!list_empty(&l->unsent))
		return container_of(l->unsent.next, struct want, node);
	return list_empty(&l->guessed) ? NULL : container_of(l->guessed.next, struct want, node);
}

/* Units that are taken at a time. */
#define BATCH_UNITS_MAX 4096u

/* Neighbours go as one. Return: how many requests. */
static size_t take_batch(struct ledger *l, struct page_request *list)
{
	struct want *w;
	size_t n = 0;

	/* Not without end: a callback may have asked for all of the guest. */
	for (unsigned i = 0; i < BATCH_UNITS_MAX && (w = next_unsent(l)); i++) {
		uint64_t start = (uint64_t)w->unit << w->pb->b->unit_shift, bytes = block_unit_bytes(w->pb->b);
		struct page_request *last = n ? &list[n - 1] : NULL;

		if (last && last->block == w->pb->b && last->start + last->bytes == start &&
		    last->bytes + bytes <= UINT32_MAX)
			last->bytes += bytes;
		else if (n == REQUEST_BATCH_MAX)
			break;
		else
			list[n++] = (struct page_request){ .block = w->pb->b, .start = start, .bytes = bytes };
		list_unlink(&w->node);
		list_push_tail(&l->sent, &w->node);
		w->sent = true;
		l->requested_pages += bytes >> w->pb->b->tpage_shift;
	}
	return n;
}

int ledger_send(void *arg)
{
	struct ledger *l = arg;
	struct page_request list[REQUEST_BATCH_MAX];
	size_t n;
	int r;

	for (;;) {
		/* No deadline: nobody may touch a missing page for as long as it likes. */
		r = event_wait(&l->unsent_there, DEADLINE_NEVER);
		if (r < 0)
			return r;
		n = l->offline ? 0 : take_batch(l, list);
		if (!next_unsent(l) || l->offline)
			event_clear(&l->unsent_there);
		if (n == 0)
			continue;
		r = l->request(l->opaque, list, n);
		if (r == -ECANCELED)
			return r;
		if (r < 0) {
			/* The reader of the channel will find out, too; until it does, ask for nothing more. */
			ledger_offline(l, true);
			ledger_unsend(l);
			continue;
		}
		l->requests += n;
	}
}
