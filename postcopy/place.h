/*
 * place.h - a page has come: where it goes, and who may see it
 *
 * Memory that is a file: the bytes go into the file (block_place), then UFFDIO_CONTINUE puts the page into the guest
 * view and wakes the waiting threads; runs of pages take one call each. A huge page is put there when its last piece
 * has come, from whatever channel. Anonymous memory: UFFDIO_COPY, which is both at once. A zero page costs nothing
 * until it is touched.
 */
#ifndef POSTCOPY_PLACE_H
#define POSTCOPY_PLACE_H

#include "coroutine/co.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct block;
struct err;
struct pblock;
struct postcopy;

/**
 * place_pages - @count tpages from @tpage on, with a tpage's bytes at each of @pages; those that are here are dropped
 * @pages is clobbered. Parks: while an event of the userfaultfd has to be read first; at most PLACE_PATIENCE_NS.
 * Return: 0; the errno of writing or placing, the text names block and offset.
 */
may_park int place_pages(struct postcopy *pc, struct block *b, size_t tpage, struct iovec *pages, int count,
                         struct err *err);

/** place_zero - the source says this tpage is zeros. As place_pages. */
may_park int place_zero(struct postcopy *pc, struct block *b, size_t tpage, struct err *err);

#define PLACE_PATIENCE_NS (30ull * 1000000000ull)

/**
 * place_local - a thread waits for a unit that is complete: put it, and what is complete after it, into the guest view
 * @walks: the thread will probably touch what is after it, so zero pages are made there, too
 * Never parks: what cannot be done now wakes the thread, which faults again and so comes back.
 */
void place_local(struct postcopy *pc, struct pblock *pb, size_t unit, bool walks);

/** place_engine - the same for the engine view, for the unit of @off alone. Return: 0 or the errno. */
int place_engine(struct postcopy *pc, struct pblock *pb, uint64_t off);

#endif
