#include "engine/delivery.h"

#include "base/clock.h"
#include "base/err.h"
#include "engine/inm.h"

#include <errno.h>

/* Before the embedder hears of the guest: this stream is the migration from here on. */
static int commit(struct inm *inm, struct err *err)
{
	int e = contest_commit(&inm->contest, err);

	if (e > 0)
		story_set_state(&inm->story, INM_STATE_ACTIVE);
	return e < 0 ? e : 0;
}

static int ram_block(void *opaque, struct inm_ram_block *block, struct err *err)
{
	struct inm *inm = opaque;
	int e = commit(inm, err);

	return e < 0 ? e : callbacks_ram_block(&inm->callbacks, block, err);
}

static int ram_listed(void *opaque, struct err *err)
{
	struct inm *inm = opaque;

	return callbacks_ram_listed(&inm->callbacks, err);
}

static may_park int device(void *opaque, const struct inm_device *device, struct err *err)
{
	struct inm *inm = opaque;
	int e = commit(inm, err);

	return e < 0 ? e : callbacks_device(&inm->callbacks, device, err);
}

static int live_state(void *opaque, const struct inm_live_state *piece, struct err *err)
{
	struct inm *inm = opaque;

	return callbacks_live_state(&inm->callbacks, piece, err);
}

static int early_described(void *opaque, const struct inm_device *device, struct err *err)
{
	struct inm *inm = opaque;

	return callbacks_early_described(&inm->callbacks, device, err);
}

static may_park int sync_multifd(void *opaque, struct err *err)
{
	struct inm *inm = opaque;

	return multifd_sync(&inm->multifd, err);
}

static void note_switchover(void *opaque)
{
	struct inm *inm = opaque;

	inm->story.switchover_ns = clock_now_ns();
}

static void note_lost(void *opaque, int result, const struct err *err)
{
	struct inm *inm = opaque;

	story_lost(&inm->story, result, err);
}

/* A guest that is split, and does not run yet, cannot be had by anybody now. */
static void note_refusal(void *opaque, int result, const struct err *err)
{
	struct inm *inm = opaque;

	if (inm->owner.state == OWNER_SPLIT && !inm->owner.runs && result != -ECANCELED)
		owner_set(&inm->owner, OWNER_GIVEN_UP);
	story_refuse(&inm->story, result, err);
}

void delivery_ops(const struct inm *inm, struct load_ops *ops)
{
	const struct inm_ops *has = &inm->callbacks.ops;

	ops->ram_block = ram_block;
	ops->ram_listed = has->ram_listed ? ram_listed : NULL;
	ops->device = device;
	ops->live_state = has->live_state ? live_state : NULL;
	ops->early_described = has->early_described ? early_described : NULL;
	ops->sync = sync_multifd;
	ops->switchover = note_switchover;
	ops->lost = note_lost;
	ops->refused = note_refusal;
}
