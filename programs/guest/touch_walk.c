/*
 * One toucher: the way it goes through the pages, an access, and what it can tell of it. By (1) and (2) of
 * touch.h.
 */
#include "programs/guest/touch_parts.h"

#include "base/clock.h"

#include <unistd.h>

/* xorshift64*, Vigna 2016: any generator would do that is short and not zero. */
static uint64_t next_random(struct toucher *tc)
{
	tc->random ^= tc->random >> 12;
	tc->random ^= tc->random << 25;
	tc->random ^= tc->random >> 27;
	return tc->random * 0x2545f4914f6cdd1dull;
}

static uint64_t next_page(struct toucher *tc, uint64_t step)
{
	const struct touch *t = tc->t;
	uint64_t pages = t->pages, hot = pages / 16 ? pages / 16 : 1, at;

	switch (t->opts.pattern) {
	case TOUCH_SEQ:
		return (pages / t->opts.threads * tc->index + step) % pages;
	case TOUCH_STRIDE:
		/* Each time round one page further, so that a pass comes by all of them. */
		at = step * (t->opts.stride_bytes / TOUCH_PAGE_BYTES);
		return (pages / t->opts.threads * tc->index + at % pages + at / pages) % pages;
	case TOUCH_HOT:
		/* Seven of eight accesses go to a sixteenth of the pages, in the middle. */
		if (next_random(tc) >> 61)
			return (pages / 2 + next_random(tc) % hot) % pages;
		/* fall through */
	case TOUCH_RANDOM:
	default:
		return next_random(tc) % pages;
	}
}

static void latency_add(struct touch_latency *l, uint64_t ns)
{
	l->count++;
	l->total_ns += ns;
	l->max_ns = ns > l->max_ns ? ns : l->max_ns;
	l->steps[histogram_step(ns, TOUCH_STEPS)]++;
}

/* Of what no toucher writes; never 0. */
static uint64_t sum_page(const struct touch *t, const char *page)
{
	size_t first = t->opts.access == TOUCH_READ ? 0 : (t->opts.threads + 3) / 4 * 4;
	const uint64_t *words = (const uint64_t *)page;
	uint64_t a = 1, b = 2, c = 3, d = 4;

	for (size_t i = first; i < TOUCH_PAGE_BYTES / 8; i += 4) {
		a = (a ^ words[i]) * 0x9e3779b97f4a7c15ull;
		b = (b ^ words[i + 1]) * 0xc2b2ae3d27d4eb4full;
		c = (c ^ words[i + 2]) * 0x165667b19e3779f9ull;
		d = (d ^ words[i + 3]) * 0x85ebca77c2b2ae63ull;
	}
	a ^= (b << 13 | b >> 51) ^ (c << 29 | c >> 35) ^ (d << 47 | d >> 17);
	return a ? a : 1;
}

static void violate(struct toucher *tc, enum touch_wrong wrong, uint64_t off, uint64_t expected, uint64_t found)
{
	/* After a stop the migration may have been given up, and then missing pages read as zeros. */
	if (atomic_load(&tc->t->stop) || tc->violation.wrong)
		return;
	tc->violation = (struct touch_violation){ wrong, off, expected, found };
}

static void check_content(struct toucher *tc, uint64_t page, const char *addr)
{
	uint64_t sum = sum_page(tc->t, addr), known = 0;

	/* By (1); the first thread that sees the page says what it is. */
	if (!atomic_compare_exchange_strong(&tc->t->sums[page], &known, sum) && known != sum)
		violate(tc, TOUCH_CONTENT_CHANGED, page * TOUCH_PAGE_BYTES, known, sum);
}

/* A load, or one instruction that also stores: so the first access to a page that is missing is of that sort. */
static uint64_t access_page(struct toucher *tc, uint64_t page, char *addr, bool write)
{
	uint64_t *place = (uint64_t *)(addr + 8ull * tc->index), value, before, begin_ns, end_ns;
	struct touch_stamp *s = tc->stamps && page < tc->t->tracked_pages ? &tc->stamps[page] : NULL;
	bool is_new = page >= tc->t->tracked_pages || atomic_load(&tc->t->sums[page]) == 0;

	value = (uint64_t)(tc->index + 1) << 48 | (tc->sequence + 1);
	begin_ns = clock_now_ns();
	before = write && s ? __atomic_exchange_n(place, value, __ATOMIC_RELAXED) : touch_load((const char *)place);
	end_ns = clock_now_ns();
	if (is_new && end_ns - begin_ns > TOUCH_SLOW_NS)
		latency_add(&tc->latency, end_ns - begin_ns);
	/* By (2). */
	if (s && s->value && before != s->value)
		violate(tc, TOUCH_STAMP_LOST, page * TOUCH_PAGE_BYTES + 8ull * tc->index, s->value, before);
	if (write && s) {
		if (!s->value) {
			s->original = before;
			tc->stamps_count++;
		}
		s->value = value;
		tc->sequence++;
	}
	return end_ns;
}

static bool touch_one(struct toucher *tc, uint64_t step)
{
	struct touch *t = tc->t;
	uint64_t page = next_page(tc, step), now_ns;
	char *addr = t->block->addr + page * TOUCH_PAGE_BYTES;
	bool write = t->opts.access == TOUCH_WRITE || (t->opts.access == TOUCH_MIXED && next_random(tc) >> 63);

	atomic_store_explicit(&tc->page_now, page, memory_order_relaxed);
	now_ns = access_page(tc, page, addr, write);
	if (page < t->tracked_pages)
		check_content(tc, page, addr);
	atomic_fetch_add_explicit(&tc->accesses, 1, memory_order_relaxed);
	return !tc->violation.wrong && !atomic_load(&t->stop) &&
	       (!t->opts.duration_ns || now_ns - tc->begin_ns < t->opts.duration_ns);
}

/* After a pass: is it the last one? */
static bool has_had_enough(const struct toucher *tc)
{
	const struct touch_options *o = &tc->t->opts;

	if (o->passes)
		return tc->passes >= o->passes;
	return !o->duration_ns && atomic_load(&tc->t->landed);
}

void *touch_walk(void *arg)
{
	struct toucher *tc = arg;
	struct touch *t = tc->t;
	bool on = true;

	while (sem_wait(&t->gate) < 0)
		continue;
	tc->tid = (uint32_t)gettid();
	tc->begin_ns = clock_now_ns();
	while (on && !atomic_load(&t->stop)) {
		for (uint64_t step = 0; on && step < t->pages; step++)
			on = touch_one(tc, step);
		tc->passes += on;
		on = on && !has_had_enough(tc);
	}
	tc->end_ns = clock_now_ns();
	return NULL;
}
