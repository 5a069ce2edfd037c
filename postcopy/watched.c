#include "postcopy/watched.h"

#include <errno.h>
#include <stdlib.h>

void watched_fini(struct watched *v)
{
	free(v->list);
	*v = (struct watched){ 0 };
}

int watched_add(struct watched *v, const void *begin, uint64_t bytes, struct pblock *pb)
{
	size_t room = v->room ? 2 * v->room : 16;
	struct watched_view *list;

	if (v->count == v->room) {
		list = reallocarray(v->list, room, sizeof(*list));
		if (!list)
			return -ENOMEM;
		v->list = list;
		v->room = room;
	}
	v->list[v->count++] = (struct watched_view){ .begin = (uintptr_t)begin, .bytes = bytes, .pb = pb };
	return 0;
}

static int by_address(const void *a, const void *b)
{
	const struct watched_view *x = a, *y = b;

	return (x->begin > y->begin) - (x->begin < y->begin);
}

void watched_sort(struct watched *v)
{
	if (v->count)
		qsort(v->list, v->count, sizeof(*v->list), by_address);
}

/* The last one that does not begin after @addr; NULL when all do. */
static struct watched_view *last_before(const struct watched *v, uintptr_t addr)
{
	size_t low = 0, high = v->count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (v->list[mid].begin <= addr)
			low = mid + 1;
		else
			high = mid;
	}
	return low ? &v->list[low - 1] : NULL;
}

struct pblock *watched_find(const struct watched *v, uintptr_t addr, uint64_t *ret_off)
{
	const struct watched_view *view = last_before(v, addr);

	if (!view || addr - view->begin >= view->bytes)
		return NULL;
	*ret_off = addr - view->begin;
	return view->pb;
}

void watched_moved(struct watched *v, uintptr_t from, uintptr_t to)
{
	struct watched_view *view = last_before(v, from);

	if (!view || view->begin != from)
		return;
	view->begin = to;
	watched_sort(v);
}
