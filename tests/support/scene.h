/*
 * scene.h - the frame of a scenario test: a stream, an embedder that fits it, and a census around both
 *
 *   struct scene s;
 *   scene_begin(&s, &(struct honest_opts){ .rounds = 3 });
 *   ck_assert_int_eq(scene_land(&s, &(struct land_opts){ 0 }), 0);
 *   scene_end(&s);
 */
#ifndef TESTS_SUPPORT_SCENE_H
#define TESTS_SUPPORT_SCENE_H

#include "tests/support/census.h"
#include "tests/support/embedder.h"

struct scene {
	struct census before;
	struct wire wire;
	struct honest_image image;
	struct embedder e;
	struct source_report report;
};

/* Takes the census and builds; @opts NULL: no stream, no blocks. One memfd block for each of the stream. */
void scene_begin(struct scene *s, const struct honest_opts *opts);
/* land() with what is there. */
int scene_land(struct scene *s, const struct land_opts *o);
/* A Check failure unless it has landed, with memory as the image says and devices as sent. */
void scene_check_landed(struct scene *s);
/* Checks the canaries, frees everything, and checks that nothing is left. */
void scene_end(struct scene *s);

/* A number from the environment, or @fallback. */
unsigned long scene_env(const char *name, unsigned long fallback);

#endif
