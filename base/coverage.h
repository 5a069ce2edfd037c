/*
 * coverage.h - a bitmap that only fills up, and says at once where it is not full
 *
 * For ranges that a peer names. However often one is named again, finding that nothing of it is new costs a handful
 * of words, and not a walk over the range. Above the bits lies a level with a bit for each word of them that is full,
 * above that one with a bit for each full word of those, and so on.
 *
 * Invariants:
 * (1) A bit of level k + 1 is set exactly when the word of level k that it stands for has all its bits set.
 * (2) Bits after the last one, in the last word of a level, are set.
 */
#ifndef BASE_COVERAGE_H
#define BASE_COVERAGE_H

#include "base/bitmap.h"

/* 64^11 is more than a size_t counts. */
#define COVERAGE_LEVELS_MAX 11

struct coverage {
	struct bitmap level[COVERAGE_LEVELS_MAX]; /* [0]: the bits themselves */
	unsigned levels;
	size_t nbits;
	size_t set; /* of them */
};

/** coverage_init - all clear. Return: 0 or -ENOMEM (then there is nothing to free). */
int coverage_init(struct coverage *c, size_t nbits);
void coverage_fini(struct coverage *c);

static inline bool coverage_test(const struct coverage *c, size_t i)
{
	return bitmap_test(&c->level[0], i);
}

/** coverage_find_clear - first clear bit at or after @from; nbits when there is none. In a few steps. */
size_t coverage_find_clear(const struct coverage *c, size_t from);

/** coverage_clear_end - where the run of clear bits that begins at @from ends, at @end at the latest. Linear in it. */
size_t coverage_clear_end(const struct coverage *c, size_t from, size_t end);

/** coverage_set - bits that are clear, all of them. Linear in @count. */
void coverage_set(struct coverage *c, size_t first, size_t count);

#endif
