/*
 * content.h - what every byte of the guest must be
 */
#ifndef PROGRAMS_STRESS_CONTENT_H
#define PROGRAMS_STRESS_CONTENT_H

#include "programs/stress/block.h"
#include "programs/stress/kinds.h"
#include "programs/stress/random.h"
#include "programs/stress/stress.h"

#include <stdint.h>

#define CONTENT_STEP 0x9e3779b97f4a7c15ull

/* Word i of a page is base + i * CONTENT_STEP: cheap to make, and to recognise when it is found elsewhere. */
static inline uint64_t content_base(const struct stress *s, const struct sblock *sb, uint32_t page, uint32_t version)
{
	return mix64(mix64(s->opts.seed ^ (uint64_t)sb->index << 56 ^ (uint64_t)version << 32) ^ page);
}

/** content_place - how the page comes in this round; PLACE_ZERO pages hold zeros */
enum stress_place content_place(const struct stress *s, const struct sblock *sb, uint32_t page);

/** content_make - what the source sends of @version */
void content_make(const struct stress *s, const struct sblock *sb, uint32_t page, uint32_t version, void *ret_page);

#endif
