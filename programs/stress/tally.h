/*
 * tally.h - the numbers of a run, added up
 */
#ifndef PROGRAMS_STRESS_TALLY_H
#define PROGRAMS_STRESS_TALLY_H

struct stress;

/* Of the round that has ended. */
void tally_round(struct stress *s);

/* Of the threads, and the time. */
void tally_threads(struct stress *s);

/** tally_unfinished - what there is in the middle of a round, for a run that cannot end in order */
void tally_unfinished(struct stress *s);

/** tally_cpu - CPU time until now: of the engine's thread, which calls it, and of all */
void tally_cpu(struct stress *s, double *ret_engine_ms, double *ret_all_ms);

#endif
