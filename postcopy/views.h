/*
 * views.h - which block is at an address?
 *
 * Asked for every fault, and a guest may have 4096 blocks: the views that are watched are kept sorted. Addresses are
 * those at which they were registered; a guest view that the embedder has moved is filed anew (views_moved).
 */
#ifndef POSTCOPY_VIEWS_H
#define POSTCOPY_VIEWS_H

#include <stddef.h>
#include <stdint.h>

struct pblock;

struct view {
	uintptr_t begin;
	uint64_t bytes;
	struct pblock *pb; /* not owned */
};

/* Zeroed, it is empty. */
struct views {
	struct view *list; /* owned; sorted by views_sort, and they do not overlap */
	size_t count, room;
};

void views_fini(struct views *v);

/** views_add - to be found after the next views_sort. Return: 0 or -ENOMEM. */
int views_add(struct views *v, const void *begin, uint64_t bytes, struct pblock *pb);

void views_sort(struct views *v);

/** views_find - NULL when @addr is in none; else where in it */
struct pblock *views_find(const struct views *v, uintptr_t addr, uint64_t *ret_off);

/** views_moved - the one that begins at @from begins at @to now */
void views_moved(struct views *v, uintptr_t from, uintptr_t to);

#endif
