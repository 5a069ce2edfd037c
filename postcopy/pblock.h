/*
 * pblock.h - postcopy's side of a block of guest RAM
 */
#ifndef POSTCOPY_PBLOCK_H
#define POSTCOPY_PBLOCK_H

#include "base/bitmap.h"
#include "base/coverage.h"

#include <stdbool.h>
#include <stddef.h>

struct block;

struct pblock {
	struct block *b; /* not owned */
	size_t units;
	struct bitmap asked;      /* a bit a unit: it has an entry in the ledger */
	struct coverage expected; /* a bit a tpage: discarded by the source, so it comes (again); until LISTEN */
};

/** pblock_complete - has every tpage of the unit been received? */
bool pblock_complete(const struct pblock *pb, size_t unit);

#endif
