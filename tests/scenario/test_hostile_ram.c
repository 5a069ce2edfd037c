/* Lies in the ram section: block list, records, coded pages; and every number at 0, 1, its maximum, and one more
 * (doc/wire/stream.md 4, 11). */
#include "tests/support/check_main.h"

#include <errno.h>
#include <string.h>
#include <zlib.h>

#include "tests/support/hostile.h"

#define PAGE ((uint64_t)WIRE_TPAGE_BYTES)
#define WORD(top, low) "\0\0\0\0\0\0" top low /* be64 with the two last bytes as given */

static const char *const xbzrle[] = { "xbzrle", NULL };
static const char *const compressing[] = { "compress", NULL };

/* ---- block lists ------------------------------------------------------------------------------------------- */

/* @text of @n bytes, and the victim unless it has none; @total is what they are said to be together. */
static void put_blocks(struct wire *w, const struct hostile_row *row)
{
	wire_word(w, row->total, WIRE_RAM_MEM_SIZE);
	wire_str8(w, row->text);
	wire_be64(w, row->n);
	if (row->victim_bytes) {
		wire_str8(w, HOSTILE_VICTIM);
		wire_be64(w, row->victim_bytes);
	}
}

#define BLOCKS(all, name, bytes, victim) \
	.put = put_blocks, .total = (all), .text = (name), .n = (bytes), .victim_bytes = (victim)
#define HONEST_BLOCKS BLOCKS(6 * PAGE, HOSTILE_RAM, 4 * PAGE, 2 * PAGE)

static void put_block_twice(struct wire *w, const struct hostile_row *row)
{
	(void)row;
	put_blocks(w, &(struct hostile_row){ BLOCKS(8 * PAGE, HOSTILE_RAM, 4 * PAGE, 0) });
	wire_str8(w, HOSTILE_RAM);
	wire_be64(w, 4 * PAGE);
}

static void put_block_name_with_nul(struct wire *w, const struct hostile_row *row)
{
	(void)row;
	wire_word(w, 6 * PAGE, WIRE_RAM_MEM_SIZE);
	wire_str8_n(w, HOSTILE_RAM "\0x", 8);
	wire_be64(w, 4 * PAGE);
	wire_str8(w, HOSTILE_VICTIM);
	wire_be64(w, 2 * PAGE);
}

static void put_mem_size_twice(struct wire *w, const struct hostile_row *row)
{
	(void)row;
	put_blocks(w, &(struct hostile_row){ HONEST_BLOCKS });
	put_blocks(w, &(struct hostile_row){ HONEST_BLOCKS });
}

static void put_page_before_mem_size(struct wire *w, const struct hostile_row *row)
{
	(void)row;
	wire_zero(w, HOSTILE_RAM, 0, 0);
	put_blocks(w, &(struct hostile_row){ HONEST_BLOCKS });
}

static const struct hostile_row block_rows[] = {
	{ "the total is a page less than the blocks", AT_BLOCKS, BLOCKS(5 * PAGE, HOSTILE_RAM, 4 * PAGE, 2 * PAGE),
	  .code = -EPROTO, .words = "total|length|victim" },
	{ "the total is a page more than the blocks", AT_BLOCKS, BLOCKS(7 * PAGE, HOSTILE_RAM, 4 * PAGE, 2 * PAGE),
	  .code = -EPROTO },
	{ "the total is zero", AT_BLOCKS, BLOCKS(0, HOSTILE_RAM, 4 * PAGE, 2 * PAGE), .code = -EPROTO },
	{ "the total is almost 2^64", AT_BLOCKS, BLOCKS(-PAGE, HOSTILE_RAM, 4 * PAGE, 2 * PAGE), .code = ANY_ERROR },
	{ "the blocks' sum wraps round to the total", AT_BLOCKS,
	  BLOCKS(4 * PAGE, HOSTILE_RAM, 1ull << 63, (1ull << 63) + 4 * PAGE), .code = ANY_ERROR },
	{ "a block of no bytes", AT_BLOCKS, BLOCKS(2 * PAGE, HOSTILE_RAM, 0, 2 * PAGE), .code = -EPROTO,
	  .words = HOSTILE_RAM },
	{ "a block of 1 byte", AT_BLOCKS, BLOCKS(3 * PAGE, HOSTILE_RAM, 1, 2 * PAGE), .code = -EPROTO,
	  .words = HOSTILE_RAM },
	{ "a block that is no multiple of a page", AT_BLOCKS,
	  BLOCKS(6 * PAGE, HOSTILE_RAM, 4 * PAGE + 512, 2 * PAGE - 512), .code = -EPROTO, .words = HOSTILE_RAM },
	{ "a block that is a page shorter than ours", AT_BLOCKS, BLOCKS(5 * PAGE, HOSTILE_RAM, 3 * PAGE, 2 * PAGE),
	  .code = -EINVAL, .words = HOSTILE_RAM },
	{ "a block that is a page longer than ours", AT_BLOCKS, BLOCKS(7 * PAGE, HOSTILE_RAM, 5 * PAGE, 2 * PAGE),
	  .code = -EINVAL, .words = HOSTILE_RAM },
	{ "a block of 32 TiB", AT_BLOCKS, BLOCKS(32ull << 40, HOSTILE_RAM, 32ull << 40, 0), .code = ANY_ERROR },
	{ "a block of 2^63 bytes", AT_BLOCKS, BLOCKS(1ull << 63, HOSTILE_RAM, 1ull << 63, 0), .code = ANY_ERROR },
	{ "a block of 2^64 - 4096 bytes", AT_BLOCKS, BLOCKS(-PAGE, HOSTILE_RAM, -PAGE, 0), .code = ANY_ERROR },
	{ "a resizable block at its most lands", AT_BLOCKS, BLOCKS(10 * PAGE, HOSTILE_RAM, 8 * PAGE, 2 * PAGE),
	  .code = 0, .ram_max = 8 * PAGE },
	{ "a resizable block a page above its most", AT_BLOCKS, BLOCKS(11 * PAGE, HOSTILE_RAM, 9 * PAGE, 2 * PAGE),
	  .code = -EINVAL, .words = HOSTILE_RAM, .ram_max = 8 * PAGE },
	{ "a block twice", AT_BLOCKS, .put = put_block_twice, .code = -EPROTO, .words = HOSTILE_RAM },
	{ "a block the embedder does not have", AT_BLOCKS, BLOCKS(6 * PAGE, "pc.teleport", 4 * PAGE, 2 * PAGE),
	  .code = -ENOENT, .words = "pc.teleport" },
	{ "a block without a name", AT_BLOCKS, BLOCKS(6 * PAGE, "", 4 * PAGE, 2 * PAGE), .code = -EPROTO,
	  .words = "name" },
	{ "a block whose name goes on after a NUL", AT_BLOCKS, .put = put_block_name_with_nul, .code = -EPROTO,
	  .words = "zero byte|NUL" },
	{ "two block lists in START", AT_BLOCKS, .put = put_mem_size_twice, .code = -EPROTO,
	  .words = "list of blocks" },
	{ "a second block list in PART", AT_RECORDS, HONEST_BLOCKS, .code = -EPROTO, .words = "list of blocks" },
	{ "no block list", AT_BLOCKS, RAW(""), .code = -EPROTO },
	{ "a page before the block list", AT_BLOCKS, .put = put_page_before_mem_size, .code = -EPROTO },
	{ "more RAM than the limit", AT_FIRST, RAW(""), .code = ANY_ERROR,
	  .params = (const char *const[]){ "ram-limit", "20480", NULL } },
	{ "RAM as much as the limit lands", AT_FIRST, RAW(""), .code = 0,
	  .params = (const char *const[]){ "ram-limit", "24576", NULL } },
};

/* ---- records ----------------------------------------------------------------------------------------------- */

static void put_zero(struct wire *w, const struct hostile_row *row)
{
	wire_zero(w, HOSTILE_RAM, row->n, 0);
}

static const struct hostile_row record_rows[] = {
	{ "the last page lands", AT_RECORDS, .put = put_zero, .n = 3 * PAGE, .code = 0 },
	{ "PAGE one past the end", AT_RECORDS, RAW(WORD("\x40", "\x08") "\6pc.ram"), .code = -EPROTO,
	  .words = HOSTILE_RAM },
	{ "ZERO one past the end", AT_RECORDS, RAW(WORD("\x40", "\x02") "\6pc.ram\0"), .code = -EPROTO,
	  .words = HOSTILE_RAM },
	{ "PAGE|CONTINUE one past the end", AT_RECORDS_LATER, RAW(WORD("\x40", "\x28")), .code = -EPROTO,
	  .words = HOSTILE_RAM },
	{ "PAGE at 2^63", AT_RECORDS, RAW("\x80\0\0\0\0\0\0\x08\6pc.ram"), .code = -EPROTO, .words = HOSTILE_RAM },
	{ "PAGE at 2^64 - 4096", AT_RECORDS, RAW("\xff\xff\xff\xff\xff\xff\xf0\x08\6pc.ram"), .code = -EPROTO,
	  .words = HOSTILE_RAM },
	{ "ZERO at 2^64 - 4096", AT_RECORDS, RAW("\xff\xff\xff\xff\xff\xff\xf0\x02\6pc.ram\0"), .code = -EPROTO,
	  .words = HOSTILE_RAM },
	{ "ZERO between the used length and the most of a block", AT_RECORDS, .put = put_zero, .n = 4 * PAGE,
	  .code = -EPROTO, .words = HOSTILE_RAM, .ram_max = 8 * PAGE },
	{ "an unknown block", AT_RECORDS, RAW(WORD("\0", "\x08") "\7pc.ram2"), .code = -EPROTO, .words = "pc.ram2" },
	{ "the beginning of a block's name", AT_RECORDS, RAW(WORD("\0", "\x08") "\5pc.ra"), .code = -EPROTO,
	  .words = "pc.ra" },
	{ "a block's name with a NUL after it", AT_RECORDS, RAW(WORD("\0", "\x08") "\7pc.ram\0"), .code = -EPROTO },
	{ "a block that the source did not list", AT_RECORDS, RAW(WORD("\0", "\x08") "\6unsent"), .code = -EPROTO,
	  .words = "unsent" },
	{ "an empty block name", AT_RECORDS, RAW(WORD("\0", "\x08") "\0"), .code = -EPROTO, .words = "block|name" },
	{ "CONTINUE before any name", AT_RECORDS, RAW(WORD("\0", "\x22") "\0"), .code = -EPROTO,
	  .words = "block|CONTINUE" },
	{ "fill byte 1", AT_RECORDS, RAW(WORD("\x10", "\x02") "\6pc.ram\1"), .code = -EPROTO, .words = "zeros" },
	{ "fill byte 255", AT_RECORDS_LATER, RAW(WORD("\x10", "\x22") "\xff"), .code = -EPROTO, .words = "zeros" },
	{ "no flag", AT_RECORDS_LATER, RAW(WORD("\0", "\0")), .code = -EPROTO, .words = "flag|record" },
	{ "CONTINUE alone", AT_RECORDS_LATER, RAW(WORD("\0", "\x20")), .code = -EPROTO, .words = "flag|record" },
	{ "FULL", AT_RECORDS_LATER, RAW(WORD("\0", "\x01")), .code = -EPROTO, .words = "flag|record" },
	{ "HOOK", AT_RECORDS_LATER, RAW(WORD("\0", "\x80")), .code = -EPROTO, .words = "flag|record|HOOK" },
	{ "flag 0x400", AT_RECORDS_LATER, RAW(WORD("\x04", "\0")), .code = -EPROTO, .words = "flag|record" },
	{ "flag 0x800", AT_RECORDS_LATER, RAW(WORD("\x08", "\0")), .code = -EPROTO, .words = "flag|record" },
	{ "all flags", AT_RECORDS_LATER, RAW(WORD("\x0f", "\xff")), .code = -EPROTO, .words = "flag|record" },
	{ "PAGE and ZERO", AT_RECORDS_LATER, RAW(WORD("\0", "\x2a")), .code = -EPROTO, .words = "flag|record" },
	{ "PAGE and EOS", AT_RECORDS_LATER, RAW(WORD("\0", "\x18")), .code = -EPROTO, .words = "flag|record" },
	{ "EOS and CONTINUE", AT_RECORDS_LATER, RAW(WORD("\0", "\x30")), .code = -EPROTO, .words = "flag|record" },
	{ "MEM_SIZE and CONTINUE", AT_RECORDS_LATER, RAW(WORD("\0", "\x24")), .code = -EPROTO, .words = "flag|record" },
	{ "MULTIFD_FLUSH without multifd lands", AT_RECORDS_LATER, RAW(WORD("\x02", "\0")), .code = 0 },
	{ "MULTIFD_FLUSH with an address", AT_RECORDS_LATER, RAW(WORD("\x12", "\0")), .code = -EPROTO,
	  .words = "address" },
	{ "EOS with an address", AT_RECORDS_LATER, RAW(WORD("\x10", "\x10")), .code = -EPROTO, .words = "address" },
	{ "EOS twice", AT_RECORDS_LATER, RAW(WORD("\0", "\x10")), .code = -EPROTO, .words = "footer" },
};

/* ---- coded pages ------------------------------------------------------------------------------------------- */

#define X "\0\0\0\0\0\0\0\x60" /* XBZRLE|CONTINUE, page 0 */
#define C "\0\0\0\0\0\0\1\x20" /* COMPRESS_PAGE|CONTINUE, page 0 */

/* A delta of @n bytes; its two lengths are @text: skip 1, copy the rest. */
static void put_long_xbzrle(struct wire *w, const struct hostile_row *row)
{
	wire_xbzrle_n(w, NULL, 0, 1, (uint16_t)row->n, row->text, 3);
	wire_fill(w, 0x77, row->n - 3);
}

/* A zlib stream of @n bytes of output; of a whole page as zlib stores what it cannot compress, larger than a page. */
static void put_inflating(struct wire *w, const struct hostile_row *row)
{
	uint8_t in[8192] = { 0 }, out[9000];
	uLongf len = sizeof(out);

	ck_assert_int_eq(compress2(out, &len, in, row->n, row->n == PAGE ? 0 : 9), Z_OK);
	wire_compress_n(w, NULL, 0, (uint32_t)len, out, len);
}

/* A page's stream of which @n bytes at the end are missing, or with a wrong checksum. */
static void put_zlib_damaged(struct wire *w, const struct hostile_row *row)
{
	uint8_t in[4096] = { 1, 2, 3 }, out[4200];
	uLongf len = sizeof(out);

	ck_assert_int_eq(compress2(out, &len, in, sizeof(in), 9), Z_OK);
	out[len - 1] ^= 1;
	wire_compress_n(w, NULL, 0, (uint32_t)(len - row->n), out, len - row->n);
}

static const struct hostile_row coded_rows[] = {
	{ "a delta of 3 bytes lands", AT_RECORDS_LATER, RAW(X "\1\0\3\0\1z"), .code = 0, .caps = xbzrle },
	{ "a delta up to the last byte lands", AT_RECORDS_LATER, RAW(X "\1\0\4\xff\x1f\1z"), .code = 0,
	  .caps = xbzrle },
	{ "a delta of two pairs lands", AT_RECORDS_LATER, RAW(X "\1\0\6\0\1z\1\1z"), .code = 0, .caps = xbzrle },
	{ "a delta of 4096 bytes lands", AT_RECORDS_LATER, .put = put_long_xbzrle, .n = 4096, .text = "\1\xfd\x1f",
	  .code = 0, .caps = xbzrle },
	{ "a delta of 4097 bytes", AT_RECORDS_LATER, .put = put_long_xbzrle, .n = 4097, .text = "\1\xfe\x1f",
	  .code = -EPROTO, .words = "4097|XBZRLE", .caps = xbzrle },
	{ "a delta of 65535 bytes", AT_RECORDS_LATER, RAW(X "\1\xff\xff\0\1z"), .code = -EPROTO, .words = "XBZRLE",
	  .caps = xbzrle },
	{ "a delta of no bytes", AT_RECORDS_LATER, RAW(X "\1\0\0"), .code = -EPROTO, .words = "XBZRLE",
	  .caps = xbzrle },
	{ "a delta of 1 byte", AT_RECORDS_LATER, RAW(X "\1\0\1\1"), .code = -EPROTO, .words = "XBZRLE",
	  .caps = xbzrle },
	{ "a delta of 2 bytes", AT_RECORDS_LATER, RAW(X "\1\0\2\1\1"), .code = -EPROTO, .words = "XBZRLE",
	  .caps = xbzrle },
	{ "a delta in coding 0", AT_RECORDS_LATER, RAW(X "\0\0\3\0\1z"), .code = -EPROTO, .words = "XBZRLE",
	  .caps = xbzrle },
	{ "a delta in coding 2", AT_RECORDS_LATER, RAW(X "\2\0\3\0\1z"), .code = -EPROTO, .words = "XBZRLE",
	  .caps = xbzrle },
	{ "a copy of no bytes", AT_RECORDS_LATER, RAW(X "\1\0\3\1\0\1"), .code = -EPROTO, .words = "XBZRLE",
	  .caps = xbzrle },
	{ "a later skip of no bytes", AT_RECORDS_LATER, RAW(X "\1\0\6\0\1z\0\1z"), .code = -EPROTO, .words = "XBZRLE",
	  .caps = xbzrle },
	{ "a skip to the page's end", AT_RECORDS_LATER, RAW(X "\1\0\4\x80\x20\1z"), .code = -EPROTO, .words = "XBZRLE",
	  .caps = xbzrle },
	{ "a skip of 16383 bytes", AT_RECORDS_LATER, RAW(X "\1\0\4\xff\x7f\1z"), .code = -EPROTO, .words = "XBZRLE",
	  .caps = xbzrle },
	{ "a copy over the page's end", AT_RECORDS_LATER, RAW(X "\1\0\5\xff\x1f\2zz"), .code = -EPROTO,
	  .words = "XBZRLE", .caps = xbzrle },
	{ "a copy of more bytes than there are", AT_RECORDS_LATER, RAW(X "\1\0\4\0\3zz"), .code = -EPROTO,
	  .words = "XBZRLE", .caps = xbzrle },
	{ "a length of three bytes", AT_RECORDS_LATER, RAW(X "\1\0\5\x80\x81\0\1z"), .code = -EPROTO, .words = "XBZRLE",
	  .caps = xbzrle },
	{ "a length cut in two", AT_RECORDS_LATER, RAW(X "\1\0\4\0\1z\x80"), .code = -EPROTO, .words = "XBZRLE",
	  .caps = xbzrle },
	{ "a pair cut after its skip", AT_RECORDS_LATER, RAW(X "\1\0\4\0\1z\1"), .code = -EPROTO, .words = "XBZRLE",
	  .caps = xbzrle },
	{ "a delta beyond the block", AT_RECORDS_LATER, RAW(WORD("\x40", "\x60") "\1\0\3\0\1z"), .code = -EPROTO,
	  .words = HOSTILE_RAM, .caps = xbzrle },
	{ "a stored page of 4107 bytes lands", AT_RECORDS_LATER, .put = put_inflating, .n = PAGE, .code = 0,
	  .caps = compressing },
	{ "a compressed page of no bytes", AT_RECORDS_LATER, RAW(C "\0\0\0\0"), .code = -EPROTO, .words = "compress",
	  .caps = compressing },
	{ "a compressed page of 1 byte", AT_RECORDS_LATER, RAW(C "\0\0\0\1\x78"), .code = -EPROTO, .words = "compress",
	  .caps = compressing },
	{ "a compressed page of 4111 bytes", AT_RECORDS_LATER, RAW(C "\0\0\x10\x0f"), .code = -EPROTO,
	  .words = "compress", .caps = compressing },
	{ "a compressed page of 4 GiB", AT_RECORDS_LATER, RAW(C "\xff\xff\xff\xff"), .code = -EPROTO,
	  .words = "compress", .caps = compressing },
	{ "a compressed page that is no zlib stream", AT_RECORDS_LATER, RAW(C "\0\0\0\4abcd"), .code = -EPROTO,
	  .words = "compress", .caps = compressing },
	{ "a compressed page of 0 bytes inside", AT_RECORDS_LATER, .put = put_inflating, .n = 0, .code = -EPROTO,
	  .words = "compress", .caps = compressing },
	{ "a compressed page of 4095 bytes inside", AT_RECORDS_LATER, .put = put_inflating, .n = 4095, .code = -EPROTO,
	  .words = "compress", .caps = compressing },
	{ "a compressed page of 4097 bytes inside", AT_RECORDS_LATER, .put = put_inflating, .n = 4097, .code = -EPROTO,
	  .words = "compress", .caps = compressing },
	{ "a compressed page of two pages inside", AT_RECORDS_LATER, .put = put_inflating, .n = 8192, .code = -EPROTO,
	  .words = "compress", .caps = compressing },
	{ "a compressed page without its end", AT_RECORDS_LATER, .put = put_zlib_damaged, .n = 4, .code = -EPROTO,
	  .words = "compress", .caps = compressing },
	{ "a compressed page with a wrong checksum", AT_RECORDS_LATER, .put = put_zlib_damaged, .code = -EPROTO,
	  .words = "compress", .caps = compressing },
	{ "a compressed page beyond the block", AT_RECORDS_LATER, RAW(WORD("\x41", "\x20") "\0\0\0\4abcd"),
	  .code = -EPROTO, .words = HOSTILE_RAM, .caps = compressing },
};

TEST_CASE("ram", 30);

TEST_ROWS(test_a_lie_in_the_block_list_is_refused_by_name_and_offset, block_rows)
{
	hostile_check(&block_rows[_i]);
}

TEST_ROWS(test_a_lie_in_a_record_is_refused_by_name_and_offset, record_rows)
{
	hostile_check(&record_rows[_i]);
}

TEST_ROWS(test_a_lie_in_a_coded_page_is_refused_by_name_and_offset, coded_rows)
{
	hostile_check(&coded_rows[_i]);
}
