/*
 * latency.h - how long accesses took, so that quantiles can be told
 */
#ifndef PROGRAMS_STRESS_LATENCY_H
#define PROGRAMS_STRESS_LATENCY_H

#include <stdatomic.h>
#include <stdint.h>

#define LATENCY_OCTAVES 40u
#define LATENCY_STEPS 16u

/* Counted by one, and looked at by others while it counts. */
struct stress_latency {
	_Atomic uint64_t count, sum_ns, max_ns;
	_Atomic uint64_t steps[LATENCY_OCTAVES * LATENCY_STEPS];
};

void latency_add(struct stress_latency *l, uint64_t ns);
void latency_merge(struct stress_latency *sum, const struct stress_latency *l);

/* sum -= before: what came since. The longest is that of the highest step. */
void latency_subtract(struct stress_latency *sum, const struct stress_latency *before);

/** latency_quantile - so long or less took @permille of them, to a sixteenth */
uint64_t latency_quantile(const struct stress_latency *l, unsigned permille);
uint64_t latency_bucket(const struct stress_latency *l, unsigned octave);

#endif
