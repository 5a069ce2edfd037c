#include "engine/ram/bitmaps.h"

#include "base/err.h"
#include "base/text.h"
#include "engine/stream/reader.h"
#include "engine/stream/trace.h"

#include <errno.h>
#include <inttypes.h>

/* doc/wire/stream.md 7.6 */
enum chunk_flags {
	CHUNK_EOS = 0x01,
	CHUNK_ZEROES = 0x02,
	CHUNK_BITMAP_NAME = 0x04,
	CHUNK_DEVICE_NAME = 0x08,
	CHUNK_START = 0x10,
	CHUNK_COMPLETE = 0x20,
	CHUNK_BITS = 0x40,
	CHUNK_RESERVED = 0x80,
};

#define BITS_BYTES_MAX 10240

static int skip(struct reader *r, size_t bytes, struct err *err)
{
	int e = reader_need(r, bytes, err);

	if (e == 0)
		reader_skip(r, bytes);
	return e;
}

static int read_name(struct reader *r, const char *what, const struct trace *trace, struct err *err)
{
	uint64_t off = reader_off(r);
	char name[256];
	size_t bytes;
	int e = reader_str8(r, name, &bytes, err);

	if (e == 0)
		TRACE(trace, off, 1, "%s '%s'", what, TEXT_QUOTE(name, bytes));
	return e;
}

static int read_bits(struct reader *r, bool zeroes, struct err *err)
{
	uint64_t bytes;
	int e = skip(r, 8 + 4, err); /* first sector, sector count */

	if (e < 0 || zeroes)
		return e;
	e = reader_be64(r, &bytes, err);
	if (e < 0)
		return e;
	if (bytes > BITS_BYTES_MAX)
		return err_set(err, -EPROTO, "a bitmap piece of %" PRIu64 " bytes; %d are possible", bytes,
		               BITS_BYTES_MAX);
	return skip(r, bytes, err);
}

/* Return: 1 at EOS, 0 go on, negative an error. */
static int read_chunk(struct reader *r, const struct trace *trace, bool *announced, struct err *err)
{
	uint8_t flags;
	int e = reader_u8(r, &flags, err);

	if (e < 0)
		return e;
	if (flags & CHUNK_RESERVED)
		return err_set(err, -EPROTO, "chunk flags 0x%02x", flags);
	if (flags & CHUNK_START)
		*announced = true;
	if (flags & CHUNK_DEVICE_NAME)
		e = read_name(r, "node", trace, err);
	if (e == 0 && flags & CHUNK_BITMAP_NAME)
		e = read_name(r, "bitmap", trace, err);
	if (e == 0 && flags & CHUNK_START)
		e = skip(r, 4 + 1, err); /* granularity, flags */
	else if (e == 0 && flags & CHUNK_BITS)
		e = read_bits(r, flags & CHUNK_ZEROES, err);
	return e < 0 ? e : flags & CHUNK_EOS;
}

int bitmaps_read_body(struct reader *r, const struct trace *trace, bool *announced, struct err *err)
{
	uint64_t off;
	int e;

	do {
		off = reader_off(r);
		e = read_chunk(r, trace, announced, err);
	} while (e == 0);
	if (e < 0)
		return err_up(err, e, "chunk at 0x%" PRIx64, off);
	return 0;
}
