#include "tests/support/chance.h"

/* splitmix64 */
uint64_t chance_draw(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

size_t chance_below(uint64_t *state, size_t limit)
{
	return limit ? chance_draw(state) % limit : 0;
}
