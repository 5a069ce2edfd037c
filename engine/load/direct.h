/*
 * direct.h - receiving a run of pages straight into guest memory
 *
 * In the first round most of a stream is predictable: page after page of one block, each behind an eight-byte header
 * that says so. When the buffer runs dry inside such a run, one receive is given the rest of the page, then headers and
 * pages in turn for a window of what should follow. Afterwards the headers are checked. Up to the first that is not
 * what we believed, the pages are where they belong, and no byte was copied twice; from there on the bytes are put back
 * into the buffer, and the pages they hid in are made zeros again.
 *
 * So only tpages that were never received may be in a window: their content is zeros and can be restored
 * (memory/block.h, invariant 2). The window grows while predictions hold and falls to nothing when one does not.
 */
#ifndef ENGINE_LOAD_DIRECT_H
#define ENGINE_LOAD_DIRECT_H

#include "coroutine/co.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct block;
struct err;
struct reader;

/* Two entries of at most 1024 (UIO_MAXIOV) for each, and what a buffer can take back (READER_NEED_MAX). */
#define DIRECT_PAGES_MAX 128

struct direct {
	unsigned window;  /* pages to predict beyond the one at hand */
	unsigned run;     /* pages in sequence seen so far */
	uint64_t pages;   /* landed without a copy of ours */
	uint64_t misses;  /* predictions that failed */
	uint8_t headers[DIRECT_PAGES_MAX][8];
	struct iovec iov[2 * DIRECT_PAGES_MAX + 2];
};

/* A page record with another address than the one after the last page, or of another kind. */
static inline void direct_run_broken(struct direct *d)
{
	d->run = 0;
}

/**
 * direct_pages - receive the payload of a PAGE record, and what follows it in the run
 * @tpage: the page whose header was just read; it is within @block
 * @ret_count: pages received, >= 1, all complete and marked
 * On return the reader is at a record's begin (perhaps in the middle of its header's arrival).
 * Parks: yes. Return: 0, or the reader's error.
 */
may_park int direct_pages(struct direct *d, struct reader *r, struct block *block, size_t tpage, unsigned tpage_shift,
			  size_t *ret_count, struct err *err);

#endif
