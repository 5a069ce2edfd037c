/* chance.h - numbers that depend on nothing but a seed: what failed can be played again */
#ifndef TESTS_SUPPORT_CHANCE_H
#define TESTS_SUPPORT_CHANCE_H

#include <stddef.h>
#include <stdint.h>

/* The next one. */
uint64_t chance_draw(uint64_t *state);
/* Below @limit; 0 where that is 0. */
size_t chance_below(uint64_t *state, size_t limit);

#endif
