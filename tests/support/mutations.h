/*
 * mutations.h - many runs with random damage: each ends, in time, in bounded memory, with a story, and leaves nothing
 *
 * They go on in a child, so that a crash does not take the number of its run along. That number is the seed of the run.
 * MUTATIONS is the number of runs, MUTATION_FIRST the first one; MUTATION_SEED plays one of them again.
 */
#ifndef TESTS_SUPPORT_MUTATIONS_H
#define TESTS_SUPPORT_MUTATIONS_H

#include <stdbool.h>
#include <stdint.h>

struct mutations {
	unsigned long count;         /* of runs, where the environment does not say it */
	unsigned landed_percent_max; /* more than this, and less than one, would be damage to the test */
	unsigned look_every;         /* runs */

	void (*begin)(void); /* in the child */
	/* One run. Return: what went wrong, or NULL. */
	const char *(*run)(uint64_t seed, bool *ret_landed);
	/* Has it left anything, or written where it must not? Return: as run. */
	const char *(*look)(void);
	const char *(*story)(void); /* what there is to say of the last run */
};

/* All of it; Check failures where something went wrong. */
void mutations_play(const struct mutations *m);

#endif
