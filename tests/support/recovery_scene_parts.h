/*
 * recovery_scene_parts.h - shared by the files of a recovery scene, and by no others
 *
 * recovery_scene_loss.c breaks the connections, recovery_scene_dialogue.c makes new ones and plays the dialogue up to
 * RESUME_ACK, recovery_scene_bitmaps.c compares the bitmaps with the memory, and recovery_scene.c has the frame.
 */
#ifndef TESTS_SUPPORT_RECOVERY_SCENE_PARTS_H
#define TESTS_SUPPORT_RECOVERY_SCENE_PARTS_H

#include "tests/support/recovery_scene.h"

/* A step of the dialogue, if there is one. Return: whether anything moved. */
bool rec_step(struct rec *r);
/* Main is closed if the dialogue has it. */
void rec_drop_main(struct rec *r);
/* Takes all bitmaps that are complete out of what was read, and compares each with the memory. */
void rec_read_bitmaps(struct rec *r);
/* Of the line that rec_limit names, what may go out. Return: whether anything moved. */
bool rec_flush_limited(struct rec *r);
/* The first rule that was broken is kept; it fails the scene in the end. */
__attribute__((format(printf, 2, 3))) void rec_breach(struct rec *r, const char *format, ...);

#endif
