#include "engine/channels.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "engine/inm.h"
#include "engine/ram/multifd_claims.h"
#include "engine/set_up.h"

#include <stdio.h>

void channels_take_main(struct inm *inm, struct hello *h)
{
	contest_take(&inm->contest, h);
	log_often(&inm->log, inm->pause.on ? LOG_RECOVERIES : LOG_CHANNELS, LOG_INFO, "main channel: %s",
	          inm->contest.main.ch->name);
	event_set(&inm->story.news);
}

int channels_secure_main(struct inm *inm, struct err *err)
{
	struct hello *main = &inm->contest.main;

	/* fd:, exec: and file: have not been met (HELLO_BYTES read) before. */
	if (main->got > 0)
		return 0;
	return arrival_secure(&inm->arrival, main, deadline_after_ns(inm->opts.connect_deadline_s * NS_PER_S), err);
}

static enum hello_need multifd_need(const struct multifd *m)
{
	if (m->channels == 0)
		return HELLO_OFF;
	return multifd_is_settled(m) ? HELLO_THERE : HELLO_OWED;
}

static void look(void *opaque, struct arrival_view *ret)
{
	const struct inm *inm = opaque;

	*ret = (struct arrival_view){
		.state = { .tls = inm->arrival.tls != NULL,
		           .recovery = inm->pause.on,
		           .main = inm->contest.taken ? HELLO_THERE : HELLO_OWED,
		           .multifd = multifd_need(&inm->multifd),
		           .preempt = preempt_need(&inm->preempt) },
		.multifd_channels = inm->multifd.channels,
		.listening = inm->postcopy.listening,
		.missing_tpages = postcopy_missing(&inm->postcopy),
		.may_pause = owner_may_pause(&inm->owner),
	};
}

static may_park int contend(void *opaque, struct hello *h, uint64_t deadline_ns, struct err *err)
{
	struct inm *inm = opaque;

	return contest_enter(&inm->contest, h, deadline_ns, err);
}

static may_park int take(void *opaque, enum hello_role role, struct hello *h, uint64_t deadline_ns, struct err *err)
{
	struct inm *inm = opaque;

	switch (role) {
	case HELLO_IS_MAIN:
		channels_take_main(inm, h);
		return 0;
	case HELLO_IS_MULTIFD:
		return multifd_join(&inm->multifd, h, deadline_ns, err);
	default:
		return preempt_take(&inm->preempt, h, err);
	}
}

static void may_be_preempt(void *opaque)
{
	struct inm *inm = opaque;

	event_set(&inm->preempt.news);
}

static void lost(void *opaque, int result, const struct err *err)
{
	struct inm *inm = opaque;

	story_lost(&inm->story, result, err);
}

static void turned_away(void *opaque, const struct err *err)
{
	struct inm *inm = opaque;

	snprintf(inm->story.hint, sizeof(inm->story.hint), "; refused before: %.120s", err->text);
}

static may_park void watch_turned_away(void *opaque, const char *name)
{
	set_up_watch(opaque, name);
}

const struct arrival_ops channels_ops = { .look = look,
	                                  .contend = contend,
	                                  .take = take,
	                                  .may_be_preempt = may_be_preempt,
	                                  .lost = lost,
	                                  .turned_away = turned_away,
	                                  .watch_turned_away = watch_turned_away };
