/*
 * vmdesc_parts.h - what the two parts of vmdesc.h share: a description is read by vmdesc_desc.c, the devices around
 * descriptions by vmdesc.c; not for others
 *
 * Source: the schema of doc/wire/stream.md 7.2
 */
#ifndef ENGINE_DEVICES_VMDESC_PARTS_H
#define ENGINE_DEVICES_VMDESC_PARTS_H

#include <string.h>

#include "engine/devices/vmdesc.h"
#include "engine/stream/json_pull.h"

enum vmdesc_member {
	M_NAME,
	M_TYPE,
	M_SIZE,
	M_ARRAY_LEN,
	M_STRUCT,
	M_INSTANCE,
	M_VMSD_NAME,
	M_VERSION,
	M_FIELDS,
	M_SUBSECTIONS,
};

/* A desc while its members, which may come in any order and among others, are read. */
struct vmdesc_build {
	struct vmdesc_desc *desc;
	unsigned seen; /* bits of enum vmdesc_member */
	bool twice;
};

static inline bool vmdesc_is(const struct json_pull_str *s, const char *word)
{
	return !strcmp(s->s, word);
}

/** vmdesc_mark - a member has been read. Return: was it there before? */
static inline bool vmdesc_mark(unsigned *seen, enum vmdesc_member m)
{
	bool twice = *seen >> m & 1;

	*seen |= 1u << m;
	return twice;
}

/**
 * vmdesc_desc_member - read the value of @k, if that is a member of descriptions; the first makes b->desc
 * Devices have the members of their description among their own.
 * Return: 1 it was one and has been read, 0 it was not, or the error of json_pull.h.
 */
int vmdesc_desc_member(struct json_pull *p, struct vmdesc_build *b, const struct json_pull_str *k);

/** vmdesc_desc_finish - all members are there: the sums. Return: 0, -EPROTO. */
int vmdesc_desc_finish(struct json_pull *p, const struct vmdesc_build *b);

#endif
