#include "postcopy/views.h"

#include <errno.h>
#include <stdlib.h>

void views_fini(struct views *v)
{
	free(v->list);
	*v = (struct views){ 0 };
}

int views_add(struct views *v, const void *begin, uint64_t bytes, struct pblock *pb)
{
	size_t room = v->room ? 2 * v->room : 16;
	struct view *list;

	if (v->count == v->room) {
		list = reallocarray(v->list, room, sizeof(*list));
		if (!list)
			return -ENOMEM;
		v->list = list;
		v->room = room;
	}
	v->list[v->count++] = (struct view){ .begin = (uintptr_t)begin, .bytes = bytes, .pb = pb };
	return 0;
}

static int by_address(const void *a, const void *b)
{
	const struct view *x = a, *y = b;

	return (x->begin > y->begin) - (x->begin < y->begin);
}

void views_sort(struct views *v)
{
	if (v->count)
		qsort(v->list, v->count, sizeof(*v->list), by_address);
}

/* The last one that does not begin behind @addr; NULL when all do. */
static struct view *last_before(const struct views *v, uintptr_t addr)
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

struct pblock *views_find(const struct views *v, uintptr_t addr, uint64_t *ret_off)
{
	const struct view *view = last_before(v, addr);

	if (!view || addr - view->begin >= view->bytes)
		return NULL;
	*ret_off = addr - view->begin;
	return view->pb;
}

void views_moved(struct views *v, uintptr_t from, uintptr_t to)
{
	struct view *view = last_before(v, from);

	if (!view || view->begin != from)
		return;
	view->begin = to;
	views_sort(v);
}
