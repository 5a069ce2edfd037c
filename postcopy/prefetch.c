#include "postcopy/prefetch.h"

#include "postcopy/shared.h"

#include <stdlib.h>

/* Equal distances in a row before the first guess. */
#define RUN_MIN 2
/* Farther apart is no walk. */
#define STRIDE_UNITS_MAX 1024
#define DEPTH_FIRST 4

/* Steps from the thread's last fault to @unit; 0: it is not on its way. */
static long steps_to(const struct fault_thread *t, const struct pblock *pb, size_t unit)
{
	long distance = (long)unit - (long)t->last_unit;

	if (t->block != pb || t->stride == 0 || distance % t->stride || distance / t->stride < 0)
		return 0;
	return distance / t->stride;
}

/* At the next step, or at one that was asked for ahead, or right after them. */
static bool goes_on(const struct fault_thread *t, const struct pblock *pb, size_t unit)
{
	long steps = steps_to(t, pb, unit);
	long ahead = t->depth ? ((long)t->ahead_unit - (long)t->last_unit) / t->stride : 0;

	return steps >= 1 && steps <= ahead + 1;
}

bool prefetch_walks(const struct fault_thread *t, const struct pblock *pb, size_t unit)
{
	return t && t->stride == 1 && goes_on(t, pb, unit);
}

static void learn(struct prefetch *p, struct fault_thread *t, const struct pblock *pb, size_t unit)
{
	long distance = (long)unit - (long)t->last_unit;

	if (goes_on(t, pb, unit)) {
		t->run++;
		p->hits += t->guessed;
		t->depth = t->depth * 2 < PREFETCH_DEPTH_MAX ? t->depth * 2 : PREFETCH_DEPTH_MAX;
	} else {
		p->waste += t->guessed;
		t->stride = t->block == pb && labs(distance) <= STRIDE_UNITS_MAX ? distance : 0;
		t->run = 1;
		t->depth = 0;
	}
	t->guessed = 0;
	t->block = pb;
	t->last_unit = unit;
}

void prefetch_fault(struct postcopy *pc, struct fault_thread *t, struct pblock *pb, size_t unit, uint64_t now_ns)
{
	long next, end;

	if (!t)
		return;
	learn(&pc->prefetch, t, pb, unit);
	if (!pc->prefetch_on || t->run < RUN_MIN || t->stride == 0)
		return;
	if (t->depth == 0) {
		t->depth = DEPTH_FIRST;
		t->ahead_unit = unit;
	}
	/* On from where it was asked for before, up to depth steps from here. */
	next = steps_to(t, pb, t->ahead_unit) > 0 ? (long)t->ahead_unit : (long)unit;
	end = (long)unit + (long)t->depth * t->stride;
	while (next != end) {
		next += t->stride;
		if (next < 0 || (size_t)next >= pb->units || pc->ledger.guesses >= PREFETCH_OUTSTANDING_MAX)
			break;
		t->ahead_unit = (size_t)next;
		if (!pblock_complete(pb, (size_t)next))
			t->guessed += ledger_guess(pc, pb, (size_t)next, now_ns);
	}
}
