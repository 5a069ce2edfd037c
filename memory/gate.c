#include "memory/gate.h"

#include "base/assert.h"

#include <errno.h>

bool gate_is_open(const struct gate *g)
{
#ifdef CONTROL_NO_GATE
	(void)g;
	return true; /* only in the control of test_switch_barrier, which must then fail; so below */
#else
	return !g->shut;
#endif
}

bool gate_enter(struct gate *g)
{
	if (!gate_is_open(g))
		return false;
	g->inside++;
	return true;
}

void gate_leave(struct gate *g, bool whole)
{
	ASSERT(g->inside > 0);
	g->inside--;
	g->torn |= !whole;
}

void gate_miss(struct gate *g)
{
	ASSERT(g->shut);
	g->torn = true;
}

bool gate_is_whole(const struct gate *g)
{
#ifdef CONTROL_NO_GATE
	(void)g;
	return true;
#else
	return g->inside == 0 && !g->torn;
#endif
}

int gate_shut(struct gate *g)
{
	if (!g->shut && !gate_is_whole(g))
		return g->inside > 0 ? -EBUSY : -EIO;
	g->shut = true;
	return 0;
}

void gate_expect_direct(const struct gate *g)
{
	ASSERT(gate_is_open(g));
}

void gate_expect_inside(const struct gate *g)
{
	ASSERT(gate_is_open(g) && g->inside > 0);
}

void gate_expect_placed(const struct gate *g)
{
	ASSERT(g->shut);
}
