/*
 * random.h - numbers that look random, the same for the same seed
 */
#ifndef PROGRAMS_STRESS_RANDOM_H
#define PROGRAMS_STRESS_RANDOM_H

#include <stdint.h>

/* splitmix64, Steele and others 2014. */
static inline uint64_t mix64(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static inline uint64_t random_next(uint64_t *state)
{
	return mix64(*state += 0x9e3779b97f4a7c15ull);
}

static inline double random_unit(uint64_t *state)
{
	return (double)(random_next(state) >> 11) * 0x1p-53;
}

#endif
