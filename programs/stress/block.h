/*
 * block.h - one block of the guest: its memory, and what the others of the run note about its pages
 */
#ifndef PROGRAMS_STRESS_BLOCK_H
#define PROGRAMS_STRESS_BLOCK_H

#include "programs/stress/kinds.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TPAGE_BYTES 4096u
#define TPAGE_SHIFT 12u
#define BLOCKS_MAX 15u /* each kind of memory, and what is unplugged and moved of it */
#define SLOTS 8u       /* parts of a block that are unplugged one by one */

enum stress_role { ROLE_STEADY, ROLE_UNPLUG, ROLE_MOVING };

/* A part of the guest view that may go away: a thread that is in there keeps it. */
struct slot {
	_Atomic int users; /* SLOT_CLOSED is added while nobody may enter */
	bool gone;         /* until the next round; the events' thread */
};

#define SLOT_CLOSED (1 << 24)

struct block;
struct story_ring;

/* One block of the guest. The page is a tpage's index all over. */
struct sblock {
	char name[24];
	enum stress_memory memory;
	enum stress_role role;
	unsigned index;
	uint32_t pages;
	size_t hpage_bytes;
	unsigned unit_pages; /* tpages of an hpage */
	int fd;              /* owned; -1: anonymous */
	_Atomic(uint8_t *) guest;
	struct block *b; /* the library's */
	struct slot slots[SLOTS];
	unsigned slot_count;                            /* 0: nobody ever goes away from here */
	_Atomic uint32_t *removes_begun, *removes_done; /* owned; of each page, in this round */
	_Atomic uint64_t *due_ns;                       /* owned; of each unit: when it is answered; 0 not asked for */
	_Atomic uint32_t *pending;                      /* owned; of each unit: answers that are to be placed */
	_Atomic uint64_t *change_ns; /* owned; of each unit: when the engine last did something for it */
	struct story_ring *stories;  /* owned; a neighbourhood each */
	uint64_t gpa;                /* under KVM */
};

static inline bool sblock_is_anonymous(const struct sblock *sb)
{
	return sb->fd < 0;
}

static inline struct slot *sblock_slot(struct sblock *sb, uint32_t page)
{
	uint64_t unit = page / sb->unit_pages, units = sb->pages / sb->unit_pages;

	return sb->slot_count ? &sb->slots[unit * sb->slot_count / units] : NULL;
}

/* Where slot @i begins, in bytes of the block; that of slot_count is the end. */
static inline uint64_t slot_begin(const struct sblock *sb, unsigned i)
{
	uint64_t units = sb->pages / sb->unit_pages;

	return (units * i + sb->slot_count - 1) / sb->slot_count * sb->hpage_bytes;
}

/* What check_page takes as @done: before the access. */
static inline uint32_t removals_done(const struct sblock *sb, uint32_t page)
{
	return atomic_load_explicit(&sb->removes_done[page], memory_order_acquire);
}

/* And as @begun: after it. */
static inline uint32_t removals_begun(const struct sblock *sb, uint32_t page)
{
	/* No load: nothing keeps what was read before one from being read after it. */
	return atomic_fetch_add_explicit(&sb->removes_begun[page], 0, memory_order_acq_rel);
}

#endif
