#include "programs/cli/human.h"

#include <inttypes.h>

const char *human_bytes(char buf[static 32], double bytes)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	size_t u = 0;

	while (bytes >= 1024 && u < sizeof(units) / sizeof(units[0]) - 1) {
		bytes /= 1024;
		u++;
	}
	snprintf(buf, 32, u > 0 && bytes < 100 ? "%.1f %s" : "%.0f %s", bytes, units[u]);
	return buf;
}

const char *human_time(char buf[static 32], double ns)
{
	static const char *const units[] = { "ns", "us", "ms", "s" };
	size_t u = 0;

	while (ns >= 1000 && u < sizeof(units) / sizeof(units[0]) - 1) {
		ns /= 1000;
		u++;
	}
	snprintf(buf, 32, u > 0 && ns < 100 ? "%.1f %s" : "%.0f %s", ns, units[u]);
	return buf;
}

#define BAR_MAX 40

void human_histogram(FILE *out, const uint64_t *counts, size_t buckets)
{
	size_t first = 0, last = buckets, width;
	uint64_t most = 0;
	char from[32];

	while (last > 0 && !counts[last - 1])
		last--;
	while (first < last && !counts[first])
		first++;
	for (size_t i = first; i < last; i++)
		most = counts[i] > most ? counts[i] : most;
	for (size_t i = first; i < last; i++) {
		width = (size_t)((counts[i] * BAR_MAX + most - 1) / most);
		fprintf(out, "    from %8s %-*.*s %" PRIu64 "\n", human_time(from, (double)(1ull << i)), BAR_MAX,
		        (int)width, "########################################", counts[i]);
	}
}
