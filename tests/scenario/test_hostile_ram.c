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

static void blocks(struct wire *w, uint64_t total, const char *name, uint64_t bytes, uint64_t victim_bytes)
{
	wire_word(w, total, WIRE_RAM_MEM_SIZE);
	wire_str8(w, name);
	wire_be64(w, bytes);
	if (victim_bytes) {
		wire_str8(w, HOSTILE_VICTIM);
		wire_be64(w, victim_bytes);
	}
}

static void put_total_less(struct wire *w)
{
	blocks(w, 5 * PAGE, HOSTILE_RAM, 4 * PAGE, 2 * PAGE);
}

static void put_total_more(struct wire *w)
{
	blocks(w, 7 * PAGE, HOSTILE_RAM, 4 * PAGE, 2 * PAGE);
}

static void put_total_zero(struct wire *w)
{
	blocks(w, 0, HOSTILE_RAM, 4 * PAGE, 2 * PAGE);
}

static void put_total_most(struct wire *w)
{
	blocks(w, -PAGE, HOSTILE_RAM, 4 * PAGE, 2 * PAGE);
}

static void put_sum_wraps(struct wire *w)
{
	blocks(w, 4 * PAGE, HOSTILE_RAM, 1ull << 63, (1ull << 63) + 4 * PAGE);
}

static void put_length_0(struct wire *w)
{
	blocks(w, 2 * PAGE, HOSTILE_RAM, 0, 2 * PAGE);
}

static void put_length_one_page_less(struct wire *w)
{
	blocks(w, 5 * PAGE, HOSTILE_RAM, 3 * PAGE, 2 * PAGE);
}

static void put_length_one_page_more(struct wire *w)
{
	blocks(w, 7 * PAGE, HOSTILE_RAM, 5 * PAGE, 2 * PAGE);
}

static void put_length_1(struct wire *w)
{
	blocks(w, 3 * PAGE, HOSTILE_RAM, 1, 2 * PAGE);
}

static void put_length_odd(struct wire *w)
{
	wire_word(w, 6 * PAGE, WIRE_RAM_MEM_SIZE);
	wire_str8(w, HOSTILE_RAM);
	wire_be64(w, 4 * PAGE + 512);
	wire_str8(w, HOSTILE_VICTIM);
	wire_be64(w, 2 * PAGE - 512);
}

static void put_length_2_63(struct wire *w)
{
	blocks(w, 1ull << 63, HOSTILE_RAM, 1ull << 63, 0);
}

static void put_length_most(struct wire *w)
{
	blocks(w, -PAGE, HOSTILE_RAM, -PAGE, 0);
}

static void put_length_32_tib(struct wire *w)
{
	blocks(w, 32ull << 40, HOSTILE_RAM, 32ull << 40, 0);
}

static void put_block_twice(struct wire *w)
{
	blocks(w, 8 * PAGE, HOSTILE_RAM, 4 * PAGE, 0);
	wire_str8(w, HOSTILE_RAM);
	wire_be64(w, 4 * PAGE);
}

static void put_block_unknown(struct wire *w)
{
	blocks(w, 6 * PAGE, "pc.teleport", 4 * PAGE, 2 * PAGE);
}

static void put_block_empty_name(struct wire *w)
{
	blocks(w, 6 * PAGE, "", 4 * PAGE, 2 * PAGE);
}

static void put_block_name_with_nul(struct wire *w)
{
	wire_word(w, 6 * PAGE, WIRE_RAM_MEM_SIZE);
	wire_str8_n(w, HOSTILE_RAM "\0x", 8);
	wire_be64(w, 4 * PAGE);
	wire_str8(w, HOSTILE_VICTIM);
	wire_be64(w, 2 * PAGE);
}

static void put_mem_size_twice(struct wire *w)
{
	blocks(w, 6 * PAGE, HOSTILE_RAM, 4 * PAGE, 2 * PAGE);
	blocks(w, 6 * PAGE, HOSTILE_RAM, 4 * PAGE, 2 * PAGE);
}

static void put_mem_size(struct wire *w)
{
	blocks(w, 6 * PAGE, HOSTILE_RAM, 4 * PAGE, 2 * PAGE);
}

static void put_page_before_mem_size(struct wire *w)
{
	wire_zero(w, HOSTILE_RAM, 0, 0);
	blocks(w, 6 * PAGE, HOSTILE_RAM, 4 * PAGE, 2 * PAGE);
}

static void put_resized(struct wire *w)
{
	blocks(w, 10 * PAGE, HOSTILE_RAM, 8 * PAGE, 2 * PAGE);
}

static void put_resized_too_far(struct wire *w)
{
	blocks(w, 11 * PAGE, HOSTILE_RAM, 9 * PAGE, 2 * PAGE);
}

static const struct hostile_row block_rows[] = {
	{ "the total is a page less than the blocks", AT_BLOCKS, put_total_less, .code = -EPROTO,
	  .words = "total|length|victim" },
	{ "the total is a page more than the blocks", AT_BLOCKS, put_total_more, .code = -EPROTO },
	{ "the total is zero", AT_BLOCKS, put_total_zero, .code = -EPROTO },
	{ "the total is almost 2^64", AT_BLOCKS, put_total_most, .code = ANY_ERROR },
	{ "the blocks' sum wraps round to the total", AT_BLOCKS, put_sum_wraps, .code = ANY_ERROR },
	{ "a block of no bytes", AT_BLOCKS, put_length_0, .code = -EPROTO, .words = HOSTILE_RAM },
	{ "a block of 1 byte", AT_BLOCKS, put_length_1, .code = -EPROTO, .words = HOSTILE_RAM },
	{ "a block that is no multiple of a page", AT_BLOCKS, put_length_odd, .code = -EPROTO, .words = HOSTILE_RAM },
	{ "a block that is a page shorter than ours", AT_BLOCKS, put_length_one_page_less, .code = -EINVAL,
	  .words = HOSTILE_RAM },
	{ "a block that is a page longer than ours", AT_BLOCKS, put_length_one_page_more, .code = -EINVAL,
	  .words = HOSTILE_RAM },
	{ "a block of 32 TiB", AT_BLOCKS, put_length_32_tib, .code = ANY_ERROR },
	{ "a block of 2^63 bytes", AT_BLOCKS, put_length_2_63, .code = ANY_ERROR },
	{ "a block of 2^64 - 4096 bytes", AT_BLOCKS, put_length_most, .code = ANY_ERROR },
	{ "a resizable block at its most lands", AT_BLOCKS, put_resized, .code = 0, .ram_max = 8 * PAGE },
	{ "a resizable block a page above its most", AT_BLOCKS, put_resized_too_far, .code = -EINVAL,
	  .words = HOSTILE_RAM, .ram_max = 8 * PAGE },
	{ "a block twice", AT_BLOCKS, put_block_twice, .code = -EPROTO, .words = HOSTILE_RAM },
	{ "a block the embedder does not have", AT_BLOCKS, put_block_unknown, .code = -ENOENT, .words = "pc.teleport" },
	{ "a block without a name", AT_BLOCKS, put_block_empty_name, .code = -EPROTO, .words = "name" },
	{ "a block whose name goes on behind a NUL", AT_BLOCKS, put_block_name_with_nul, .code = -EPROTO,
	  .words = "zero byte|NUL" },
	{ "two block lists in START", AT_BLOCKS, put_mem_size_twice, .code = -EPROTO, .words = "list of blocks" },
	{ "a second block list in PART", AT_RECORDS, put_mem_size, .code = -EPROTO, .words = "list of blocks" },
	{ "no block list", AT_BLOCKS, RAW(""), .code = -EPROTO },
	{ "a page before the block list", AT_BLOCKS, put_page_before_mem_size, .code = -EPROTO },
	{ "more RAM than the limit", AT_FIRST, RAW(""), .code = ANY_ERROR,
	  .params = (const char *const[]){ "ram-limit", "20480", NULL } },
	{ "RAM as much as the limit lands", AT_FIRST, RAW(""), .code = 0,
	  .params = (const char *const[]){ "ram-limit", "24576", NULL } },
};

/* ---- records ----------------------------------------------------------------------------------------------- */

static void put_last_page(struct wire *w)
{
	wire_zero(w, HOSTILE_RAM, 3 * PAGE, 0);
}

static void put_page_behind_resized(struct wire *w)
{
	wire_zero(w, HOSTILE_RAM, 4 * PAGE, 0);
}

static const struct hostile_row record_rows[] = {
	{ "the last page lands", AT_RECORDS, put_last_page, .code = 0 },
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
	{ "ZERO between the used length and the most of a block", AT_RECORDS, put_page_behind_resized, .code = -EPROTO,
	  .words = HOSTILE_RAM, .ram_max = 8 * PAGE },
	{ "an unknown block", AT_RECORDS, RAW(WORD("\0", "\x08") "\7pc.ram2"), .code = -EPROTO, .words = "pc.ram2" },
	{ "the beginning of a block's name", AT_RECORDS, RAW(WORD("\0", "\x08") "\5pc.ra"), .code = -EPROTO,
	  .words = "pc.ra" },
	{ "a block's name with a NUL behind it", AT_RECORDS, RAW(WORD("\0", "\x08") "\7pc.ram\0"), .code = -EPROTO },
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

static void put_xbzrle_of_4096(struct wire *w)
{
	wire_xbzrle_n(w, NULL, 0, 1, 4096, "\1\xfd\x1f", 3); /* skip 1, copy 4093 */
	wire_fill(w, 0x77, 4093);
}

static void put_xbzrle_of_4097(struct wire *w)
{
	wire_xbzrle_n(w, NULL, 0, 1, 4097, "\1\xfe\x1f", 3);
	wire_fill(w, 0x77, 4094);
}

/* A zlib stream of @bytes of output, at @level. */
static void inflates_to(struct wire *w, size_t bytes, int level, uint32_t more_n)
{
	uint8_t in[8192] = { 0 }, out[9000];
	uLongf len = sizeof(out);

	ck_assert_int_eq(compress2(out, &len, in, bytes, level), Z_OK);
	wire_compress_n(w, NULL, 0, (uint32_t)len + more_n, out, len);
	wire_fill(w, 0, more_n);
}

static void put_stored(struct wire *w)
{
	inflates_to(w, 4096, 0, 0); /* larger than a page, as zlib stores what it cannot compress */
}

static void put_inflates_to_4095(struct wire *w)
{
	inflates_to(w, 4095, 9, 0);
}

static void put_inflates_to_4097(struct wire *w)
{
	inflates_to(w, 4097, 9, 0);
}

static void put_inflates_to_8192(struct wire *w)
{
	inflates_to(w, 8192, 9, 0);
}

static void put_inflates_to_0(struct wire *w)
{
	inflates_to(w, 0, 9, 0);
}

static void put_zlib_cut(struct wire *w)
{
	uint8_t in[4096] = { 1, 2, 3 }, out[4200];
	uLongf len = sizeof(out);

	ck_assert_int_eq(compress2(out, &len, in, sizeof(in), 9), Z_OK);
	wire_compress_n(w, NULL, 0, (uint32_t)len - 4, out, len - 4); /* without the checksum */
}

static void put_zlib_wrong_sum(struct wire *w)
{
	uint8_t in[4096] = { 1, 2, 3 }, out[4200];
	uLongf len = sizeof(out);

	ck_assert_int_eq(compress2(out, &len, in, sizeof(in), 9), Z_OK);
	out[len - 1] ^= 1;
	wire_compress_n(w, NULL, 0, (uint32_t)len, out, len);
}

static const struct hostile_row coded_rows[] = {
	{ "a delta of 3 bytes lands", AT_RECORDS_LATER, RAW(X "\1\0\3\0\1z"), .code = 0, .caps = xbzrle },
	{ "a delta up to the last byte lands", AT_RECORDS_LATER, RAW(X "\1\0\4\xff\x1f\1z"), .code = 0,
	  .caps = xbzrle },
	{ "a delta of two pairs lands", AT_RECORDS_LATER, RAW(X "\1\0\6\0\1z\1\1z"), .code = 0, .caps = xbzrle },
	{ "a delta of 4096 bytes lands", AT_RECORDS_LATER, put_xbzrle_of_4096, .code = 0, .caps = xbzrle },
	{ "a delta of 4097 bytes", AT_RECORDS_LATER, put_xbzrle_of_4097, .code = -EPROTO, .words = "4097|XBZRLE",
	  .caps = xbzrle },
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
	{ "a pair cut behind its skip", AT_RECORDS_LATER, RAW(X "\1\0\4\0\1z\1"), .code = -EPROTO, .words = "XBZRLE",
	  .caps = xbzrle },
	{ "a delta beyond the block", AT_RECORDS_LATER, RAW(WORD("\x40", "\x60") "\1\0\3\0\1z"), .code = -EPROTO,
	  .words = HOSTILE_RAM, .caps = xbzrle },
	{ "a stored page of 4107 bytes lands", AT_RECORDS_LATER, put_stored, .code = 0, .caps = compressing },
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
	{ "a compressed page of 0 bytes inside", AT_RECORDS_LATER, put_inflates_to_0, .code = -EPROTO,
	  .words = "compress", .caps = compressing },
	{ "a compressed page of 4095 bytes inside", AT_RECORDS_LATER, put_inflates_to_4095, .code = -EPROTO,
	  .words = "compress", .caps = compressing },
	{ "a compressed page of 4097 bytes inside", AT_RECORDS_LATER, put_inflates_to_4097, .code = -EPROTO,
	  .words = "compress", .caps = compressing },
	{ "a compressed page of two pages inside", AT_RECORDS_LATER, put_inflates_to_8192, .code = -EPROTO,
	  .words = "compress", .caps = compressing },
	{ "a compressed page without its end", AT_RECORDS_LATER, put_zlib_cut, .code = -EPROTO, .words = "compress",
	  .caps = compressing },
	{ "a compressed page with a wrong checksum", AT_RECORDS_LATER, put_zlib_wrong_sum, .code = -EPROTO,
	  .words = "compress", .caps = compressing },
	{ "a compressed page beyond the block", AT_RECORDS_LATER, RAW(WORD("\x41", "\x20") "\0\0\0\4abcd"),
	  .code = -EPROTO, .words = HOSTILE_RAM, .caps = compressing },
};

#define COUNT(rows) ((int)(sizeof(rows) / sizeof((rows)[0])))

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
