#include "memory/names.h"

#include "memory/block.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void names_fini(struct names *n)
{
	free(n->list);
	*n = (struct names){ 0 };
}

static int compare(const struct block *b, const char *name, size_t name_bytes)
{
	if (b->name_bytes != name_bytes)
		return b->name_bytes < name_bytes ? -1 : 1;
	return memcmp(b->name, name, name_bytes);
}

/* The first one that is not before the name. */
static size_t place_of(const struct names *n, const char *name, size_t name_bytes)
{
	size_t low = 0, high = n->count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (compare(n->list[mid], name, name_bytes) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

struct block *names_find(const struct names *n, const char *name, size_t name_bytes)
{
	size_t at = place_of(n, name, name_bytes);

	return at < n->count && compare(n->list[at], name, name_bytes) == 0 ? n->list[at] : NULL;
}

static int make_room(struct names *n)
{
	size_t room = n->room ? 2 * n->room : 16;
	struct block **list;

	if (n->count < n->room)
		return 0;
	list = reallocarray(n->list, room, sizeof(struct block *));
	if (!list)
		return -ENOMEM;
	n->list = list;
	n->room = room;
	return 0;
}

int names_add(struct names *n, struct block *b)
{
	size_t at = place_of(n, b->name, b->name_bytes);

	if (at < n->count && compare(n->list[at], b->name, b->name_bytes) == 0)
		return -EEXIST;
	if (make_room(n) < 0)
		return -ENOMEM;
	memmove(n->list + at + 1, n->list + at, (n->count - at) * sizeof(struct block *));
	n->list[at] = b;
	n->count++;
	return 0;
}
