#include "postcopy/prefetch.h"

#include <stdlib.h>

/* Equal distances in a row before the first guess. */
#define RUN_MIN 2
/* Farther apart is no walk. */
#define STRIDE_UNITS_MAX 1024
#define DEPTH_FIRST 4

/* Steps from the thread's last fault to @unit; 0: it is not on its way. */
static long steps_to(const struct walk *w, const void *block, size_t unit)
{
	long distance = (long)unit - (long)w->last_unit;

	if (w->block != block || w->stride == 0 || distance % w->stride || distance / w->stride < 0)
		return 0;
	return distance / w->stride;
}

/* At the next step, or at one that was asked for ahead, or right after them. */
static bool goes_on(const struct walk *w, const void *block, size_t unit)
{
	long steps = steps_to(w, block, unit);
	long ahead = w->depth ? ((long)w->ahead_unit - (long)w->last_unit) / w->stride : 0;

	return steps >= 1 && steps <= ahead + 1;
}

bool prefetch_walks(const struct walk *w, const void *block, size_t unit)
{
	return w->stride == 1 && goes_on(w, block, unit);
}

void prefetch_learn(struct prefetch *p, struct walk *w, const void *block, size_t unit)
{
	long distance = (long)unit - (long)w->last_unit;

	if (goes_on(w, block, unit)) {
		w->run++;
		p->hits += w->guessed;
		w->depth = w->depth * 2 < PREFETCH_DEPTH_MAX ? w->depth * 2 : PREFETCH_DEPTH_MAX;
	} else {
		p->waste += w->guessed;
		w->stride = w->block == block && labs(distance) <= STRIDE_UNITS_MAX ? distance : 0;
		w->run = 1;
		w->depth = 0;
	}
	w->guessed = 0;
	w->block = block;
	w->last_unit = unit;
}

bool prefetch_next(struct walk *w, size_t units, size_t *ret_unit)
{
	long next;

	if (w->run < RUN_MIN || w->stride == 0)
		return false;
	if (w->depth == 0) {
		w->depth = DEPTH_FIRST;
		w->ahead_unit = w->last_unit;
	}
	/* On from where it was asked for before, up to depth steps from here. */
	next = steps_to(w, w->block, w->ahead_unit) > 0 ? (long)w->ahead_unit : (long)w->last_unit;
	if (next == (long)w->last_unit + (long)w->depth * w->stride)
		return false;
	next += w->stride;
	if (next < 0 || (size_t)next >= units)
		return false;
	*ret_unit = (size_t)next;
	return true;
}

void prefetch_note(struct walk *w, size_t unit, bool asked)
{
	w->ahead_unit = unit;
	w->guessed += asked;
}
