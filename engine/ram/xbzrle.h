/*
 * xbzrle.h - a page as its difference to what is there
 */
#ifndef ENGINE_RAM_XBZRLE_H
#define ENGINE_RAM_XBZRLE_H

#include <stddef.h>
#include <stdint.h>

struct err;

/**
 * xbzrle_apply - change @page as the delta says
 * @page: page_bytes of the page's last content
 * @delta: delta_bytes, the payload after the two header fields; all of it is used
 * The delta is checked whole before the first byte is written, so that a bad one leaves the page as it was.
 * Return: 0 or -EPROTO.
 * Source: doc/wire/stream.md 4.3
 */
int xbzrle_apply(uint8_t *page, size_t page_bytes, const uint8_t *delta, size_t delta_bytes, struct err *err);

#endif
