/*
 * progress.h - what a migration does at the moment, for a person who waits
 */
#ifndef PROGRAMS_CLI_PROGRESS_H
#define PROGRAMS_CLI_PROGRESS_H

#include "inmigrate.h"

#include <stdbool.h>
#include <stdint.h>

enum progress_mode { PROGRESS_AUTO, PROGRESS_ALWAYS, PROGRESS_NEVER };

struct progress {
	bool on;
	bool live; /* a terminal: one line that changes; else a line a second */
	bool line_open;
	uint64_t shown_ns;
	uint64_t shown_bytes;
	double rate; /* bytes a second, smoothed */
};

void progress_init(struct progress *p, enum progress_mode mode);

/* How long until the next look is worth it. */
uint64_t progress_interval_ns(const struct progress *p);
void progress_show(struct progress *p, const struct inm *inm);

/* Is it time for another look? Then progress_say says it, in place of what was said before on a terminal. */
bool progress_due(const struct progress *p);
void progress_say(struct progress *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Ends the live line as it is. */
void progress_stop(struct progress *p);

/* Ends the live line, after a last look. */
void progress_end(struct progress *p, const struct inm *inm);

#endif
