/*
 * histogram.h - how often which value came, so that quantiles can be told
 *
 * Each octave, from 2^i up to 2^(i+1), has @parts steps of equal width, so what is told is right to one of @parts. The
 * counts are an array of the caller's, HISTOGRAM_OCTAVES * @parts long. 0 counts as 1, and what is beyond the last
 * octave in the last step.
 */
#ifndef BASE_HISTOGRAM_H
#define BASE_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_OCTAVES 40u

/** histogram_step - the index of the count that @value belongs to */
static inline unsigned histogram_step(uint64_t value, unsigned parts)
{
	unsigned octave = 63u - (unsigned)__builtin_clzll(value | 1);
	uint64_t above = value > 0 ? value - (1ull << octave) : 0;

	if (octave >= HISTOGRAM_OCTAVES)
		return HISTOGRAM_OCTAVES * parts - 1;
	return octave * parts + (unsigned)(above * parts >> octave);
}

/** histogram_end - where a step ends, cut to a whole number */
uint64_t histogram_end(unsigned step, unsigned parts);

/**
 * histogram_quantile - so much or less were @permille of the values
 * @max: the highest value. The answer is the end of a step, and not above it.
 * Return: 0 when nothing was counted.
 */
uint64_t histogram_quantile(const uint64_t *counts, unsigned parts, uint64_t max, unsigned permille);

#endif
