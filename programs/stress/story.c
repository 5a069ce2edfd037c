#include "programs/stress/story.h"

#include "base/clock.h"
#include "programs/stress/block.h"
#include "programs/stress/stress.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct story_ring *story_of(const struct sblock *sb, uint32_t page)
{
	return &sb->stories[page / sb->unit_pages / STORY_UNITS];
}

/* Two may write the same entry when one was held up for a whole turn of the ring: it is for reading by people. */
__attribute__((no_sanitize("thread"))) void story_add(struct stress *s, struct sblock *sb, uint32_t page,
                                                      uint32_t count, enum story what, int32_t value)
{
	uint32_t neighbourhood = sb->unit_pages * STORY_UNITS, end = page + count;

	for (; page < end; page += neighbourhood - page % neighbourhood) {
		struct story_ring *ring = story_of(sb, page);
		uint32_t at = atomic_fetch_add_explicit(&ring->next, 1, memory_order_relaxed) % STORY_ENTRIES;

		ring->entries[at] = (struct story_entry){ .at_ns = clock_now_ns(),
			                                  .page = page,
			                                  .count = end - page,
			                                  .value = value,
			                                  .round = (uint16_t)s->round,
			                                  .what = (uint16_t)what };
	}
}

static const char *const story_words[STORY_COUNT] = {
	[STORY_ASKED] = "asked for",
	[STORY_ANSWERS] = "the answer is here",
	[STORY_ANSWERED] = "the answer was taken",
	[STORY_PUSHES] = "pushed without being asked for",
	[STORY_PUSHED] = "the push was taken",
	[STORY_AGAIN] = "sent a second time",
	[STORY_AGAIN_DONE] = "the second time was taken",
	[STORY_STALE] = "an older version is sent late",
	[STORY_STALE_DONE] = "the older version was taken",
	[STORY_REMOVES] = "a removal begins",
	[STORY_REMOVED] = "the removal has ended",
	[STORY_UNPLUGGED] = "unplugged",
	[STORY_MOVED] = "the whole block was moved",
	[STORY_FORKED] = "the process was forked",
	[STORY_RIVAL] = "a rival has placed it, without a wake",
	[STORY_WAITED] = "a toucher has waited, in microseconds",
	[STORY_MARKED] = "a mark was written by toucher",
	[STORY_OWN_WAITED] = "a coroutine of the engine has waited, in microseconds",
};

static int by_time(const void *a, const void *b)
{
	const struct story_entry *x = a, *y = b;

	return x->at_ns < y->at_ns ? -1 : x->at_ns > y->at_ns;
}

void story_tell(const struct stress *s, const struct sblock *sb, uint32_t page, char *ret_text, size_t size)
{
	struct story_entry entries[STORY_ENTRIES];
	uint64_t now_ns = clock_now_ns();
	size_t len = 0;

	memcpy(entries, story_of(sb, page)->entries, sizeof(entries));
	qsort(entries, STORY_ENTRIES, sizeof(entries[0]), by_time);
	ret_text[0] = '\0';
	for (size_t i = 0; i < STORY_ENTRIES; i++) {
		const struct story_entry *e = &entries[i];
		int n;

		if (!e->at_ns || e->round != (uint16_t)s->round || e->what >= STORY_COUNT)
			continue;
		n = snprintf(ret_text + len, size - len,
		             "\n    %10.3f ms ago  page %" PRIu32 "%s%.*" PRIu32 "  %s (%d)%s",
		             ((double)now_ns - (double)e->at_ns) / 1e6, e->page, e->count > 1 ? "+" : "",
		             e->count > 1 ? 1 : 0, e->count > 1 ? e->count - 1 : 0, story_words[e->what], e->value,
		             page >= e->page && page < e->page + e->count ? "  <-" : "");
		if (n < 0 || (size_t)n >= size - len)
			break;
		len += (size_t)n;
	}
}
