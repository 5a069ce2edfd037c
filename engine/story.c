#include "engine/story.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/probe.h"
#include "engine/callbacks.h"
#include "engine/state.h"

#include <errno.h>
#include <unistd.h>

void story_init(struct story *story, struct sched *s)
{
	group_init(&story->root, s, "migration");
	group_init(&story->loading, s, "loading");
	group_init(&story->package, s, "package");
	event_init(&story->news, s, "news of the migration");
}

void story_set_state(struct story *story, enum inm_state state)
{
	ASSERT(state_may_change(story->state, state));
	ASSERT(!story->root.sched->current->in_handler); /* by (5) of yield.h */
	PROBE3(engine__state, story->callbacks->inm, (int)story->state, (int)state);
	/* Other threads look at it: inm_pause. */
	__atomic_store_n(&story->state, state, __ATOMIC_RELAXED);
	if (state_is_final(state))
		story->end_ns = clock_now_ns();
	callbacks_tell_state(story->callbacks, state);
}

static void keep_first(struct err *kept, int result, const struct err *err)
{
	if (kept->code == 0 && result != -ECANCELED) {
		*kept = *err;
		kept->code = result;
	}
}

void story_fail(struct story *story, int result, const struct err *err)
{
	keep_first(&story->err, result, err);
}

void story_lost(struct story *story, int result, const struct err *err)
{
	story_fail(story, result, err);
	group_cancel(&story->loading);
}

void story_refuse(struct story *story, int result, const struct err *err)
{
	keep_first(&story->refusal, result, err);
	group_cancel(&story->loading);
	event_set(&story->news);
}

bool story_under_way(const struct story *story)
{
	return story->root.sched && !group_empty(&story->root);
}

int story_result(const struct story *story)
{
	if (story->state == INM_STATE_COMPLETED)
		return 0;
	return story->state == INM_STATE_CANCELLED ? -ECANCELED : story->err.code;
}

void story_wake_watch(struct story *story)
{
	uint64_t one = 1;
	int saved_errno = errno; /* a signal handler must leave it as it was */
	/* The counter saturates long after the first of them was heard. */
	ssize_t n = write(story->wish_fd, &one, sizeof(one));

	(void)n;
	errno = saved_errno;
}
