/*
 * phases.h - a round goes in phases: everybody does the same one, and the next begins when all are through
 */
#ifndef PROGRAMS_STRESS_PHASES_H
#define PROGRAMS_STRESS_PHASES_H

#include "coroutine/co.h"

enum stress_phase { PHASE_REST, PHASE_TOUCH, PHASE_WALK, PHASE_END };

struct stress;

/* A thread waits for the phase after @seen, and says when it is through with it. Return: the phase. */
enum stress_phase phase_next(struct stress *s, unsigned *seen);
void phase_done(struct stress *s);

void phase_begin(struct stress *s, enum stress_phase phase);

/** phase_await - until every thread is through. Return: 0 or the errno. */
may_park int phase_await(struct stress *s);

/** phase_give_up - pages will not come any more, by a fault of ours or the library's: nobody is to wait for them */
void phase_give_up(struct stress *s);

#endif
