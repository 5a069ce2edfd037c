#include "programs/stress/content.h"

#include "programs/stress/block.h"
#include "programs/stress/kinds.h"
#include "programs/stress/random.h"
#include "programs/stress/stress.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum stress_place content_place(const struct stress *s, const struct sblock *sb, uint32_t page)
{
	unsigned places = s->opts.places, count = 0;
	enum stress_place fits[PLACE_COUNT];
	uint64_t h = mix64(s->opts.seed ^ (uint64_t)s->round << 40 ^ (uint64_t)sb->index << 32 ^ page);

	for (unsigned p = 0; p < PLACE_COUNT; p++) {
		bool anonymous_only = p == PLACE_COPY || p == PLACE_MOVE;

		if (p != PLACE_ZERO && places & 1u << p && anonymous_only == sblock_is_anonymous(sb))
			fits[count++] = (enum stress_place)p;
	}
	/* A guest has pages of zeros here and there, also where nobody has asked for them. */
	if (!places || (places & 1u << PLACE_ZERO && count))
		if (h >> 61 == 0)
			return PLACE_ZERO;
	if (count)
		return fits[(h >> 8) % count];
	if (places)
		return PLACE_ZERO;
	return sblock_is_anonymous(sb) ? PLACE_COPY : PLACE_CONTINUE;
}

void content_make(const struct stress *s, const struct sblock *sb, uint32_t page, uint32_t version, void *ret_page)
{
	uint64_t base = content_base(s, sb, page, version), *words = ret_page;

	if (version == s->round && content_place(s, sb, page) == PLACE_ZERO) {
		memset(ret_page, 0, TPAGE_BYTES);
		return;
	}
	for (size_t i = 0; i < TPAGE_BYTES / 8; i++)
		words[i] = base + i * CONTENT_STEP;
}
