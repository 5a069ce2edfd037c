#include "postcopy/own.h"

#include "base/assert.h"
#include "base/clock.h"
#include "coroutine/reactor.h"
#include "coroutine/turn.h"
#include "postcopy/shared.h"
#include "postcopy/show.h"

#include <errno.h>

struct block *own_find(const struct postcopy *pc, const void *addr, uint64_t *ret_off)
{
	struct pblock *pb = watched_find(&pc->guest_views, (uintptr_t)addr, ret_off);
	const uint8_t *at = addr;

	/* In the last page of a huge one there may be more than the block uses. */
	if (pb)
		return *ret_off < pb->b->used_bytes ? pb->b : NULL;
	pb = watched_find(&pc->engine_views, (uintptr_t)addr, ret_off);
	if (pb)
		return pb->b;
	/* Nothing is watched: in precopy, or for a part of the guest that is not. */
	for (size_t i = 0; !pc->listening && i < pc->ram->count; i++) {
		struct block *b = pc->ram->blocks[i];

		if (b->guest && at >= b->guest && (uint64_t)(at - b->guest) < b->used_bytes) {
			*ret_off = (uint64_t)(at - b->guest);
			return b;
		}
		if (b->engine && at >= b->engine && (uint64_t)(at - b->engine) < b->mapped_bytes) {
			*ret_off = (uint64_t)(at - b->engine);
			return b;
		}
	}
	return NULL;
}

static may_park int await_units(struct postcopy *pc, struct pblock *pb, uint64_t off, uint64_t bytes)
{
	size_t unit = off >> pb->b->unit_shift, end = ((off + bytes - 1) >> pb->b->unit_shift) + 1;
	struct want *w;
	int r;

	/* All of them are asked for at once. */
	for (size_t u = unit; u < end; u++) {
		if (!pblock_complete(pb, u) && !ledger_want(&pc->ledger, pb, u, 0, clock_now_ns()))
			return -ENOMEM;
		turn_spend_shielded(&pc->reactor->sched, 4 * TURN_STEP);
	}
	for (; unit < end; unit++) {
		while (!pblock_complete(pb, unit)) {
			w = ledger_want(&pc->ledger, pb, unit, 0, clock_now_ns());
			if (!w || pc->opened)
				return w ? -ECANCELED : -ENOMEM;
			/* No deadline: the migration's end is one. */
			r = co_park(&pc->reactor->sched, &w->waiters, DEADLINE_NEVER, "missing page of", pb->b->label);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

int own_await(struct postcopy *pc, struct block *b, uint64_t off, uint64_t bytes)
{
	const char *what = pc->yield.watched;
	int r;

	if (what)
		yield_unwatch(&pc->yield);
	r = await_units(pc, postcopy_block(pc, b), off, bytes);
	if (what)
		yield_watch(&pc->yield, what);
	/* The callback is told; what comes after it must be, too. */
	if (r == -ECANCELED)
		co_cancel_again(&pc->reactor->sched);
	return r;
}

/* Nothing will come any more: what is missing reads as zeros, so that the callback ends, and its result is ignored. */
static void open_views(struct postcopy *pc)
{
	if (pc->opened)
		return;
	pc->opened = true;
	for (size_t i = 0; i < pc->ram->count; i++)
		if (pc->blocks[i].b->engine)
			uffd_unregister(&pc->engine, pc->blocks[i].b->engine, pc->blocks[i].b->mapped_bytes);
}

void own_fault(void *opaque, void *addr)
{
	struct postcopy *pc = opaque;
	struct pblock *pb;
	uint64_t off;
	int r;

	pc->counts.engine_faults++;
	pb = watched_find(&pc->engine_views, (uintptr_t)addr, &off);
	ASSERT(pb); /* yield.h calls for addresses in engine views only */
	r = await_units(pc, pb, off, 1);
	if (r == -ECANCELED)
		co_cancel_again(&pc->reactor->sched);
	if (r == 0)
		r = show_engine(pc, pb, off);
	if (r < 0 && r != -ECANCELED)
		postcopy_give_up(pc, r, "showing a page to a device");
	if (r < 0)
		open_views(pc);
}
