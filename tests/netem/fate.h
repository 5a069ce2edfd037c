/*
 * fate.h - what is to become of a packet: chance only, no clocks and no queues
 *
 * Invariants:
 * (1) A fate depends on the seed, the direction, how many packets went before, and the settings; never on the time, the
 *     other direction or the bytes. The same packets with the same seed meet the same fates.
 * (2) Each packet draws the same numbers in the same order, whatever is switched on: a setting that is changed half way
 *     leaves the other decisions as they would have been.
 */
#ifndef TESTS_NETEM_FATE_H
#define TESTS_NETEM_FATE_H

#include "tests/netem/settings.h"

#include <stdbool.h>
#include <stdint.h>

struct dice {
	uint64_t seed;  /* of this direction */
	uint64_t count; /* packets that have drawn */
	bool bad;       /* the state of the Gilbert-Elliott chain */
};

struct fate {
	bool lost, duplicated, corrupted, reordered;
	uint64_t flip; /* which bit; to be taken modulo the bits of the packet */
	double jitter; /* -1 to 1 */
};

/** dice_init - @direction: 0 or 1, so that both directions of a seed differ */
void dice_init(struct dice *d, uint64_t seed, unsigned int direction);

/** fate_draw - for the next packet. Several things may happen to one; of a lost one the rest is still drawn, by (2). */
void fate_draw(struct dice *d, const struct settings *s, struct fate *ret_fate);

#endif
