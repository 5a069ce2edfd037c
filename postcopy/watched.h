/*
 * watched.h - which block is at an address?
 *
 * Asked for every fault, and a guest may have 4096 blocks: the views that are watched are kept sorted. Addresses are
 * those at which they were registered; a guest view that the embedder has moved is filed again (watched_moved).
 */
#ifndef POSTCOPY_WATCHED_H
#define POSTCOPY_WATCHED_H

#include <stddef.h>
#include <stdint.h>

struct pblock;

struct watched_view {
	uintptr_t begin;
	uint64_t bytes;
	struct pblock *pb; /* not owned */
};

/* Zeroed, it is empty. */
struct watched {
	struct watched_view *list; /* owned; sorted by watched_sort, and they do not overlap */
	size_t count, room;
};

void watched_fini(struct watched *v);

/** watched_add - to be found after the next watched_sort. Return: 0 or -ENOMEM. */
int watched_add(struct watched *v, const void *begin, uint64_t bytes, struct pblock *pb);

void watched_sort(struct watched *v);

/** watched_find - NULL when @addr is in none; else where in it */
struct pblock *watched_find(const struct watched *v, uintptr_t addr, uint64_t *ret_off);

/** watched_moved - the one that begins at @from begins at @to now */
void watched_moved(struct watched *v, uintptr_t from, uintptr_t to);

#endif
