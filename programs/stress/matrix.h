/*
 * matrix.h - `inmigrate stress --matrix`
 *
 * Every kind of memory, placed in every way, touched in every pattern, under every sort of event: a short run each, in
 * a process of its own, so that a run that cannot end does not end the others. What is not a dimension (delay,
 * duplicates, own faults, prefetch) changes from case to case.
 */
#ifndef PROGRAMS_STRESS_MATRIX_H
#define PROGRAMS_STRESS_MATRIX_H

struct stress_options;

/** stress_matrix - all combinations this kernel has, in @base->duration_ns altogether. Return: the exit status. */
int stress_matrix(const struct stress_options *base);

#endif
