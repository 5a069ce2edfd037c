#include "engine/ram/xbzrle.h"

#include "base/err.h"

#include <errno.h>
#include <string.h>

/* One or two bytes, seven bits each, low ones first. Return: bytes used, 0 when it is malformed or cut short. */
static size_t length_at(const uint8_t *p, size_t left, size_t *ret)
{
	/* The format reserves two bytes wherever a length begins, because a copy of at least one byte follows it. */
	if (left < 2)
		return 0;
	*ret = p[0];
	if (p[0] < 0x80)
		return 1;
	if (p[1] & 0x80)
		return 0;
	*ret = (p[0] & 0x7fu) | (size_t)p[1] << 7;
	return 2;
}

/* Walks the delta; writes only with @page. Return: 0, or 1 + the offset in the delta where it goes wrong. */
static size_t walk(uint8_t *page, size_t page_bytes, const uint8_t *delta, size_t delta_bytes)
{
	size_t at = 0, in = 0, n, length;

	while (in < delta_bytes) {
		n = length_at(delta + in, delta_bytes - in, &length);
		if (n == 0 || length > page_bytes - at || (length == 0 && in > 0))
			return 1 + in;
		in += n;
		at += length;
		n = length_at(delta + in, delta_bytes - in, &length);
		if (n == 0 || length == 0 || length > page_bytes - at || length > delta_bytes - in - n)
			return 1 + in;
		in += n;
		if (page)
			memcpy(page + at, delta + in, length);
		in += length;
		at += length;
	}
	return 0;
}

int xbzrle_apply(uint8_t *page, size_t page_bytes, const uint8_t *delta, size_t delta_bytes, struct err *err)
{
	size_t bad;

	if (delta_bytes == 0)
		return err_set(err, -EPROTO, "an empty xbzrle delta");
	bad = walk(NULL, page_bytes, delta, delta_bytes);
	if (bad)
		return err_set(err, -EPROTO, "xbzrle delta of %zu bytes is wrong at byte %zu", delta_bytes, bad - 1);
	walk(page, page_bytes, delta, delta_bytes);
	return 0;
}
