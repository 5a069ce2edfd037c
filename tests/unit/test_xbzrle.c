/* A page as its difference to what is there: doc/wire/stream.md 4.3 */
#include "engine/ram/xbzrle.h"

#include "base/err.h"
#include "tests/support/check_main.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define PAGE_BYTES 4096u
/* What a string literal holds without its NUL: deltas have zeros in them. */
#define DELTA(text) .delta = (const uint8_t *)(text), .delta_bytes = sizeof(text) - 1

static uint8_t old_byte(size_t at)
{
	return (uint8_t)(at * 7 + at / 256);
}

static void fill_old(uint8_t page[static PAGE_BYTES])
{
	for (size_t i = 0; i < PAGE_BYTES; i++)
		page[i] = old_byte(i);
}

TEST_CASE("good", 10);

/* What is not named keeps its content. */
static const struct good {
	const char *what;
	const uint8_t *delta;
	size_t delta_bytes;
	struct change {
		size_t at, bytes;
		const char *text;
	} changes[3];
} goods[] = {
	{ "the first byte", DELTA("\x00\x01X"), { { 0, 1, "X" } } },
	{ "after a short run",
	  DELTA("\x05\x03"
	        "abc"),
	  { { 5, 3, "abc" } } },
	{ "the longest run of one byte", DELTA("\x7f\x01X"), { { 127, 1, "X" } } },
	{ "the shortest run of two bytes", DELTA("\x80\x01\x01X"), { { 128, 1, "X" } } },
	{ "one that need not have two bytes", DELTA("\x85\x00\x01X"), { { 5, 1, "X" } } },
	{ "the last byte", DELTA("\xff\x1f\x01X"), { { 4095, 1, "X" } } },
	{ "three changes",
	  DELTA("\x01\x01"
	        "a\x02\x02"
	        "bc\x80\x08\x01"
	        "d"),
	  { { 1, 1, "a" }, { 4, 2, "bc" }, { 6 + 1024, 1, "d" } } },
};

TEST_ROWS(test_xbzrle_changes_what_the_delta_names, goods)
{
	const struct good *row = &goods[_i];
	uint8_t page[PAGE_BYTES], want[PAGE_BYTES];
	struct err err = ERR_NONE;

	fill_old(page);
	fill_old(want);
	for (unsigned i = 0; i < 3 && row->changes[i].text; i++)
		memcpy(want + row->changes[i].at, row->changes[i].text, row->changes[i].bytes);
	ck_assert_msg(xbzrle_apply(page, PAGE_BYTES, row->delta, row->delta_bytes, &err) == 0, "%s: %s", row->what,
	              err.text);
	ck_assert_msg(memcmp(page, want, PAGE_BYTES) == 0, "%s", row->what);
}

TEST(test_xbzrle_changes_all_of_a_page)
{
	uint8_t page[PAGE_BYTES], delta[3 + PAGE_BYTES] = { 0x00, 0x80, 0x20 };
	struct err err = ERR_NONE;

	fill_old(page);
	for (size_t i = 0; i < PAGE_BYTES; i++)
		delta[3 + i] = (uint8_t)~old_byte(i);
	ck_assert_int_eq(xbzrle_apply(page, PAGE_BYTES, delta, sizeof(delta), &err), 0);
	ck_assert_int_eq(memcmp(page, delta + 3, PAGE_BYTES), 0);
}

TEST_CASE("bad", 10);

static const struct bad {
	const char *what;
	const uint8_t *delta;
	size_t delta_bytes;
	unsigned at; /* the length that is wrong */
} bads[] = {
	{ "half a length", DELTA("\x00"), 0 },
	{ "a run without a copy", DELTA("\x05\x80"), 1 },
	{ "a third byte of a length", DELTA("\x80\x80\x01\x01X"), 0 },
	{ "a third byte of a copy's length", DELTA("\x01\x80\x80\x01X"), 1 },
	{ "a run over the end of the page", DELTA("\x81\x20\x01X"), 0 },
	{ "a run to the end, and a copy", DELTA("\x80\x20\x01X"), 2 },
	{ "a copy over the end of the page", DELTA("\xff\x1f\x02XY"), 2 },
	{ "a second run over the end", DELTA("\xf0\x1f\x01X\x10\x01Y"), 4 },
	{ "an empty copy", DELTA("\x05\x00\x01X"), 1 },
	{ "an empty run after the first", DELTA("\x00\x01X\x00\x01Y"), 3 },
	{ "a copy of more than there is",
	  DELTA("\x00\x05"
	        "abcd"),
	  1 },
	{ "something left over", DELTA("\x00\x01XY"), 3 },
};

TEST_ROWS(test_xbzrle_refuses_a_bad_delta_and_leaves_the_page, bads)
{
	const struct bad *row = &bads[_i];
	uint8_t page[PAGE_BYTES + 16], want[PAGE_BYTES + 16];
	struct err err = ERR_NONE;
	char at[32];

	memset(page, 0xee, sizeof(page));
	fill_old(page);
	memcpy(want, page, sizeof(page));
	ck_assert_msg(xbzrle_apply(page, PAGE_BYTES, row->delta, row->delta_bytes, &err) == -EPROTO, "%s", row->what);
	ck_assert_msg(memcmp(page, want, sizeof(page)) == 0, "%s", row->what);
	snprintf(at, sizeof(at), "is wrong at byte %u", row->at);
	ck_assert_msg(strstr(err.text, at), "%s: '%s', and not '%s'", row->what, err.text, at);
}

/* Where a page is large enough for it, too. */
TEST(test_xbzrle_refuses_a_length_of_three_bytes)
{
	static uint8_t page[1u << 16];
	const uint8_t delta[] = { 0x80, 0x80, 0x01, 'X' };
	struct err err = ERR_NONE;

	ck_assert_int_eq(xbzrle_apply(page, sizeof(page), delta, sizeof(delta), &err), -EPROTO);
	ck_assert_uint_eq(page[0x80 << 7], 0);
}

TEST(test_xbzrle_refuses_an_empty_delta)
{
	uint8_t page[PAGE_BYTES] = { 0 };
	struct err err = ERR_NONE;

	ck_assert_int_eq(xbzrle_apply(page, PAGE_BYTES, page, 0, &err), -EPROTO);
	ck_assert_ptr_nonnull(strstr(err.text, "empty"));
}
