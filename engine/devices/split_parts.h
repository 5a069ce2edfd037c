/*
 * split_parts.h - what the ways of splitting share; not for others
 */
#ifndef ENGINE_DEVICES_SPLIT_PARTS_H
#define ENGINE_DEVICES_SPLIT_PARTS_H

#include "engine/devices/split.h"
#include "engine/stream/element.h"

/* The sections and commands of a result while they are found. */
struct split_build {
	struct split_result r;
	size_t section_room, command_room;
};

/**
 * split_head - the header of a START or FULL section at @off; body_bytes and device are left zero, -1
 * Return: as element_section().
 */
int split_head(struct split_section *ret, const uint8_t *buf, size_t bytes, size_t off);

/**
 * split_seek - the first @byte of [at, end), however far it is; NULL when there is none, or for a cancel
 * Parks: yes, see split.h.
 */
const uint8_t *split_seek(const struct split_opts *opts, const uint8_t *at, const uint8_t *end, uint8_t byte);

int split_push_section(struct split_build *b, const struct split_section *s, struct err *err);
int split_push_command(struct split_build *b, const struct split_command *c, struct err *err);

/** split_check_unique - by (2) of split.h. Return: 0, -EPROTO, -ENOMEM. */
int split_check_unique(const struct split_result *r, const uint8_t *buf, const struct split_opts *opts,
                       struct err *err);

/** split_wrong_element - the story of what is at @off, where @want should be. Return: -EPROTO. */
int split_wrong_element(const uint8_t *buf, size_t bytes, size_t off, const char *want, struct err *err);

/**
 * split_walk_sections - headers, sizes and footers only: fails at once where the description is of something else
 * Return: 0; -EPROTO, -E2BIG, -ENOMEM, -ECANCELED.
 */
int split_walk_sections(struct split_build *b, const struct vmdesc *d, const uint8_t *buf, size_t bytes,
                        const struct split_opts *opts, struct err *err);

/**
 * split_finish - what is left once all sections are found: the headers of subsections in all bodies, and (2) of split.h
 * Consumes @b->r, also on failure. Parks: yes, see split.h. Return: 0, -EPROTO, -ENOMEM, -ECANCELED.
 */
int split_finish(struct split_result *ret, struct split_build *b, const struct vmdesc *d, const uint8_t *buf,
                 const struct split_opts *opts, struct err *err);

#endif
