#include "coroutine/turn.h"

#include "base/clock.h"

static uint64_t share_ns(const struct sched *s)
{
	uint64_t ns = TURN_ROUND_NS / (s->round_switches ? s->round_switches : 1);

	if (ns < TURN_SHARE_NS_MIN)
		return TURN_SHARE_NS_MIN;
	return ns < TURN_SHARE_NS_MAX ? ns : TURN_SHARE_NS_MAX;
}

bool turn_look(struct sched *s)
{
	uint64_t now_ns = clock_now_ns();

	s->turn_work = 0;
	/* The first look since this coroutine went on. What it did before was less than TURN_LOOK, or one step. */
	if (s->turn_switches != s->switches) {
		s->turn_switches = s->switches;
		s->turn_end_ns = now_ns + share_ns(s);
	}
	return now_ns >= s->turn_end_ns;
}
