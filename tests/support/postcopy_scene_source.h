/*
 * postcopy_scene_source.h - shared by the files of a postcopy scene's source, and by no others
 *
 * postcopy_scene_head.c builds everything up to PING 4, postcopy_scene_source.c sends pages from then on,
 * postcopy_scene_replies.c reads replies, and postcopy_scene_lines.c has the connections.
 */
#ifndef TESTS_SUPPORT_POSTCOPY_SCENE_SOURCE_H
#define TESTS_SUPPORT_POSTCOPY_SCENE_SOURCE_H

#include "tests/support/postcopy_scene.h"

#define PC_RAM_ID 2u /* of the section */

/* ---- records ----------------------------------------------------------------------------------------------------- */

/* Named unless it was named last; NULL then. What another section or a test put there does not count. */
const char *pc_name_for(struct pc *s, struct pc_line *line, unsigned block);
/* A synchronisation on each multifd channel. */
void pc_sync_channels(struct pc *s);
/* EOS and footer of the RAM section that is open in @w. */
void pc_end_section(struct pc *s, struct wire *w);
/* Its target pages; the last unit of a block may have fewer than the others. */
void pc_pages_of_unit(struct pc *s, unsigned block, uint64_t unit, uint64_t *ret_first, uint64_t *ret_end);

/* ---- its parts --------------------------------------------------------------------------------------------------- */

/* Fills s->head, and the multifd channels with their part of it. */
void pc_put_head(struct pc *s);
/* Takes what has come on main. Return: whether anything had. */
bool pc_read_main(struct pc *s);

#endif
