/*
 * multifd_eras.h - how multifd sources of different releases differ, and guests to send in each of their ways
 *
 * Source: doc/wire/multifd.md 13
 */
#ifndef TESTS_SUPPORT_MULTIFD_ERAS_H
#define TESTS_SUPPORT_MULTIFD_ERAS_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/support/wire.h"

struct multifd_era {
	const char *name;
	bool per_section, old, zero_in_main; /* as in struct multifd_opts */
};

#define MULTIFD_ERAS 6u
extern const struct multifd_era multifd_eras[MULTIFD_ERAS];

/* Without compression, zlib, zstd. */
#define MULTIFD_METHODS 3u
extern const uint32_t multifd_methods[MULTIFD_METHODS];

/* More than a packet's worth in the first block, so that packets are full, and several blocks in one interval. */
#define MULTIFD_BIG_BLOCKS 3u
extern const struct wire_block multifd_big_blocks[MULTIFD_BIG_BLOCKS];

struct multifd_opts multifd_opts_of(const struct multifd_era *era, unsigned channels, uint32_t method);

#endif
