#include "programs/stress/source.h"

#include "base/clock.h"
#include "base/err.h"
#include "coroutine/co.h"
#include "coroutine/group.h"
#include "coroutine/io.h"
#include "coroutine/reactor.h"
#include "coroutine/wait.h"
#include "memory/block.h"
#include "postcopy/place.h"
#include "postcopy/postcopy.h"
#include "programs/stress/block.h"
#include "programs/stress/check.h"
#include "programs/stress/content.h"
#include "programs/stress/kinds.h"
#include "programs/stress/move.h"
#include "programs/stress/options.h"
#include "programs/stress/phases.h"
#include "programs/stress/random.h"
#include "programs/stress/story.h"
#include "programs/stress/stress.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

#define ITEMS_MAX (1u << 16)
#define CHANNELS 4u
#define CHUNK_PAGES 64u /* placed by one call */
#define PUSH_PAGES 16u  /* sent unasked at a time, */
#define PUSH_SHARE 4u   /* a page for so many that were asked for */

enum item_kind { ITEM_ANSWER, ITEM_PUSH, ITEM_AGAIN, ITEM_STALE };

struct item {
	uint64_t due_ns;
	struct sblock *sb;
	uint32_t page, count;
	enum item_kind kind;
};

struct channel {
	struct source *source;
	uint8_t *bytes;   /* owned; CHUNK_PAGES pages */
	uint8_t *staging; /* owned; the same, from where pages are moved away */
};

struct source {
	struct stress *s;
	struct item *heap; /* owned */
	size_t heap_count;
	struct item *due; /* owned; a ring */
	size_t due_head, due_count;
	struct semaphore due_there;
	struct event sooner; /* the heap has another first */
	struct event idle;   /* nothing is in heap, ring or channels */
	size_t busy;
	uint64_t push_owed; /* pages that were asked for, and not counted for a push yet */
	uint64_t random;
	struct channel channels[CHANNELS];
};

/* ---- when ---- */

static uint64_t delay_draw(struct source *src)
{
	const struct stress_delay *d = &src->s->opts.delay;
	double u = random_unit(&src->random);
	uint64_t ns;

	switch (d->kind) {
	case DELAY_CONSTANT:
		return d->low_ns;
	case DELAY_UNIFORM:
		return d->low_ns + (uint64_t)(u * (double)(d->high_ns - d->low_ns));
	case DELAY_HEAVY:
		/* Pareto with exponent 1, cut: one in a hundred takes a hundred times the least, or longer. */
		ns = (uint64_t)((double)d->low_ns / (1 - u));
		if (ns > d->low_ns * DELAY_HEAVY_MAX)
			ns = d->low_ns * DELAY_HEAVY_MAX;
		return ns < STRESS_DELAY_MAX_NS ? ns : STRESS_DELAY_MAX_NS;
	default:
		return 0;
	}
}

static void heap_push(struct source *src, struct item item)
{
	size_t i = src->heap_count++, up;

	for (; i > 0 && src->heap[up = (i - 1) / 2].due_ns > item.due_ns; i = up)
		src->heap[i] = src->heap[up];
	src->heap[i] = item;
	if (i == 0)
		event_set(&src->sooner);
}

static struct item heap_pop(struct source *src)
{
	struct item first = src->heap[0], last = src->heap[--src->heap_count];
	size_t i = 0, down;

	while ((down = 2 * i + 1) < src->heap_count) {
		if (down + 1 < src->heap_count && src->heap[down + 1].due_ns < src->heap[down].due_ns)
			down++;
		if (src->heap[down].due_ns >= last.due_ns)
			break;
		src->heap[i] = src->heap[down];
		i = down;
	}
	src->heap[i] = last;
	return first;
}

static void now_due(struct source *src, struct item item)
{
	src->due[(src->due_head + src->due_count++) % ITEMS_MAX] = item;
	semaphore_release(&src->due_there);
}

static bool is_full(const struct source *src)
{
	return src->heap_count + src->due_count >= ITEMS_MAX;
}

static void count_pending(const struct item *item, int change)
{
	struct sblock *sb = item->sb;

	for (uint32_t u = item->page / sb->unit_pages; u <= (item->page + item->count - 1) / sb->unit_pages; u++)
		atomic_fetch_add_explicit(&sb->pending[u], (uint32_t)change, memory_order_relaxed);
}

static void schedule(struct source *src, struct item item)
{
	count_pending(&item, 1);
	src->busy++;
	event_clear(&src->idle);
	if (item.due_ns <= clock_now_ns())
		now_due(src, item);
	else
		heap_push(src, item);
}

/* The coroutine that looks at the clock. */
static may_park int run_clock(void *arg)
{
	struct source *src = arg;
	int r;

	for (;;) {
		uint64_t next_ns = src->heap_count ? src->heap[0].due_ns : DEADLINE_NEVER; /* nobody may ever ask */

		event_clear(&src->sooner);
		r = event_wait(&src->sooner, next_ns);
		if (r == -ECANCELED)
			return r;
		while (src->heap_count && src->heap[0].due_ns <= clock_now_ns())
			now_due(src, heap_pop(src));
	}
}

/* ---- what ---- */

static void note_change(struct sblock *sb, uint32_t page)
{
	atomic_store_explicit(&sb->change_ns[page / sb->unit_pages], clock_now_ns(), memory_order_relaxed);
}

static may_park int send_zero(struct stress *s, struct sblock *sb, uint32_t page, struct err *err)
{
	s->result.placed_by[PLACE_ZERO]++;
	return place_zero(s->pc, sb->b, page, err);
}

/* Pages of one kind, one after the other. Return: how many. */
static uint32_t same_kind(const struct stress *s, const struct sblock *sb, uint32_t page, uint32_t count,
                          enum stress_place *ret_place)
{
	uint32_t n = 1;

	*ret_place = content_place(s, sb, page);
	while (n < count && n < CHUNK_PAGES && content_place(s, sb, page + n) == *ret_place)
		n++;
	return n;
}

static may_park int send_chunk(struct channel *ch, struct sblock *sb, uint32_t page, uint32_t count,
                               enum stress_place place, bool stale)
{
	struct stress *s = ch->source->s;
	struct iovec pages[CHUNK_PAGES];
	struct err err = ERR_NONE;
	int r = 0;

	if (place == PLACE_ZERO && !stale) {
		for (uint32_t i = 0; r == 0 && i < count; i++)
			r = send_zero(s, sb, page + i, &err);
		return r;
	}
	for (uint32_t i = 0; i < count; i++) {
		pages[i] = (struct iovec){ ch->bytes + (size_t)i * TPAGE_BYTES, TPAGE_BYTES };
		content_make(s, sb, page + i, s->round - stale, pages[i].iov_base);
	}
	s->result.placed_by[place] += count;
	if (place == PLACE_MOVE && sblock_is_anonymous(sb)) {
		for (uint32_t i = 0; r == 0 && i < count; i++)
			r = move_page(s, sb, page + i, ch->bytes + (size_t)i * TPAGE_BYTES,
			              ch->staging + (size_t)i * TPAGE_BYTES);
		if (r < 0 && r != -ECANCELED)
			check_failed(s, "moving pages of '%s' from page %u on: %s", sb->name, page, strerror(-r));
		return r;
	}
	r = place_pages(s->pc, sb->b, page, pages, (int)count, &err);
	if (r < 0 && r != -ECANCELED)
		check_failed(s, "%s (%s)", err.text, err_name(r));
	return r;
}

/* Nobody may have asked for a second one of these; a network after a loss may bring it all the same. */
static void send_again(struct source *src, const struct item *item, enum item_kind kind, uint64_t due_ns)
{
	uint32_t page = item->page + (uint32_t)(random_next(&src->random) % item->count);

	if (is_full(src))
		return;
	schedule(src, (struct item){ .due_ns = due_ns, .sb = item->sb, .page = page, .count = 1, .kind = kind });
}

static const struct {
	enum story begins, ends;
} item_stories[] = {
	[ITEM_ANSWER] = { STORY_ANSWERS, STORY_ANSWERED },
	[ITEM_PUSH] = { STORY_PUSHES, STORY_PUSHED },
	[ITEM_AGAIN] = { STORY_AGAIN, STORY_AGAIN_DONE },
	[ITEM_STALE] = { STORY_STALE, STORY_STALE_DONE },
};

static void count_item(struct stress *s, const struct item *item)
{
	s->result.sent_again += item->kind == ITEM_AGAIN;
	s->result.sent_stale += item->kind == ITEM_STALE;
	s->result.pushed += item->kind == ITEM_PUSH ? item->count : 0;
	s->source->push_owed += item->kind == ITEM_ANSWER ? item->count : 0;
}

static may_park int send_item(struct channel *ch, const struct item *item)
{
	struct source *src = ch->source;
	struct stress *s = src->s;
	uint32_t end = item->page + item->count, n;
	enum stress_place place;
	int r = 0;

	count_item(s, item);
	story_add(s, item->sb, item->page, item->count, item_stories[item->kind].begins, 0);
	for (uint32_t page = item->page; r == 0 && page < end; page += n) {
		n = same_kind(s, item->sb, page, end - page, &place);
		note_change(item->sb, page);
		r = send_chunk(ch, item->sb, page, n, place, item->kind == ITEM_STALE);
		note_change(item->sb, page);
		/* Between two pieces of a huge page, others come. */
		if (r == 0 && page + n < end)
			r = co_yield(&s->reactor->sched);
	}
	story_add(s, item->sb, item->page, item->count, item_stories[item->kind].ends, r);
	/* After the answer, so that what is late is known to be. */
	if (r == 0 && (item->kind == ITEM_ANSWER || item->kind == ITEM_PUSH) &&
	    random_unit(&src->random) < s->opts.duplicates / 2)
		send_again(src, item, ITEM_STALE,
		           deadline_after_ns((uint64_t)(random_unit(&src->random) * 2 * (double)NS_PER_MS)));
	return r;
}

static may_park int run_channel(void *arg)
{
	struct channel *ch = arg;
	struct source *src = ch->source;
	struct item item;
	int r = 0;

	while (r == 0) {
		/* No deadline: nobody may ever ask. */
		r = semaphore_acquire(&src->due_there, DEADLINE_NEVER);
		if (r < 0)
			break;
		item = src->due[src->due_head];
		src->due_head = (src->due_head + 1) % ITEMS_MAX;
		src->due_count--;
		r = send_item(ch, &item);
		count_pending(&item, -1);
		if (--src->busy == 0)
			event_set(&src->idle);
	}
	if (r != -ECANCELED)
		phase_give_up(src->s);
	return r;
}

/* ---- requests ---- */

static struct sblock *sblock_of(struct stress *s, const struct block *b)
{
	unsigned i = 0;

	while (s->blocks[i].b != b)
		i++;
	return &s->blocks[i];
}

int source_request(void *opaque, const struct page_request *list, size_t count)
{
	struct stress *s = opaque;
	struct source *src = s->source;

	for (size_t i = 0; i < count; i++) {
		struct sblock *sb = sblock_of(s, list[i].block);
		struct item item = { .due_ns = clock_now_ns() + delay_draw(src),
			             .sb = sb,
			             .page = (uint32_t)(list[i].start / TPAGE_BYTES),
			             .count = (uint32_t)(list[i].bytes / TPAGE_BYTES),
			             .kind = ITEM_ANSWER };

		if (is_full(src))
			return -ENOBUFS;
		for (uint32_t u = item.page / sb->unit_pages; u < (item.page + item.count) / sb->unit_pages; u++)
			atomic_store_explicit(&sb->due_ns[u], item.due_ns, memory_order_relaxed);
		note_change(sb, item.page);
		story_add(s, sb, item.page, item.count, STORY_ASKED, 0);
		schedule(src, item);
		/* On another channel, at the same time. */
		if (random_unit(&src->random) < s->opts.duplicates / 2)
			send_again(src, &item, ITEM_AGAIN, item.due_ns);
	}
	return 0;
}

/* ---- what nobody has asked for ---- */

/* Return: the first missing page at or after *@page, and how many follow it, at most @most; 0: there is none. */
static uint32_t find_missing(const struct sblock *sb, uint32_t *page, uint32_t most)
{
	uint32_t n = 0;
	size_t first = bitmap_find_clear(&sb->b->received, *page);

	*page = (uint32_t)first;
	while (first + n < sb->pages && n < most && !block_is_received(sb->b, first + n))
		n++;
	return n;
}

/* As a source does in its spare time: runs of pages, from the beginning on. */
static may_park int run_push(void *arg)
{
	struct source *src = arg;
	struct stress *s = src->s;
	uint32_t cursor[BLOCKS_MAX] = { 0 }, n;
	int r;

	for (;;) {
		r = io_sleep_until(s->reactor, deadline_after_ns(NS_PER_MS));
		if (r < 0)
			return r;
		if (is_full(src))
			continue;
		for (unsigned i = 0; i < s->block_count; i++) {
			struct sblock *sb = &s->blocks[i];

			n = src->push_owed < PUSH_PAGES * PUSH_SHARE ? 0 : find_missing(sb, &cursor[i], PUSH_PAGES);
			src->push_owed -= n * PUSH_SHARE;
			if (n > 0)
				schedule(src, (struct item){ .due_ns = clock_now_ns() + delay_draw(src),
				                             .sb = sb,
				                             .page = cursor[i],
				                             .count = n,
				                             .kind = ITEM_PUSH });
			cursor[i] += n;
		}
	}
}

may_park int source_push_rest(struct stress *s)
{
	struct source *src = s->source;
	uint32_t n;
	int r = 0;

	for (unsigned i = 0; i < s->block_count; i++) {
		struct sblock *sb = &s->blocks[i];
		uint32_t page = 0;

		for (; r == 0 && (n = find_missing(sb, &page, CHUNK_PAGES * 8)) > 0; page += n) {
			while (r == 0 && is_full(src))
				r = event_wait(&src->idle, DEADLINE_NEVER); /* what is under way has its own */
			s->idle_pages += n;
			if (r == 0)
				schedule(src, (struct item){ .sb = sb, .page = page, .count = n, .kind = ITEM_PUSH });
		}
	}
	if (r == 0 && src->busy > 0)
		r = event_wait(&src->idle, DEADLINE_NEVER); /* what is under way has its own */
	return r;
}

int source_start(struct stress *s, struct group *g)
{
	struct source *src = s->source;
	struct sched *sched = &s->reactor->sched;
	int r;

	src->heap_count = src->due_head = src->due_count = src->busy = 0;
	semaphore_init(&src->due_there, sched, "what is due", 0);
	event_init(&src->sooner, sched, "the next answer");
	event_init(&src->idle, sched, "the last answer");
	event_set(&src->idle);
	r = group_spawn(g, "clock", run_clock, src);
	if (r == 0 && s->opts.duplicates > 0)
		r = group_spawn(g, "push", run_push, src);
	for (unsigned i = 0; r == 0 && i < CHANNELS; i++)
		r = group_spawn(g, "channel", run_channel, &src->channels[i]);
	return r;
}

static void *pages_new(void)
{
	void *p = mmap(NULL, CHUNK_PAGES * TPAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

int source_make(struct stress *s)
{
	struct source *src = s->source = calloc(1, sizeof(*src));

	if (!src)
		return -ENOMEM;
	src->s = s;
	src->random = mix64(s->opts.seed ^ 0x736f75726365);
	src->heap = calloc(ITEMS_MAX, sizeof(*src->heap));
	src->due = calloc(ITEMS_MAX, sizeof(*src->due));
	if (!src->heap || !src->due)
		return -ENOMEM;
	for (unsigned i = 0; i < CHANNELS; i++) {
		struct channel *ch = &src->channels[i];

		*ch = (struct channel){ .source = src, .bytes = pages_new(), .staging = pages_new() };
		if (!ch->bytes || !ch->staging)
			return -ENOMEM;
		madvise(ch->staging, CHUNK_PAGES * TPAGE_BYTES, MADV_NOHUGEPAGE);
	}
	return 0;
}

void source_free(struct stress *s)
{
	struct source *src = s->source;

	for (unsigned i = 0; src && i < CHANNELS; i++) {
		if (src->channels[i].bytes)
			munmap(src->channels[i].bytes, CHUNK_PAGES * TPAGE_BYTES);
		if (src->channels[i].staging)
			munmap(src->channels[i].staging, CHUNK_PAGES * TPAGE_BYTES);
	}
	if (src) {
		free(src->heap);
		free(src->due);
	}
	free(src);
}
