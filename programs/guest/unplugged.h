/*
 * unplugged.h - blocks of which parts may be unplugged at the source: --unplugged NAME
 *
 * A virtio-mem device has a block with holes, and a source sends nothing for them. Only the user who starts the
 * destination knows which block that is: the stream does not say so.
 */
#ifndef PROGRAMS_GUEST_UNPLUGGED_H
#define PROGRAMS_GUEST_UNPLUGGED_H

#include <stdbool.h>
#include <stddef.h>

struct guest_unplugged {
	struct unplugged_name {
		const char *name; /* of the block; the command line's */
		bool used;
	} * names; /* owned */
	size_t count;
};

/** guest_unplugged_add - a name that is there already changes nothing. Return: 0, -ENOMEM. */
int guest_unplugged_add(struct guest_unplugged *u, const char *name);

/** guest_unplugged_take - may parts of this block be unplugged? Its name counts as used. */
bool guest_unplugged_take(struct guest_unplugged *u, const char *name);

/** guest_unplugged_unused - a name that no block has had; NULL: all are used */
const char *guest_unplugged_unused(const struct guest_unplugged *u);

/* A zeroed one is allowed. */
void guest_unplugged_fini(struct guest_unplugged *u);

#endif
