/*
 * block.h - guest RAM: blocks, where they are, and what has been received of them
 *
 * A block is a named range of guest memory, as the source lists it. Memory that is a file is seen in up to three
 * places: the guest view, the embedder's own mapping, where vCPUs touch it; the landing view, the library's, where
 * bytes are received; and in postcopy the engine view, where device callbacks touch it. Anonymous memory is there once.
 *
 * Two units of page: a tpage is the wire's (the target's page size, 4096 on x86); an hpage is what backs the block
 * (4096, 2 MiB, ...). Either may be the larger one: ARM boards have tpages of 1 KiB, others some of 64 KiB. The larger
 * of the two is the block's unit: what can be missing, and is given back at once.
 *
 * Invariants:
 * (1) Memory beyond used_bytes is never written.
 * (2) A tpage whose bit in `received` is clear reads as zeros in the landing view, unless block->dirty.
 * (3) A zero page for a tpage by (2) costs nothing: no memory is touched.
 */
#ifndef MEMORY_BLOCK_H
#define MEMORY_BLOCK_H

#include "base/bitmap.h"
#include "base/text.h"
#include "memory/gate.h"
#include "memory/names.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The wire counts a name's bytes in one. */
#define BLOCK_NAME_BYTES_MAX 255

enum block_kind {
	BLOCK_IGNORED,   /* shared with the source (x-ignore-shared): not mapped, and no page of it may come */
	BLOCK_ANONYMOUS, /* given by its address alone; the embedder's mapping is the only one */
	BLOCK_SHMEM,     /* a memory file (memfd, tmpfs): pwritev(2) lands pages there at less cost than a mapping */
	BLOCK_HUGETLB,   /* a file on hugetlbfs, which is written through a mapping only */
	BLOCK_FILE,      /* any other file, written through a mapping; postcopy cannot watch it */
};

struct block {
	enum block_kind kind;
	char name[BLOCK_NAME_BYTES_MAX + 1]; /* NUL-terminated; may hold any byte but NUL: to compare, never to print */
	char label[TEXT_QUOTE_BYTES];        /* the name, to print: in errors, log lines and probes */
	size_t name_bytes;
	size_t index;        /* in ram->blocks */
	uint64_t used_bytes; /* as announced by the source, a multiple of the tpage */
	size_t hpage_bytes;  /* 0 of an ignored one */
	unsigned tpage_shift;
	unsigned unit_shift;
	struct ram *ram;          /* not owned: whose it is */
	uint8_t *landing;         /* used_bytes of the landing view; land.h writes there, and forget.h */
	size_t mapped_bytes;      /* of a mapping of ours; 0: landing is the embedder's address */
	uint8_t *guest;           /* the guest view; NULL when the embedder gave none, which only precopy allows */
	uint8_t *engine;          /* the engine view, of mapped_bytes; NULL before block_map_engine */
	int fd;                   /* owned; what is mapped, -1: no file */
	uint64_t fd_off;          /* of the block in fd */
	bool dirty;               /* may not be zeros where nothing was received */
	bool unplugged;           /* may have parts that are unplugged at the source, which sends nothing for them */
	struct bitmap received;   /* a bit a tpage */
	uint64_t received_tpages; /* bits that are set there */
};

static inline bool block_is_file(const struct block *b)
{
	return b->kind >= BLOCK_SHMEM;
}

static inline size_t block_tpage_bytes(const struct block *b)
{
	return (size_t)1 << b->tpage_shift;
}

static inline size_t block_unit_bytes(const struct block *b)
{
	return (size_t)1 << b->unit_shift;
}

/* Tpages in a unit, as a shift. */
static inline unsigned block_unit_order(const struct block *b)
{
	return b->unit_shift - b->tpage_shift;
}

struct ram {
	struct block **blocks; /* owned; pointers, so that a block's address never changes */
	size_t count, room;
	struct names names;
	unsigned tpage_shift;
	uint64_t total_bytes;             /* ignored blocks, too */
	uint64_t tpages, received_tpages; /* of all blocks that are not ignored */
	struct gate gate;
};

static inline size_t ram_tpage_bytes(const struct ram *ram)
{
	return (size_t)1 << ram->tpage_shift;
}

void ram_init(struct ram *ram, unsigned tpage_shift);

/* Unmaps what is ours. Accepts a half-built one. */
void ram_fini(struct ram *ram);

/* Where a block's memory is: a descriptor, with the guest view of it at addr or NULL; or an address alone. */
struct block_source {
	int fd; /* -1: use addr */
	uint64_t fd_off;
	void *addr;
	bool dirty;
	bool ignored;
	bool unplugged;
};

/**
 * ram_add - a new block, empty
 * @name: name_bytes bytes, at most BLOCK_NAME_BYTES_MAX, without a NUL
 * @used_bytes: > 0, a multiple of the tpage
 * Return: 0 and the block (owned by @ram); -EEXIST for a name there is; -EINVAL when @source does not fit (offset or
 * address not aligned, file too short); -ENOMEM; or the errno of mmap(2).
 */
int ram_add(struct ram *ram, const char *name, size_t name_bytes, uint64_t used_bytes,
            const struct block_source *source, struct block **ret_block);

/** ram_find - by name; NULL if there is none */
struct block *ram_find(const struct ram *ram, const char *name, size_t name_bytes);

/* ---- what has been received ---- */

/* @tpage is an index, not an offset. */
static inline bool block_is_received(const struct block *b, size_t tpage)
{
	return bitmap_test(&b->received, tpage);
}

/*
 * So many tpages count as received, or do not: because they have landed (land.h), are given back (forget.h), or will
 * not come. Of a range, words that are so already are not written to. Return: how many have changed.
 */
static inline size_t block_mark_received(struct block *b, size_t tpage, size_t count)
{
	size_t n;

	if (count == 1) {
		/* Most of them; in line, because each page comes by here. */
		n = !bitmap_test(&b->received, tpage);
		bitmap_set(&b->received, tpage);
	} else {
		n = bitmap_fill(&b->received, tpage, count);
	}
	b->received_tpages += n;
	b->ram->received_tpages += n;
	return n;
}

static inline size_t block_unmark_received(struct block *b, size_t tpage, size_t count)
{
	size_t n = bitmap_empty(&b->received, tpage, count);

	b->received_tpages -= n;
	b->ram->received_tpages -= n;
	return n;
}

/* For going through all of a block: those of the 64 tpages of word @word that are set in @bits. */
static inline void block_mark_word(struct block *b, size_t word, uint64_t bits)
{
	uint64_t fresh = bits & ~b->received.words[word], n;

	if (!fresh)
		return;
	b->received.words[word] |= fresh;
	n = (uint64_t)__builtin_popcountll(fresh);
	b->received_tpages += n;
	b->ram->received_tpages += n;
}

/* Not received. */
static inline uint64_t ram_missing_tpages(const struct ram *ram)
{
	return ram->tpages - ram->received_tpages;
}

/* ---- */

/** block_moved - the embedder has moved the whole guest view to @to */
void block_moved(struct block *b, uint8_t *to);

/** block_map_engine - make the engine view, unpopulated; not for anonymous memory. Return: 0 or mmap(2)'s errno. */
int block_map_engine(struct block *b);

#endif
