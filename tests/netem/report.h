/*
 * report.h - what became of the packets, for people and for programs
 */
#ifndef TESTS_NETEM_REPORT_H
#define TESTS_NETEM_REPORT_H

#include "tests/netem/path.h"

#include <stdio.h>

/* What the paths cannot know; index 0 is to-destination. */
struct report {
	uint64_t seed, now_ns;
	uint64_t missed[2];  /* dropped by the TUN device before we read them: loss that nobody asked for */
	uint64_t refused[2]; /* by the receiving side at once: a bit of the header was flipped */
};

/** report_text - a line for each direction, and the seed with which it can be had again */
void report_text(FILE *f, const struct path paths[static 2], const struct report *report);

/** report_json - one object in one line, with a newline */
void report_json(FILE *f, const struct path paths[static 2], const struct report *report);

#endif
