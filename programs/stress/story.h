/*
 * story.h - what happened to the pages of a neighbourhood, last: for people who look for what went wrong
 */
#ifndef PROGRAMS_STRESS_STORY_H
#define PROGRAMS_STRESS_STORY_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* Written without a lock: an entry may be torn. */
#define STORY_ENTRIES 32u
#define STORY_UNITS 16u

struct story_entry {
	uint64_t at_ns;
	uint32_t page, count;
	int32_t value;
	uint16_t round;
	uint16_t what; /* enum story */
};

struct story_ring {
	_Atomic uint32_t next;
	struct story_entry entries[STORY_ENTRIES];
};

enum story {
	STORY_ASKED,
	STORY_ANSWERS,
	STORY_ANSWERED,
	STORY_PUSHES,
	STORY_PUSHED,
	STORY_AGAIN,
	STORY_AGAIN_DONE,
	STORY_STALE,
	STORY_STALE_DONE,
	STORY_REMOVES,
	STORY_REMOVED,
	STORY_UNPLUGGED,
	STORY_MOVED,
	STORY_FORKED,
	STORY_RIVAL,
	STORY_WAITED,
	STORY_MARKED,
	STORY_OWN_WAITED,
	STORY_COUNT,
};

struct sblock;
struct stress;

/* In the story of the page's neighbourhood. */
void story_add(struct stress *s, struct sblock *sb, uint32_t page, uint32_t count, enum story what, int32_t value);

/** story_tell - the neighbourhood's last events, a line each. @ret_text is cut where it ends. */
void story_tell(const struct stress *s, const struct sblock *sb, uint32_t page, char *ret_text, size_t size);

#endif
