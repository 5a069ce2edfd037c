#include "programs/stress/own_faults.h"

#include "base/clock.h"
#include "coroutine/co.h"
#include "coroutine/group.h"
#include "coroutine/io.h"
#include "postcopy/postcopy.h"
#include "programs/stress/block.h"
#include "programs/stress/check.h"
#include "programs/stress/random.h"
#include "programs/stress/story.h"
#include "programs/stress/stress.h"
#include "programs/stress/toucher.h"
#include "programs/stress/waiter.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

static may_park int own_wait(struct stress *s, uint64_t *random)
{
	double mean_ns = 1e9 * s->own_count / s->opts.own_faults;

	return io_sleep_until(s->reactor, deadline_after_ns((uint64_t)(random_unit(random) * 2 * mean_ns)));
}

static struct sblock *own_choose(struct stress *s, uint64_t *random, uint32_t *ret_page)
{
	struct sblock *sb;

	/* Anonymous memory is there once: there is no engine view of it. */
	do
		sb = &s->blocks[random_next(random) % s->block_count];
	while (sblock_is_anonymous(sb));
	*ret_page = (uint32_t)(random_next(random) % sb->pages);
	return sb;
}

static may_park int own_touch(struct stress *s, struct waiter *w, struct sblock *sb, uint32_t page, uint8_t *copy)
{
	uint32_t done = removals_done(sb, page);
	uint64_t begin_ns = clock_now_ns(), ns;

	waiter_begins(w, sb, page, begin_ns);
	yield_watch(&s->pc->yield, w->name);
	memcpy(copy, sb->b->engine + (uint64_t)page * TPAGE_BYTES, TPAGE_BYTES);
	yield_unwatch(&s->pc->yield);
	waiter_ends(w);
	ns = clock_now_ns() - begin_ns;
	if (s->pc->opened)
		return -ECANCELED;
	s->result.own_touches++;
	if (ns > WAIT_NS)
		story_add(s, sb, page, 1, STORY_OWN_WAITED, (int32_t)(ns / NS_PER_US));
	return check_page(s, sb, page, (const uint64_t *)(const void *)copy, done, removals_begun(sb, page), w->name) ?
	               0 :
	               -ECANCELED;
}

static may_park int run_own(void *arg)
{
	struct waiter *w = arg;
	struct stress *s = w->stress;
	uint64_t random = mix64(s->opts.seed ^ (uint64_t)(w - s->waiters) << 32 ^ s->round);
	_Alignas(64) uint8_t copy[TPAGE_BYTES];
	struct sblock *sb;
	uint32_t page;
	int r;

	while (atomic_load(&s->touching) > 0) {
		r = own_wait(s, &random);
		if (r < 0)
			return r;
		sb = own_choose(s, &random, &page);
		r = own_touch(s, w, sb, page, copy);
		if (r < 0)
			return r;
	}
	return 0;
}

int own_start(struct stress *s, struct group *g)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < s->own_count; i++) {
		s->waiters[s->own_first + i].stress = s;
		r = group_spawn(g, "own faults", run_own, &s->waiters[s->own_first + i]);
	}
	return r;
}
