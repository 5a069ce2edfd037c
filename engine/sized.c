#include "engine/sized.h"

#include "base/assert.h"

#include <errno.h>
#include <string.h>

int sized_copy(void *ret, size_t ret_bytes, const void *given, const struct sized_member *members, size_t count)
{
	const struct sized_member *last = &members[count - 1];
	size_t given_bytes;

	/* A member that was added to the structure and not to the list would be zero forever. */
	ASSERT(last->off + last->bytes <= ret_bytes && ret_bytes - (last->off + last->bytes) < sizeof(void *));
	memcpy(&given_bytes, given, sizeof(given_bytes));
	if (given_bytes < sizeof(given_bytes) || given_bytes > ret_bytes)
		return -EINVAL;
	for (size_t i = 0; i < count; i++) {
		const struct sized_member *m = &members[i];

		if (m->off + m->bytes <= given_bytes)
			memcpy((char *)ret + m->off, (const char *)given + m->off, m->bytes);
	}
	return 0;
}
