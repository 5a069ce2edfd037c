#include "engine/set_up.h"

#include "base/clock.h"
#include "base/err.h"
#include "coroutine/io.h"
#include "coroutine/reactor.h"
#include "engine/channel/channel.h"
#include "engine/inm.h"

#include <errno.h>

/* Is main of the source whose channel @name was turned away at @then_ns? A source connects main first. */
static bool is_main_of(const struct inm *inm, const char *name, uint64_t then_ns)
{
	return inm->contest.main.ch && chan_same_peer(inm->contest.main.ch->name, name) &&
	       inm->contest.main.came_ns <= then_ns + NS_PER_S;
}

static bool is_in_set_up(const struct inm *inm)
{
	const struct load *l = &inm->load;

	return !l->rounds_begun ||
	       (multifd_has_ended(&inm->multifd) && !inm->multifd.switched && !sections_all_ended(&l->sections));
}

/*
 * When a channel of QEMU 7.2 is turned away, the source has failed, but keeps its main channel open and silent. In the
 * set-up phase it has no reason for silence, so that gives it away. Once a round has begun it may pause as it likes,
 * unless one of its other channels has ended and more of RAM is to come. If main comes from another host than the
 * channel that was turned away, that was a stranger's, and the source goes on.
 */
void set_up_watch(struct inm *inm, const char *name)
{
	uint64_t wait_ns = inm->opts.connect_deadline_s * NS_PER_S, begin_ns = clock_now_ns(), since_ns = begin_ns;
	uint64_t end_ns = begin_ns + 3 * wait_ns, bytes = 0, seen;
	struct err err = ERR_NONE;

	if (inm->set_up_watched || inm->multifd.channels == 0)
		return;
	inm->set_up_watched = true;
	while (is_in_set_up(inm) && clock_now_ns() < end_ns) {
		/* It may have become main only now, without a byte more: it was a candidate until its deadline. */
		seen = is_main_of(inm, name, begin_ns) ? inm->contest.main.ch->bytes_in : 0;
		if (seen != bytes || seen == 0) {
			if (bytes > 0)
				since_ns = clock_now_ns();
			bytes = seen;
		} else if (clock_now_ns() - since_ns >= wait_ns) {
			err_set(&err, -EPROTO,
			        "a multifd channel was refused, and the source has sent nothing for %llu s since",
			        (unsigned long long)inm->opts.connect_deadline_s);
			story_lost(&inm->story, -EPROTO, &err);
			break;
		}
		if (io_sleep_until(inm->reactor, deadline_after_ns(wait_ns / 8)) < 0)
			break;
	}
	inm->set_up_watched = false;
}
