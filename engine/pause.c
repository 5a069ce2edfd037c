#include "engine/pause.h"

#include "base/clock.h"

void pause_init(struct pause *pause, struct sched *s)
{
	event_init(&pause->waiting, s, "a pause");
}

bool pause_begin(struct pause *pause)
{
	bool again = pause->on;

	if (!again)
		pause->began_ns = clock_now_ns();
	pause->on = true;
	pause->count++;
	return again;
}

void pause_end(struct pause *pause)
{
	pause->on = false;
	pause->sum_ns += clock_now_ns() - pause->began_ns;
	pause->recovered++;
}

uint64_t pause_total_ns(const struct pause *pause, uint64_t now_ns)
{
	return pause->sum_ns + (pause->on ? now_ns - pause->began_ns : 0);
}
