/*
 * inflate.h - a page that travels as a zlib stream of its own (capability compress, sources up to 9.0)
 */
#ifndef ENGINE_RAM_INFLATE_H
#define ENGINE_RAM_INFLATE_H

#include <stddef.h>
#include <stdint.h>

struct err;
struct inflater; /* reused from page to page */

/* Makes it on first use. Return: 0 or -ENOMEM. */
int inflater_get(struct inflater **inf, struct err *err);
void inflater_free(struct inflater *inf);

/* The worst a source's zlib makes of a page (doc/wire/stream.md 4.4). */
static inline size_t inflate_bytes_max(size_t page_bytes)
{
	return page_bytes + (page_bytes >> 12) + (page_bytes >> 14) + (page_bytes >> 25) + 13;
}

/**
 * inflate_page - a complete stream that inflates to exactly page_bytes
 * A bad stream may have written part of the page: the migration is over then.
 * Return: 0 or -EPROTO.
 */
int inflate_page(struct inflater *inf, void *page, size_t page_bytes, const void *src, size_t src_bytes,
                 struct err *err);

#endif
