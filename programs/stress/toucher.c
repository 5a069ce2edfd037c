#include "programs/stress/toucher.h"

#include "base/clock.h"
#include "memory/block.h"
#include "programs/stress/block.h"
#include "programs/stress/check.h"
#include "programs/stress/kinds.h"
#include "programs/stress/kvm.h"
#include "programs/stress/latency.h"
#include "programs/stress/phases.h"
#include "programs/stress/random.h"
#include "programs/stress/story.h"
#include "programs/stress/stress.h"
#include "programs/stress/waiter.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define STRIDE_PAGES 7u
#define HOT_SHARE 16u
/* After one touch in so many, one of an earlier page: is the mark still there? */
#define BACK_EVERY 8u

/* ---- which page ---- */

/* The same permutation of all pages for everybody in a round: steps that can be undone, over a power of two. */
static uint32_t permuted(const struct stress *s, uint32_t step)
{
	unsigned bits = 32u - (unsigned)__builtin_clz(s->pages | 1);
	uint64_t h = mix64(s->opts.seed ^ (uint64_t)s->round << 20), mask = (1ull << bits) - 1, x = step;

	do {
		x = (x * (h | 1) + (h >> 32)) & mask;
		x ^= x >> (bits / 2 + 1);
		x = x * 0x9e3779b97f4a7c15ull & mask;
		x ^= x >> (bits / 2 + 1);
	} while (x >= s->pages);
	return (uint32_t)x;
}

/* How many touches a round has for one. */
static uint32_t steps_of(const struct toucher *t)
{
	const struct stress *s = t->s;

	return s->opts.pattern == PATTERN_RACING ? s->pages : (s->pages + s->opts.touchers - 1) / s->opts.touchers;
}

static uint32_t page_at(struct toucher *t, uint32_t step)
{
	const struct stress *s = t->s;
	uint32_t share = steps_of(t), hot = s->pages / HOT_SHARE ? s->pages / HOT_SHARE : 1;

	switch (s->opts.pattern) {
	case PATTERN_SEQ:
		return (t->index * share + step) % s->pages;
	case PATTERN_STRIDE:
		return (t->index * share + step * STRIDE_PAGES % share + step * STRIDE_PAGES / share) % s->pages;
	case PATTERN_HOT:
		/* Seven of eight go to a sixteenth of the pages. */
		if (random_next(&t->random) >> 61)
			return (uint32_t)((s->pages / 2 + random_next(&t->random) % hot) % s->pages);
		return (uint32_t)(random_next(&t->random) % s->pages);
	case PATTERN_RACING:
		return permuted(s, step);
	default:
		return permuted(s, (t->index + step * s->opts.touchers) % s->pages);
	}
}

static struct sblock *block_at(struct stress *s, uint32_t *page)
{
	struct sblock *sb = s->blocks;

	while (*page >= sb->pages) {
		*page -= sb->pages;
		sb++;
	}
	return sb;
}

/* ---- gates ---- */

static bool enter(struct sblock *sb, uint32_t page)
{
	struct slot *slot = sblock_slot(sb, page);

	if (!slot)
		return true;
	if (atomic_fetch_add(&slot->users, 1) < SLOT_CLOSED)
		return true;
	atomic_fetch_sub(&slot->users, 1);
	return false;
}

static void leave(struct sblock *sb, uint32_t page)
{
	struct slot *slot = sblock_slot(sb, page);

	if (slot)
		atomic_fetch_sub(&slot->users, 1);
}

/* ---- a touch ---- */

static uint32_t access_here(struct toucher *t, struct sblock *sb, uint32_t page, uint32_t mark, uint64_t *ret_ns)
{
	uint8_t *addr = atomic_load_explicit(&sb->guest, memory_order_relaxed) + (uint64_t)page * TPAGE_BYTES;
	uint32_t *place = (uint32_t *)addr + t->index, found;
	uint64_t begin_ns = clock_now_ns();

	waiter_begins(t->waiter, sb, page, begin_ns);
	found = mark ? __atomic_exchange_n(place, mark, __ATOMIC_SEQ_CST) : __atomic_load_n(place, __ATOMIC_SEQ_CST);
	*ret_ns = clock_now_ns() - begin_ns;
	waiter_ends(t->waiter);
	return found;
}

/* Return: false when a vCPU could not. */
static bool access_page(struct toucher *t, struct sblock *sb, uint32_t page, uint32_t mark, uint32_t *ret_found,
                        uint64_t *ret_ns)
{
	bool ok;

	if (!t->vcpu || sb->role != ROLE_STEADY) {
		*ret_found = access_here(t, sb, page, mark, ret_ns);
		return true;
	}
	waiter_begins(t->waiter, sb, page, clock_now_ns());
	ok = vcpu_touch(t->vcpu, sb, page, t->index, mark, ret_found, ret_ns);
	waiter_ends(t->waiter);
	return ok;
}

/* The page again, whole: it may have been removed since. NULL when a vCPU could not. */
static const uint64_t *copy_page(struct toucher *t, struct sblock *sb, uint32_t page)
{
	const uint8_t *addr = atomic_load_explicit(&sb->guest, memory_order_relaxed) + (uint64_t)page * TPAGE_BYTES;
	const uint64_t *copy = (const uint64_t *)(const void *)t->bounce;

	waiter_begins(t->waiter, sb, page, clock_now_ns());
	if (t->vcpu && sb->role == ROLE_STEADY)
		copy = vcpu_copy(t->vcpu, sb, page);
	else
		memcpy(t->bounce, addr, TPAGE_BYTES);
	waiter_ends(t->waiter);
	return copy;
}

static void note_wait(struct toucher *t, struct sblock *sb, uint32_t page, uint64_t ns)
{
	if (ns <= WAIT_NS)
		return;
	atomic_fetch_add_explicit(&t->waits, 1, memory_order_relaxed);
	latency_add(&t->latency, ns);
	story_add(t->s, sb, page, 1, STORY_WAITED, (int32_t)(ns / NS_PER_US));
}

/* Return: false when something is wrong. */
static bool touch_in(struct toucher *t, struct sblock *sb, uint32_t page, bool write)
{
	struct mark *m = &t->marks[sb->index][page], before = *m;
	uint32_t done = removals_done(sb, page), begun, found, mark = 0;
	uint64_t ns;
	bool ok;

	if (write)
		mark = ++t->value ? t->value : ++t->value;
	if (!access_page(t, sb, page, mark, &found, &ns))
		return false;
	begun = removals_begun(sb, page);
	if (write)
		*m = (struct mark){ .value = mark, .round = t->s->round, .done_before = done, .begun_after = begun };
	note_wait(t, sb, page, ns);
	ok = check_place(t->s, sb, page, t->index, found, &before, done, begun, t->waiter->name);
	atomic_fetch_add_explicit(&t->marks_checked, before.value && before.round == t->s->round, memory_order_relaxed);
	atomic_fetch_add_explicit(&t->touches, 1, memory_order_relaxed);
	if (ok && (ns > WAIT_NS || !write)) {
		const uint64_t *copy;

		done = removals_done(sb, page);
		copy = copy_page(t, sb, page);
		ok = copy && check_page(t->s, sb, page, copy, done, removals_begun(sb, page), t->waiter->name);
	}
	return ok;
}

static bool touch(struct toucher *t, uint32_t g, bool write)
{
	uint32_t page = g;
	struct sblock *sb = block_at(t->s, &page);
	bool ok;

	if (!enter(sb, page))
		return true;
	ok = touch_in(t, sb, page, write);
	leave(sb, page);
	return ok;
}

static void touch_round(struct toucher *t)
{
	uint32_t steps = steps_of(t);
	uint64_t random;

	for (uint32_t step = 0; step < steps && !atomic_load_explicit(&t->s->stop, memory_order_relaxed); step++) {
		random = random_next(&t->random);
		if (!touch(t, page_at(t, step), random & 1))
			return;
		if (random / 2 % BACK_EVERY == 0 &&
		    !touch(t, page_at(t, (uint32_t)(random_next(&t->random) % (step + 1))), false))
			return;
	}
}

/* ---- the end of a round: everything is looked at once more ---- */

/* Unplugged: only the file can be asked. */
static bool walk_page_gone(struct toucher *t, struct sblock *sb, uint32_t page)
{
	if (sblock_is_anonymous(sb))
		return true;
	memcpy(t->bounce, sb->b->landing + (uint64_t)page * TPAGE_BYTES, TPAGE_BYTES);
	return check_page(t->s, sb, page, (const uint64_t *)(const void *)t->bounce, 0, 0, "the walk over the file");
}

static bool walk_page(struct toucher *t, struct sblock *sb, uint32_t page)
{
	uint32_t done = removals_done(sb, page);
	const uint64_t *copy;

	if (!enter(sb, page))
		return walk_page_gone(t, sb, page);
	waiter_begins(t->waiter, sb, page, clock_now_ns());
	memcpy(t->bounce, atomic_load(&sb->guest) + (uint64_t)page * TPAGE_BYTES, TPAGE_BYTES);
	waiter_ends(t->waiter);
	leave(sb, page);
	copy = (const uint64_t *)(const void *)t->bounce;
	return check_page(t->s, sb, page, copy, done, removals_begun(sb, page), "the walk at the end of the round");
}

static bool walk_mark(struct toucher *t, struct sblock *sb, uint32_t page)
{
	const struct mark *m = &t->marks[sb->index][page];
	uint32_t done = removals_done(sb, page), found;

	if (!m->value || m->round != t->s->round || !enter(sb, page))
		return true;
	waiter_begins(t->waiter, sb, page, clock_now_ns());
	found = __atomic_load_n((uint32_t *)(atomic_load(&sb->guest) + (uint64_t)page * TPAGE_BYTES) + t->index,
	                        __ATOMIC_SEQ_CST);
	waiter_ends(t->waiter);
	leave(sb, page);
	atomic_fetch_add_explicit(&t->marks_checked, 1, memory_order_relaxed);
	return check_place(t->s, sb, page, t->index, found, m, done, removals_begun(sb, page),
	                   "the walk at the end of the round");
}

static void walk(struct toucher *t)
{
	struct stress *s = t->s;

	for (unsigned b = 0; b < s->block_count; b++) {
		struct sblock *sb = &s->blocks[b];

		for (uint32_t page = t->index; page < sb->pages; page += s->opts.touchers)
			if (!walk_page(t, sb, page))
				return;
		for (uint32_t page = 0; page < sb->pages; page++)
			if (!walk_mark(t, sb, page))
				return;
	}
}

void *toucher_main(void *arg)
{
	struct toucher *t = arg;
	enum stress_phase phase;
	unsigned seen = 0;

	atomic_store(&t->waiter->tid, (uint32_t)gettid());
	if (t->s->opts.kvm)
		t->vcpu = vcpu_make(t->s, t->index);
	while ((phase = phase_next(t->s, &seen)) != PHASE_END) {
		if (phase == PHASE_TOUCH) {
			touch_round(t);
			atomic_fetch_sub(&t->s->touching, 1);
		} else if (phase == PHASE_WALK) {
			walk(t);
		}
		phase_done(t->s);
	}
	vcpu_free(t->vcpu);
	return NULL;
}

/* ---- all of them ---- */

static int toucher_make(struct stress *s, unsigned index)
{
	struct toucher *t = &s->touchers[index];

	*t = (struct toucher){ .s = s, .index = index, .random = mix64(s->opts.seed + index), .value = index << 22 };
	t->waiter = waiter_new(s, "toucher %u", index);
	for (unsigned b = 0; b < s->block_count; b++) {
		t->marks[b] = mmap(NULL, s->blocks[b].pages * sizeof(struct mark), PROT_READ | PROT_WRITE,
		                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (t->marks[b] == MAP_FAILED) {
			t->marks[b] = NULL;
			return -ENOMEM;
		}
	}
	return 0;
}

int touchers_make(struct stress *s)
{
	int r = 0;

	s->touchers = aligned_alloc(64, s->opts.touchers * sizeof(*s->touchers));
	if (!s->touchers)
		return -ENOMEM;
	memset(s->touchers, 0, s->opts.touchers * sizeof(*s->touchers));
	for (unsigned i = 0; r == 0 && i < s->opts.touchers; i++)
		r = toucher_make(s, i);
	return r;
}

void touchers_free(struct stress *s)
{
	for (unsigned i = 0; s->touchers && i < s->opts.touchers; i++)
		for (unsigned b = 0; b < s->block_count; b++)
			if (s->touchers[i].marks[b])
				munmap(s->touchers[i].marks[b], s->blocks[b].pages * sizeof(struct mark));
	free(s->touchers);
}
