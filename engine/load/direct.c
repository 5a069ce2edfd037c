#include "engine/load/direct.h"

#include "base/be.h"
#include "engine/stream/reader.h"
#include "engine/stream/wire.h"
#include "memory/block.h"

#include <stdbool.h>
#include <string.h>

/* Pages in sequence before the first prediction, and how many it dares. */
#define RUN_MIN 8
#define WINDOW_MIN 8

/* How many pages from @tpage on may be written before we know that they are meant. */
static size_t window_pages(const struct direct *d, const struct block *block, size_t tpage, unsigned tpage_shift)
{
	size_t last = block->used_bytes >> tpage_shift, n = 0;
	size_t most = READER_NEED_MAX / (8 + ((size_t)1 << tpage_shift));

	if (d->window < most)
		most = d->window;
	while (n < most && tpage + n < last && !block_is_received(block, tpage + n))
		n++;
	return n;
}

static uint8_t *page_at(const struct block *block, size_t tpage, unsigned tpage_shift)
{
	return block->landing + ((uint64_t)tpage << tpage_shift);
}

/*
 * Where the run stands: inside the page @tpage, or before the header of it. @got bytes of that page or header are
 * there; those of a header are in headers[0].
 */
struct cursor {
	size_t tpage;
	size_t got;
	bool in_page;
};

static int fill_iov(struct direct *d, const struct block *block, const struct cursor *at, size_t window,
		    unsigned tpage_shift)
{
	size_t page_bytes = (size_t)1 << tpage_shift, tpage = at->tpage;
	int n = 0;

	if (at->in_page)
		d->iov[n++] = (struct iovec){ page_at(block, tpage++, tpage_shift) + at->got, page_bytes - at->got };
	for (size_t k = 0; k < window; k++) {
		d->iov[n++] = (struct iovec){ d->headers[k], sizeof(d->headers[k]) };
		d->iov[n++] = (struct iovec){ page_at(block, tpage + k, tpage_shift), page_bytes };
	}
	if (!at->in_page) {
		d->iov[0].iov_base = d->headers[0] + at->got;
		d->iov[0].iov_len -= at->got;
	}
	return n;
}

/* @bytes went to header @k and what follows, and were not what we believed. Last ones first: they go in front. */
static void undo(struct direct *d, struct reader *r, const struct block *block, size_t first_tpage, size_t k,
		 size_t bytes, unsigned tpage_shift)
{
	size_t page_bytes = (size_t)1 << tpage_shift, record_bytes = 8 + page_bytes;
	size_t records = bytes / record_bytes, rest = bytes % record_bytes;

	for (size_t i = records + 1; i-- > 0;) {
		size_t in_record = i < records ? record_bytes : rest;
		size_t in_page = in_record > 8 ? in_record - 8 : 0;
		uint8_t *page = page_at(block, first_tpage + i, tpage_shift);

		if (in_page > 0) {
			reader_put_back(r, page, in_page);
			memset(page, 0, in_page);
		}
		if (in_record > 0)
			reader_put_back(r, d->headers[k + i], in_record - in_page);
	}
}

/*
 * @bytes arrived from the header of page at->tpage on (in headers[0]). Take in the pages whose headers are right.
 * Return: false when a header was not what we believed; everything from there on has been put back.
 */
static bool accept(struct direct *d, struct reader *r, struct block *block, struct cursor *at, size_t bytes,
		   unsigned tpage_shift)
{
	size_t page_bytes = (size_t)1 << tpage_shift, k;

	for (k = 0; bytes >= 8; k++) {
		uint64_t expected = (uint64_t)at->tpage << tpage_shift | WIRE_RAM_PAGE | WIRE_RAM_CONTINUE;

		if (be64_load(d->headers[k]) != expected) {
			undo(d, r, block, at->tpage, k, bytes, tpage_shift);
			return false;
		}
		bytes -= 8;
		if (bytes < page_bytes) {
			at->in_page = true;
			at->got = bytes;
			return true;
		}
		bytes -= page_bytes;
		block_mark_received(block, at->tpage++);
	}
	if (k > 0)
		memcpy(d->headers[0], d->headers[k % DIRECT_PAGES_MAX], bytes);
	at->in_page = false;
	at->got = bytes;
	return true;
}

static void adapt(struct direct *d, size_t predicted, bool all_there)
{
	if (d->window == 0)
		d->window = d->run >= RUN_MIN ? WINDOW_MIN : 0;
	else if (predicted == d->window && all_there && d->window < DIRECT_PAGES_MAX)
		d->window *= 2;
}

int direct_pages(struct direct *d, struct reader *r, struct block *block, size_t tpage, unsigned tpage_shift,
		 size_t *ret_count, struct err *err)
{
	size_t page_bytes = (size_t)1 << tpage_shift, window, bytes, count;
	struct cursor at = { .tpage = tpage, .got = reader_buffered(r), .in_page = true };
	bool right = true;
	ssize_t n;

	memcpy(page_at(block, tpage, tpage_shift), reader_data(r), at.got);
	reader_skip(r, at.got);
	adapt(d, 0, false);
	while (right) {
		window = window_pages(d, block, at.tpage + at.in_page, tpage_shift);
		if (!at.in_page && (window == 0 || reader_buffered(r) > 0))
			break;
		n = reader_scatter(r, d->iov, fill_iov(d, block, &at, window, tpage_shift),
				   window * (8 + page_bytes), window == 0, err);
		if (n < 0)
			return (int)n;
		bytes = at.got + (size_t)n;
		if (at.in_page) {
			if (bytes < page_bytes) {
				at.got = bytes;
				continue;
			}
			bytes -= page_bytes;
			block_mark_received(block, at.tpage++);
		}
		adapt(d, window, bytes == window * (8 + page_bytes));
		right = accept(d, r, block, &at, bytes, tpage_shift);
	}
	if (right && at.got > 0)
		reader_put_back(r, d->headers[0], at.got);
	count = at.tpage - tpage;
	d->pages += count;
	d->run = right ? d->run + (unsigned)count - 1 : 0;
	if (!right) {
		d->misses++;
		d->window = 0;
	}
	*ret_count = count;
	return 0;
}
