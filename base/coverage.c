#include "base/coverage.h"

#include <stdint.h>

static size_t words_of(size_t nbits)
{
	return nbits / 64 + (nbits % 64 != 0);
}

int coverage_init(struct coverage *c, size_t nbits)
{
	size_t n = nbits;
	int r = 0;

	*c = (struct coverage){ .nbits = nbits };
	while (r == 0 && n > 0) {
		r = bitmap_init(&c->level[c->levels], words_of(n) * 64);
		if (r == 0)
			c->levels++;
		/* By (2). */
		if (r == 0 && n % 64)
			bitmap_set_range(&c->level[c->levels - 1], n, 64 - n % 64);
		n = n > 64 ? words_of(n) : 0;
	}
	if (r < 0)
		coverage_fini(c);
	return r;
}

void coverage_fini(struct coverage *c)
{
	for (unsigned k = 0; k < c->levels; k++)
		bitmap_fini(&c->level[k]);
	*c = (struct coverage){ 0 };
}

/* The first clear bit of the word at @from, not before it. Return: 64 where the word has none. */
static unsigned clear_in_word(const struct bitmap *bm, size_t from)
{
	uint64_t clear = ~bm->words[from / 64] & (~0ull << (from % 64));

	return clear ? (unsigned)__builtin_ctzll(clear) : 64;
}

size_t coverage_find_clear(const struct coverage *c, size_t from)
{
	unsigned k = 0, bit;
	size_t at = from;

	if (from >= c->nbits)
		return c->nbits;
	/* Up, as long as there is none in the rest of this word; then down to it. */
	for (;;) {
		if (at >= c->level[k].nbits)
			return c->nbits;
		bit = clear_in_word(&c->level[k], at);
		if (bit < 64)
			break;
		if (k + 1 == c->levels)
			return c->nbits;
		at = at / 64 + 1;
		k++;
	}
	at = at / 64 * 64 + bit;
	while (k > 0) {
		k--;
		at *= 64;
		at += clear_in_word(&c->level[k], at);
	}
	return at;
}

size_t coverage_clear_end(const struct coverage *c, size_t from, size_t end)
{
	return bitmap_next_set(&c->level[0], from, end);
}

void coverage_set(struct coverage *c, size_t first, size_t count)
{
	size_t end = first + count;

	c->set += count;
	for (unsigned k = 0; k < c->levels && first < end; k++) {
		size_t first_word = first / 64, end_word = (end - 1) / 64 + 1;

		bitmap_set_range(&c->level[k], first, end - first);
		/* Words inside are full; those at the edges may be. */
		if (c->level[k].words[first_word] != ~0ull)
			first_word++;
		if (end_word > first_word && c->level[k].words[end_word - 1] != ~0ull)
			end_word--;
		first = first_word;
		end = end_word;
	}
}
