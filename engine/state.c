#include "engine/state.h"

#define BIT(state) (1u << (state))

/* To where from each. */
static const unsigned edges[] = {
	[INM_STATE_NONE] = BIT(INM_STATE_SETUP) | BIT(INM_STATE_CANCELLED),
	[INM_STATE_SETUP] = BIT(INM_STATE_ACTIVE) | BIT(INM_STATE_FAILED) | BIT(INM_STATE_CANCELLED),
	[INM_STATE_ACTIVE] = BIT(INM_STATE_POSTCOPY_ACTIVE) | BIT(INM_STATE_COMPLETED) | BIT(INM_STATE_FAILED) |
	                     BIT(INM_STATE_CANCELLED),
	[INM_STATE_POSTCOPY_ACTIVE] = BIT(INM_STATE_POSTCOPY_PAUSED) | BIT(INM_STATE_COMPLETED) |
	                              BIT(INM_STATE_FAILED) | BIT(INM_STATE_CANCELLED),
	[INM_STATE_POSTCOPY_PAUSED] = BIT(INM_STATE_POSTCOPY_RECOVER) | BIT(INM_STATE_COMPLETED) |
	                              BIT(INM_STATE_FAILED) | BIT(INM_STATE_CANCELLED),
	[INM_STATE_POSTCOPY_RECOVER] = BIT(INM_STATE_POSTCOPY_ACTIVE) | BIT(INM_STATE_POSTCOPY_PAUSED) |
	                               BIT(INM_STATE_COMPLETED) | BIT(INM_STATE_FAILED) | BIT(INM_STATE_CANCELLED),
	[INM_STATE_COMPLETED] = 0,
	[INM_STATE_FAILED] = 0,
	[INM_STATE_CANCELLED] = 0,
};

static const char *const names[] = {
	[INM_STATE_NONE] = "none",
	[INM_STATE_SETUP] = "setup",
	[INM_STATE_ACTIVE] = "active",
	[INM_STATE_POSTCOPY_ACTIVE] = "postcopy-active",
	[INM_STATE_POSTCOPY_PAUSED] = "postcopy-paused",
	[INM_STATE_POSTCOPY_RECOVER] = "postcopy-recover",
	[INM_STATE_COMPLETED] = "completed",
	[INM_STATE_FAILED] = "failed",
	[INM_STATE_CANCELLED] = "cancelled",
};

bool state_may_change(enum inm_state from, enum inm_state to)
{
	return edges[from] & BIT(to);
}

bool state_is_final(enum inm_state state)
{
	return edges[state] == 0;
}

const char *inm_state_name(enum inm_state state)
{
	return (unsigned)state < sizeof(names) / sizeof(names[0]) ? names[state] : "unknown";
}
