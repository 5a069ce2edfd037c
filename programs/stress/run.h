/*
 * run.h - one run: its threads and coroutines are made, and one of these conducts the rounds
 */
#ifndef PROGRAMS_STRESS_RUN_H
#define PROGRAMS_STRESS_RUN_H

struct stress_options;
struct stress_result;

/** stress_run - one run. @ret: with the limits filled in. Return: 0, what was found is in @ret; why there was none */
int stress_run(const struct stress_options *opts, struct stress_result *ret);

#endif
