/*
 * bitmap.h - a large bitmap whose untouched parts cost no memory
 *
 * The words live in a private anonymous mapping, so a bitmap over a terabyte of guest pages costs what the guest
 * touches. Index i is bit i % 64 of word i / 64.
 */
#ifndef BASE_BITMAP_H
#define BASE_BITMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bitmap {
	uint64_t *words; /* owned; NULL when nbits is 0 or after bitmap_fini */
	size_t nbits;
};

/** bitmap_init - all clear. Return: 0 or -ENOMEM. */
int bitmap_init(struct bitmap *bm, size_t nbits);
void bitmap_fini(struct bitmap *bm);

/**
 * bitmap_drop - these bits are not needed any more: their memory goes back, and they read as clear
 * @first, @count: multiples of what a page of memory holds, 32768 where it has 4096 bytes
 */
void bitmap_drop(struct bitmap *bm, size_t first, size_t count);

static inline bool bitmap_test(const struct bitmap *bm, size_t i)
{
	return bm->words[i / 64] >> (i % 64) & 1;
}

static inline void bitmap_set(struct bitmap *bm, size_t i)
{
	bm->words[i / 64] |= 1ull << (i % 64);
}

static inline void bitmap_clear(struct bitmap *bm, size_t i)
{
	bm->words[i / 64] &= ~(1ull << (i % 64));
}

void bitmap_set_range(struct bitmap *bm, size_t first, size_t count);

/** bitmap_find_set, bitmap_find_clear - first such bit at or after @from; nbits when there is none */
size_t bitmap_find_set(const struct bitmap *bm, size_t from);
size_t bitmap_find_clear(const struct bitmap *bm, size_t from);

/** bitmap_next_set, bitmap_next_clear - the same, looking no further than @end (<= nbits), which stands for none */
size_t bitmap_next_set(const struct bitmap *bm, size_t from, size_t end);
size_t bitmap_next_clear(const struct bitmap *bm, size_t from, size_t end);

/**
 * bitmap_fill, bitmap_empty - set, or clear, all of a range; words that are so already are not written to, and so cost
 * no memory. Return: how many bits have changed.
 */
size_t bitmap_fill(struct bitmap *bm, size_t first, size_t count);
size_t bitmap_empty(struct bitmap *bm, size_t first, size_t count);

#endif
