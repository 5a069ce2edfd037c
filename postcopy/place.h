/*
 * place.h - a page has come: where it goes
 *
 * Memory that is a file: the bytes go into the file (land_unseen), then UFFDIO_CONTINUE puts the page into the guest
 * view and wakes the waiting threads (show.h); runs of pages take one call each. A huge page is put there when its last
 * piece has come, from whatever channel. Anonymous memory: UFFDIO_COPY, which is both at once. A zero page costs
 * nothing until it is touched.
 */
#ifndef POSTCOPY_PLACE_H
#define POSTCOPY_PLACE_H

#include "coroutine/co.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct block;
struct err;
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

#endif
