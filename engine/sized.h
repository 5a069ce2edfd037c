/*
 * sized.h - a structure that begins with its size
 *
 * The caller may have been compiled for an earlier version, whose structure was shorter: missing members are zero. A
 * member that is there only in part was padding in that version and can have any bytes, so it counts as missing.
 */
#ifndef ENGINE_SIZED_H
#define ENGINE_SIZED_H

#include <stddef.h>

struct sized_member {
	size_t off, bytes;
};

#define SIZED_MEMBER(type, member) \
	{ \
		offsetof(type, member), sizeof(((type *)0)->member) \
	}

/**
 * sized_copy - the members that @given has, into @ret, whose other bytes stay as they are
 * @ret_bytes: of the structure in this version. @members: all of them, the size first, in order.
 * Return: 0; -EINVAL: @given says a size that is longer than ours, or has no room for the size itself.
 */
int sized_copy(void *ret, size_t ret_bytes, const void *given, const struct sized_member *members, size_t count);

#endif
