/*
 * land.h - how bytes get into guest RAM: here, whatever channel they have come by
 *
 * A caller that has the bytes of pages in a buffer gives them to land_pages. One that makes them in place (the kernel's
 * receive, a decompressor, a delta) asks for the place, and calls land_done when they have come. A page that the source
 * calls zeros is land_zero. What has landed counts as received, from the same call on.
 *
 * May memory be written directly? In precopy: the guest does not run here. From the switch on only postcopy/ lands
 * pages, by the last two functions, where nobody can see them yet; then it shows them. Each function is for one side of
 * the switch, and the gate holds it to that (gate.h).
 *
 * Invariants:
 * (1) Nobody but land.c, forget.c, and whom land_at has told where, writes through block->landing. From the switch on
 *     anonymous memory is written by UFFDIO_COPY, and by nothing else.
 */
#ifndef MEMORY_LAND_H
#define MEMORY_LAND_H

#include "memory/block.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/*
 * The first touch of a huge page makes the kernel fill all of it with zeros: 0.1 to 5 ms for 2 MiB, which cannot be
 * divided. So who lands pages here and there counts these regions, and not the pages.
 */
#define LAND_REGION_BYTES (2ull << 20)

/* Pages that land_pages takes at a time. */
#define LAND_PAGES_MAX 128

/*
 * Are pages better landed from a buffer than received in place? On tmpfs pwritev(2) fills fresh pages without zeroing
 * them first and without a fault for each. Measured for fresh memory: 0.47 CPU-seconds a GB with the receive, against
 * 0.60 for receiving into the mapping and 0.67 for copying into it. (The guest's own first touch then maps them.)
 */
static inline bool land_wants_buffer(const struct block *b)
{
	return b->kind == BLOCK_SHMEM;
}

/* ---- before the switch ---- */

/**
 * land_pages - @count tpages from @tpage on, whose bytes are at @pages, each of a tpage's length
 * @pages is clobbered. Return: 0, or the errno of pwritev(2): -ENOSPC, -ENOMEM.
 */
int land_pages(struct block *b, size_t tpage, struct iovec *pages, int count);

/** land_zero - the source says this tpage is zeros. By (3) of block.h. */
void land_zero(struct block *b, size_t tpage);

/** land_at - where the bytes of a tpage belong. To be written before the next park; ask again after it. */
uint8_t *land_at(const struct block *b, size_t tpage);

/** land_at_inside - the same for a caller that has entered the gate: the place is good until it leaves */
uint8_t *land_at_inside(const struct block *b, size_t tpage);

/** land_done - the bytes of @count tpages have come to where they belong */
void land_done(struct block *b, size_t tpage, size_t count);

/* ---- from the switch on: for postcopy/ ---- */

/**
 * land_unseen - as land_pages, for tpages of a file that are not received and that nobody can see yet
 * They are received before their first byte is written, by (1) of postcopy.h; on failure they are not.
 */
int land_unseen(struct block *b, size_t tpage, struct iovec *pages, int count);

/** land_make - make the hpage at @off, which holds nothing and which nobody can see: zeros. Of a file. */
void land_make(struct block *b, uint64_t off);

#endif
