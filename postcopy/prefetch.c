#include "postcopy/prefetch.h"

#include "postcopy/postcopy.h"

/* Equal distances in a row before the first guess. */
#define RUN_MIN 2
/* Farther apart is no walk. */
#define STRIDE_UNITS_MAX 1024

static bool goes_on(const struct fault_thread *t, const struct pblock *pb, size_t unit)
{
	long distance = (long)unit - (long)t->last_unit, ahead = (long)t->ahead_unit - (long)t->last_unit;

	if (t->block != pb || t->stride == 0 || distance % t->stride)
		return false;
	/* At the next step, or at one that was asked for ahead, or right behind them. */
	distance /= t->stride;
	ahead = t->depth ? ahead / t->stride : 0;
	return distance >= 1 && distance <= ahead + 1;
}

static void learn(struct prefetch *p, struct fault_thread *t, const struct pblock *pb, size_t unit)
{
	long distance = (long)unit - (long)t->last_unit;

	if (goes_on(t, pb, unit)) {
		t->run++;
		if (t->depth) {
			p->hits += (uint64_t)(distance / t->stride);
			t->depth = t->depth * 2 < PREFETCH_DEPTH_MAX ? t->depth * 2 : PREFETCH_DEPTH_MAX;
		}
	} else {
		if (t->block == pb && t->depth)
			p->waste += t->depth;
		t->stride = t->block == pb && distance <= STRIDE_UNITS_MAX && distance >= -STRIDE_UNITS_MAX ? distance : 0;
		t->run = 1;
		t->depth = 0;
	}
	t->block = pb;
	t->last_unit = unit;
}

void prefetch_fault(struct postcopy *pc, struct fault_thread *t, struct pblock *pb, size_t unit, uint64_t now_ns)
{
	long next;

	if (!t || !pc->prefetch_on)
		return;
	learn(&pc->prefetch, t, pb, unit);
	if (t->run < RUN_MIN || t->stride == 0)
		return;
	if (t->depth == 0)
		t->depth = 2;
	next = (long)unit;
	for (unsigned i = 0; i < t->depth; i++) {
		next += t->stride;
		if (next < 0 || (size_t)next >= pb->units || pc->ledger.guesses >= PREFETCH_OUTSTANDING_MAX)
			break;
		t->ahead_unit = (size_t)next;
		if (!pblock_complete(pb, (size_t)next, pc->ram->tpage_shift))
			ledger_guess(pc, pb, (size_t)next, now_ns);
	}
}
