/*
 * names.h - a guest's blocks by name
 *
 * A record names its block, and a guest may have 4096 of them: the blocks are kept sorted, and a name is found in
 * twelve steps. It is not a hash: the sender of the names could choose them so that they collide.
 *
 * Invariants:
 * (1) Sorted by length and then by bytes; no name is there twice.
 */
#ifndef MEMORY_NAMES_H
#define MEMORY_NAMES_H

#include <stddef.h>

struct block;

struct names {
	struct block **list; /* owned; the blocks are not */
	size_t count, room;
};

void names_fini(struct names *n);

/** names_find - NULL if there is none */
struct block *names_find(const struct names *n, const char *name, size_t name_bytes);

/** names_add - @b under its name, by (1). Return: 0, -EEXIST, -ENOMEM. */
int names_add(struct names *n, struct block *b);

#endif
