#include "programs/stress/latency.h"

#include "base/histogram.h"

#include <stdatomic.h>
#include <stdint.h>

_Static_assert(LATENCY_OCTAVES == HISTOGRAM_OCTAVES, "its steps are those of base/histogram.h");

static void bump(_Atomic uint64_t *n, uint64_t by)
{
	/* There is one writer. */
	atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + by, memory_order_relaxed);
}

void latency_add(struct stress_latency *l, uint64_t ns)
{
	bump(&l->count, 1);
	bump(&l->sum_ns, ns);
	bump(&l->steps[histogram_step(ns, LATENCY_STEPS)], 1);
	if (ns > atomic_load_explicit(&l->max_ns, memory_order_relaxed))
		atomic_store_explicit(&l->max_ns, ns, memory_order_relaxed);
}

void latency_merge(struct stress_latency *sum, const struct stress_latency *l)
{
	uint64_t max_ns = atomic_load_explicit(&l->max_ns, memory_order_relaxed);

	bump(&sum->count, atomic_load_explicit(&l->count, memory_order_relaxed));
	bump(&sum->sum_ns, atomic_load_explicit(&l->sum_ns, memory_order_relaxed));
	for (unsigned i = 0; i < LATENCY_OCTAVES * LATENCY_STEPS; i++)
		bump(&sum->steps[i], atomic_load_explicit(&l->steps[i], memory_order_relaxed));
	if (max_ns > sum->max_ns)
		sum->max_ns = max_ns;
}

void latency_subtract(struct stress_latency *sum, const struct stress_latency *before)
{
	uint64_t count = 0, max_ns = 0;

	for (unsigned i = 0; i < LATENCY_OCTAVES * LATENCY_STEPS; i++) {
		sum->steps[i] -= before->steps[i];
		count += sum->steps[i];
		if (sum->steps[i])
			max_ns = histogram_end(i, LATENCY_STEPS);
	}
	sum->sum_ns -= before->sum_ns;
	/* Not the difference of the counts: they may have been read in the middle of one. */
	sum->count = count;
	sum->max_ns = max_ns < sum->max_ns ? max_ns : sum->max_ns;
}

uint64_t latency_quantile(const struct stress_latency *l, unsigned permille)
{
	uint64_t steps[LATENCY_OCTAVES * LATENCY_STEPS];

	for (unsigned i = 0; i < LATENCY_OCTAVES * LATENCY_STEPS; i++)
		steps[i] = atomic_load_explicit(&l->steps[i], memory_order_relaxed);
	return histogram_quantile(steps, LATENCY_STEPS, l->max_ns, permille);
}

uint64_t latency_bucket(const struct stress_latency *l, unsigned octave)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < LATENCY_STEPS; i++)
		n += l->steps[octave * LATENCY_STEPS + i];
	return n;
}
