#include "engine/owner.h"

#include "base/assert.h"

#define BIT(state) (1u << (state))

/* To where from each, and what may be done there. See owner.h. */
static const struct owner_row {
	const char *name;
	unsigned edges;
	bool may_pause, may_end, may_cancel, may_run;
} rows[OWNER_STATE_COUNT] = {
	[OWNER_SOURCE] = { .name = "source",
	                   .edges = BIT(OWNER_PLEDGING) | BIT(OWNER_SPLIT) | BIT(OWNER_OURS),
	                   .may_end = true,
	                   .may_cancel = true },
	[OWNER_PLEDGING] = { .name = "pledging", .edges = BIT(OWNER_SOURCE) | BIT(OWNER_SPLIT) | BIT(OWNER_OURS) },
	[OWNER_SPLIT] = { .name = "split",
	                  .edges = BIT(OWNER_OURS) | BIT(OWNER_GIVEN_UP),
	                  .may_pause = true,
	                  .may_cancel = true,
	                  .may_run = true },
	[OWNER_OURS] = { .name = "ours", .may_run = true },
	[OWNER_GIVEN_UP] = { .name = "given-up", .may_end = true, .may_cancel = true },
};

bool owner_may_change(enum owner_state from, enum owner_state to)
{
	return rows[from].edges & BIT(to);
}

void owner_set(struct owner *o, enum owner_state state)
{
	ASSERT(owner_may_change(o->state, state));
	o->state = state;
}

void owner_runs(struct owner *o, uint64_t now_ns)
{
	ASSERT(rows[o->state].may_run && !o->runs);
	o->runs = true;
	o->runs_ns = now_ns;
}

const char *owner_name(enum owner_state state)
{
	return rows[state].name;
}

bool owner_may_pause(const struct owner *o)
{
	return rows[o->state].may_pause;
}

bool owner_may_end(const struct owner *o)
{
	return rows[o->state].may_end;
}

bool owner_may_return(const struct owner *o)
{
	return o->state != OWNER_OURS && !o->runs;
}

bool owner_may_cancel(const struct owner *o)
{
	return rows[o->state].may_cancel;
}
