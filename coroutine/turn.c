#include "coroutine/turn.h"

#include "base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static uint64_t share_ns(const struct sched *s)
{
	uint64_t ns = TURN_ROUND_NS / (s->round_switches ? s->round_switches : 1);

	if (ns < TURN_SHARE_NS_MIN)
		return TURN_SHARE_NS_MIN;
	return ns < TURN_SHARE_NS_MAX ? ns : TURN_SHARE_NS_MAX;
}

/* The first look in a round says when it ends. */
static void note_round(struct sched *s, uint64_t now_ns)
{
	if (s->turn_round == s->rounds)
		return;
	s->turn_round = s->rounds;
	s->turn_round_end_ns = now_ns + TURN_ROUND_NS;
}

static void note_turn(struct sched *s, uint64_t now_ns)
{
	s->turn_switches = s->switches;
	s->turn_end_ns = now_ns + share_ns(s);
}

void turn_begin(struct sched *s)
{
	uint64_t now_ns = clock_now_ns();

	s->turn_work = 0;
	note_round(s, now_ns);
	note_turn(s, now_ns);
}

bool turn_look(struct sched *s)
{
	uint64_t now_ns = clock_now_ns();

	s->turn_work = 0;
	note_round(s, now_ns);
	/* The first look since this coroutine went on. What it did before was less than TURN_LOOK, or one step. */
	if (s->turn_switches != s->switches)
		note_turn(s, now_ns);
	return now_ns >= s->turn_end_ns || now_ns >= s->turn_round_end_ns;
}

int turn_spend_pending(struct sched *s, size_t work)
{
	if (!s)
		return 0;
	turn_spend_shielded(s, work);
	return s->current->cancel_pending && !s->current->shielded ? -ECANCELED : 0;
}

/* Given back at a time, and what of it counts as work. */
#define FREE_BYTES ((size_t)2 << 20)

void turn_free(struct sched *s, void *p, size_t bytes)
{
	uintptr_t mask = (uintptr_t)sysconf(_SC_PAGESIZE) - 1, at = ((uintptr_t)p + mask) & ~mask,
	          end = (uintptr_t)p + bytes;

	while (s && p && bytes > FREE_BYTES && end - at > FREE_BYTES) {
		madvise((void *)at, FREE_BYTES, MADV_DONTNEED); /* NOLINT: an address of ours, rounded */
		at += FREE_BYTES;
		turn_spend_shielded(s, TURN_LOOK);
	}
	free(p);
}
