#include "base/bitmap.h"

#include <errno.h>
#include <sys/mman.h>

static size_t words_bytes(size_t nbits)
{
	return (nbits / 64 + (nbits % 64 != 0)) * sizeof(uint64_t);
}

int bitmap_init(struct bitmap *bm, size_t nbits)
{
	void *words;

	bm->words = NULL;
	bm->nbits = nbits;
	if (nbits == 0)
		return 0;
	words = mmap(NULL, words_bytes(nbits), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
	             0);
	if (words == MAP_FAILED)
		return -ENOMEM;
	bm->words = words;
	return 0;
}

void bitmap_fini(struct bitmap *bm)
{
	if (bm->words)
		munmap(bm->words, words_bytes(bm->nbits));
	bm->words = NULL;
	bm->nbits = 0;
}

void bitmap_drop(struct bitmap *bm, size_t first, size_t count)
{
	/* Where it fails they stay until bitmap_fini. */
	madvise(bm->words + first / 64, count / 8, MADV_DONTNEED);
}

/* Calls for each word that [first, first + count) touches, with the mask of the bits inside it. */
#define FOR_EACH_MASK(first, count, word, mask) \
	for (size_t bit_ = (first), end_ = (first) + (count), word = bit_ / 64, \
	            mask = ~0ull << (bit_ % 64) & (end_ - word * 64 >= 64 ? ~0ull : ~(~0ull << (end_ % 64))); \
	     bit_ < end_; bit_ = ++word * 64, mask = end_ - bit_ >= 64 ? ~0ull : ~(~0ull << (end_ % 64)))

void bitmap_set_range(struct bitmap *bm, size_t first, size_t count)
{
	FOR_EACH_MASK(first, count, word, mask)
		bm->words[word] |= mask;
}

size_t bitmap_fill(struct bitmap *bm, size_t first, size_t count)
{
	size_t n = 0;

	FOR_EACH_MASK(first, count, word, mask) {
		uint64_t fresh = ~bm->words[word] & mask;

		n += (size_t)__builtin_popcountll(fresh);
		if (fresh)
			bm->words[word] |= fresh;
	}
	return n;
}

size_t bitmap_empty(struct bitmap *bm, size_t first, size_t count)
{
	size_t n = 0;

	FOR_EACH_MASK(first, count, word, mask) {
		uint64_t gone = bm->words[word] & mask;

		n += (size_t)__builtin_popcountll(gone);
		if (gone)
			bm->words[word] &= ~gone;
	}
	return n;
}

/* First bit at or after @from whose value differs from the bits of @flip. */
static size_t find(const struct bitmap *bm, size_t from, size_t end, uint64_t flip)
{
	size_t word = from / 64, last_word = end ? (end - 1) / 64 : 0;
	uint64_t bits;

	if (from >= end)
		return end;
	bits = (bm->words[word] ^ flip) & ~0ull << (from % 64);
	while (!bits) {
		if (++word > last_word)
			return end;
		bits = bm->words[word] ^ flip;
	}
	from = word * 64 + (size_t)__builtin_ctzll(bits);
	return from < end ? from : end;
}

size_t bitmap_next_set(const struct bitmap *bm, size_t from, size_t end)
{
	return find(bm, from, end, 0);
}

size_t bitmap_next_clear(const struct bitmap *bm, size_t from, size_t end)
{
	return find(bm, from, end, ~0ull);
}

size_t bitmap_find_set(const struct bitmap *bm, size_t from)
{
	return find(bm, from, bm->nbits, 0);
}

size_t bitmap_find_clear(const struct bitmap *bm, size_t from)
{
	return find(bm, from, bm->nbits, ~0ull);
}
