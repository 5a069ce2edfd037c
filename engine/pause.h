/*
 * pause.h - from a loss of the connection to the answer to RESUME
 *
 * A recovery that fails is a part of the same pause. What a pause does is told in recovery.h.
 */
#ifndef ENGINE_PAUSE_H
#define ENGINE_PAUSE_H

#include "coroutine/wait.h"

#include <stdbool.h>
#include <stdint.h>

struct pause {
	bool on;
	struct event waiting;      /* set while we wait for a source; connections that are early wait for it */
	uint32_t count, recovered; /* pauses, failed recoveries included, and those that ended well */
	uint64_t began_ns;         /* the last one */
	uint64_t sum_ns;           /* of those that are over */
};

void pause_init(struct pause *pause, struct sched *s);

/** pause_begin - Return: was it on? Then a recovery has failed. */
bool pause_begin(struct pause *pause);

/** pause_end - the source is back, and has been told so */
void pause_end(struct pause *pause);

/** pause_total_ns - all pauses, up to @now_ns */
uint64_t pause_total_ns(const struct pause *pause, uint64_t now_ns);

#endif
