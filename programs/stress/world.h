/*
 * world.h - the memory of the guest, and the beginning and end of a round
 */
#ifndef PROGRAMS_STRESS_WORLD_H
#define PROGRAMS_STRESS_WORLD_H

struct stress;

int world_make(struct stress *s);
void world_free(struct stress *s);

/** world_begin_round - everything is missing again, and mapped. While nobody touches and nothing is registered. */
int world_begin_round(struct stress *s);

/* After postcopy_end. */
void world_end_round(struct stress *s);

#endif
