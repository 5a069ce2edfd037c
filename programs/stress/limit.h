/*
 * limit.h - what the kernel can do at most: threads that touch page after page, and a loop that does nothing but answer
 */
#ifndef PROGRAMS_STRESS_LIMIT_H
#define PROGRAMS_STRESS_LIMIT_H

#include "programs/stress/kinds.h"

struct stress_limit;
struct stress_options;

/**
 * limit_measure - faults a second of the kernel alone: a loop that reads faults and resolves them, as many touchers
 * Return: 0, or the errno of what this kernel does not do
 */
int limit_measure(const struct stress_options *opts, enum stress_memory memory, enum stress_place place,
                  struct stress_limit *ret);

#endif
