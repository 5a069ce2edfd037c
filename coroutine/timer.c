#include "coroutine/timer.h"

#include "base/assert.h"
#include "base/clock.h"

/* Two heaps into one: the later root becomes the leftmost child of the earlier. Both roots are without siblings. */
static struct timer *meld(struct timer *a, struct timer *b)
{
	struct timer *tmp;

	if (!a)
		return b;
	if (!b)
		return a;
	if (b->deadline_ns < a->deadline_ns) {
		tmp = a;
		a = b;
		b = tmp;
	}
	b->sibling = a->child;
	if (b->sibling)
		b->sibling->prev = b;
	b->prev = a;
	a->child = b;
	return a;
}

/* The classic two passes: meld neighbours from left to right, then all of them from right to left. */
static struct timer *meld_children(struct timer *first)
{
	struct timer *pairs = NULL, *heap = NULL, *a, *b, *next;

	for (; first; first = next) {
		a = first;
		b = a->sibling;
		next = b ? b->sibling : NULL;
		a->sibling = NULL;
		if (b)
			b->sibling = NULL;
		a = meld(a, b);
		a->sibling = pairs;
		pairs = a;
	}
	for (; pairs; pairs = next) {
		next = pairs->sibling;
		pairs->sibling = NULL;
		heap = meld(heap, pairs);
	}
	return heap;
}

static void set_root(struct timer_heap *heap, struct timer *root)
{
	heap->root = root;
	if (root)
		root->prev = root;
}

void timer_arm(struct timer_heap *heap, struct timer *t, uint64_t deadline_ns)
{
	ASSERT(!timer_armed(t));
	t->deadline_ns = deadline_ns;
	t->child = t->sibling = NULL;
	set_root(heap, meld(heap->root, t));
}

void timer_disarm(struct timer_heap *heap, struct timer *t)
{
	struct timer *below;

	if (!timer_armed(t))
		return;
	below = meld_children(t->child);
	if (heap->root == t) {
		set_root(heap, below);
	} else {
		if (t->prev->child == t)
			t->prev->child = t->sibling;
		else
			t->prev->sibling = t->sibling;
		if (t->sibling)
			t->sibling->prev = t->prev;
		set_root(heap, meld(heap->root, below));
	}
	t->child = t->sibling = t->prev = NULL;
}

struct timer *timer_pop_due(struct timer_heap *heap, uint64_t now_ns)
{
	struct timer *t = heap->root;

	if (!t || t->deadline_ns > now_ns)
		return NULL;
	timer_disarm(heap, t);
	return t;
}

uint64_t timer_next_ns(const struct timer_heap *heap)
{
	return heap->root ? heap->root->deadline_ns : DEADLINE_NEVER;
}
