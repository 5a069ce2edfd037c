/*
 * look.h - is it worth while to look again for some microseconds, before sleeping?
 *
 * Waking a sleeper costs tens of microseconds where processors halt when idle, so who expects something soon looks
 * again for a while. Each place where that is done has one of these, which remembers whether it has found anything
 * lately. After LOOK_MISSES looks in a row that found nothing only one in LOOK_TRIES is tried: what looking costs is
 * bounded by how often there is reason to expect something, and is nothing where nothing happens.
 */
#ifndef COROUTINE_LOOK_H
#define COROUTINE_LOOK_H

#include <stdbool.h>

#define LOOK_MISSES 4u
#define LOOK_TRIES 32u

struct look {
	unsigned misses; /* in a row; those that were left out count, too */
};

/** look_worth - there is reason to expect something: look for it? If so, look_done tells what came of it. */
static inline bool look_worth(struct look *l)
{
	return l->misses < LOOK_MISSES || ++l->misses % LOOK_TRIES == 0;
}

static inline void look_done(struct look *l, bool found)
{
	l->misses = found ? 0 : l->misses + (l->misses < LOOK_MISSES);
}

#endif
