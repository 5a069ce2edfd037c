/*
 * own_faults.h - faults of the engine's own thread: what a device callback does that touches memory which has not
 * arrived
 */
#ifndef PROGRAMS_STRESS_OWN_FAULTS_H
#define PROGRAMS_STRESS_OWN_FAULTS_H

struct group;
struct stress;

/** own_start - coroutines that touch the engine view while the touchers run. Return: 0 or the errno. */
int own_start(struct stress *s, struct group *g);

#endif
