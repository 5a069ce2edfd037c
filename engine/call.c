#include "engine/call.h"

#include "engine/inm.h"
#include "engine/last_error.h"

#include <errno.h>
#include <stdio.h>

static int begin(struct call *call, struct inm *inm, const char *name, int (*claim)(struct claim *c, struct err *err))
{
	*call = (struct call){ .inm = inm, .name = name };
	if (!inm)
		return last_error_null(name);
	call->claimed = claim(&inm->home->claim, &call->err);
	if (call->claimed < 0)
		return last_error_set(name, call->claimed, &call->err);
	return 0;
}

int call_begin(struct call *call, struct inm *inm, const char *name)
{
	return begin(call, inm, name, claim_look);
}

/* A migration's own end is told for as long as the migration is there. */
static bool has_story(const struct inm *inm)
{
	return inm->story.state == INM_STATE_FAILED || inm->story.state == INM_STATE_CANCELLED;
}

static void keep(struct inm *inm, int result, const struct err *err)
{
	if (!has_story(inm))
		snprintf(inm->story.text, sizeof(inm->story.text), "%s (%s)", err->text, err_name(result));
}

int call_begin_run(struct call *call, struct inm *inm, const char *name)
{
	struct err err = ERR_NONE;
	int claimed, r = begin(call, inm, name, claim_run);

	/* In a callback the migration is this thread's to write to; on another thread it is not. */
	if (r == -EDEADLK) {
		claimed = claim_look(&inm->home->claim, &err);
		if (claimed >= 0) {
			err_up(&call->err, r, "%s", name);
			keep(inm, r, &call->err);
			claim_leave(&inm->home->claim, claimed);
		}
	}
	return r;
}

int call_end(struct call *call, int result)
{
	/* A cancel is no story of a call's. */
	if (result < 0 && result != -ECANCELED) {
		keep(call->inm, result, &call->err);
		last_error_set(call->name, result, &call->err);
	}
	claim_leave(&call->inm->home->claim, call->claimed);
	return result;
}

int call_look(const struct inm *inm, const char *name)
{
	struct err err = ERR_NONE;
	int claimed;

	if (!inm)
		return last_error_null(name);
	claimed = claim_look(&inm->home->claim, &err);
	return claimed < 0 ? last_error_set(name, claimed, &err) : claimed;
}

void call_unlook(const struct inm *inm, int claimed)
{
	claim_leave(&inm->home->claim, claimed);
}
