#include "base/histogram.h"

uint64_t histogram_end(unsigned step, unsigned parts)
{
	uint64_t begin = 1ull << (step / parts);

	return begin + begin * (step % parts + 1) / parts;
}

uint64_t histogram_quantile(const uint64_t *counts, unsigned parts, uint64_t max, unsigned permille)
{
	uint64_t total = 0, due, sum = 0, end;

	for (unsigned i = 0; i < HISTOGRAM_OCTAVES * parts; i++)
		total += counts[i];
	due = (total * permille + 999) / 1000;
	for (unsigned i = 0; total > 0 && i < HISTOGRAM_OCTAVES * parts; i++) {
		sum += counts[i];
		if (sum >= due) {
			end = histogram_end(i, parts);
			return end < max ? end : max;
		}
	}
	return 0;
}
