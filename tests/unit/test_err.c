/* What an error says: base/err.h, and base/text.h for what it quotes. */
#include "base/err.h"
#include "base/text.h"
#include "tests/support/check_main.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- err ----------------------------------------------------------------------------------------------------- */

TEST_CASE("err", 4);

TEST(test_err_set_returns_its_code_and_keeps_the_text)
{
	struct err err = ERR_NONE;

	ck_assert_int_eq(err_set(&err, -EPROTO, "block '%s' has no offset 0x%x", "pc.ram", 0x80), -EPROTO);
	ck_assert_int_eq(err.code, -EPROTO);
	ck_assert_str_eq(err.text, "block 'pc.ram' has no offset 0x80");
}

TEST(test_err_up_puts_context_in_front)
{
	struct err err = ERR_NONE;

	err_set(&err, -EPROTO, "cause");
	ck_assert_int_eq(err_up(&err, -EPROTO, "section '%s'", "ram"), -EPROTO);
	ck_assert_int_eq(err_up(&err, -EPROTO, "incoming"), -EPROTO);
	ck_assert_str_eq(err.text, "incoming: section 'ram': cause");
	ck_assert_int_eq(err.code, -EPROTO);
}

TEST(test_err_cancelled_never_has_a_text)
{
	struct err err = ERR_NONE;

	ck_assert_int_eq(err_set(&err, -ECANCELED, "told"), -ECANCELED);
	ck_assert_str_eq(err.text, "");
	ck_assert_int_eq(err_up(&err, -ECANCELED, "more"), -ECANCELED);
	ck_assert_str_eq(err.text, "");
}

TEST(test_err_that_overflows_keeps_the_cause_and_the_newest_context)
{
	static const char cause[] = "the cause at the end";
	struct err err = ERR_NONE;
	size_t len;

	err_set(&err, -EIO, "%s", cause);
	for (int i = 0; i < 100; i++) {
		err_up(&err, -EIO, "context %d", i);
		len = strlen(err.text);
		ck_assert_uint_lt(len, sizeof(err.text));
		ck_assert_str_eq(err.text + len - strlen(cause), cause);
		ck_assert_int_eq(strncmp(err.text, "context ", 8), 0);
		ck_assert_int_eq(atoi(err.text + 8), i);
	}
	/* It is full: what was dropped was dropped because it had to be. */
	ck_assert_uint_eq(len, sizeof(err.text) - 1);
}

TEST(test_err_context_that_just_fits_loses_nothing)
{
	struct err err = ERR_NONE;
	char cause[sizeof(err.text)], want[sizeof(err.text)];

	/* "up: " and the cause fill the text to its last byte. */
	memset(cause, 'c', sizeof(cause));
	cause[sizeof(err.text) - 1 - strlen("up: ")] = '\0';
	err_set(&err, -EIO, "%s", cause);
	err_up(&err, -EIO, "up");
	memcpy(want, "up: ", 4);
	strcpy(want + 4, cause);
	ck_assert_str_eq(err.text, want);
	err_up(&err, -EIO, "x");
	ck_assert_uint_eq(strlen(err.text), sizeof(err.text) - 1);
	ck_assert_int_eq(strncmp(err.text, "x: ", 3), 0);
}

TEST(test_err_long_context_is_cut_not_the_cause)
{
	char context[1000];
	struct err err = ERR_NONE;

	memset(context, 'x', sizeof(context) - 1);
	context[sizeof(context) - 1] = '\0';
	err_set(&err, -EIO, "cause");
	err_up(&err, -EIO, "%s", context);
	ck_assert_ptr_nonnull(strstr(err.text, "x: cause"));
	ck_assert_uint_lt(strlen(err.text), sizeof(err.text));
}

TEST(test_err_set_text_that_is_too_long_is_cut)
{
	struct err err = ERR_NONE;

	err_set(&err, -EIO, "%2000s", "end");
	ck_assert_uint_eq(strlen(err.text), sizeof(err.text) - 1);
}

TEST(test_err_name_is_the_symbol)
{
	ck_assert_str_eq(err_name(-EPROTO), "EPROTO");
	ck_assert_ptr_nonnull(err_name(-100000));
}

/* ---- text ---------------------------------------------------------------------------------------------------- */

TEST_CASE("text", 4);

TEST(test_text_quote_escapes_what_is_not_plain)
{
	char buf[TEXT_QUOTE_BYTES];

	ck_assert_str_eq(text_quote(buf, "pc.ram ~", 8), "pc.ram ~");
	ck_assert_str_eq(text_quote(buf, "a\n\0\x7f\xff", 5), "a\\x0a\\x00\\x7f\\xff");
	ck_assert_str_eq(text_quote(buf, "'\"\\", 3), "\\x27\\x22\\x5c");
	ck_assert_str_eq(text_quote(buf, "", 0), "");
}

/* @len times @byte, each of which becomes @unit: all of them, or as many as fit and dots. */
static void assert_quoted_or_cut(int byte, size_t len, const char *unit)
{
	char *buf = malloc(TEXT_QUOTE_BYTES); /* on the heap, where a sanitizer sees each byte too many */
	size_t unit_len = strlen(unit), units = 0;
	unsigned char bytes[300];

	ck_assert_ptr_nonnull(buf);
	memset(bytes, byte, sizeof(bytes));
	text_quote(buf, bytes, len);
	ck_assert_uint_lt(strlen(buf), TEXT_QUOTE_BYTES);
	while (strncmp(buf + units * unit_len, unit, unit_len) == 0)
		units++;
	ck_assert_str_eq(buf + units * unit_len, units == len ? "" : "...");
	/* Cut only for want of room. */
	ck_assert(units == len || strlen(buf) + unit_len + strlen("...") >= TEXT_QUOTE_BYTES - 1);
	free(buf);
}

TEST(test_text_quote_of_any_length_fits_and_is_cut_with_dots)
{
	for (size_t len = 0; len <= 300; len++) {
		assert_quoted_or_cut('a', len, "a");
		assert_quoted_or_cut(0xff, len, "\\xff");
	}
}

TEST(test_text_quote_escape_at_any_place_fits)
{
	unsigned char bytes[TEXT_QUOTE_BYTES + 20];
	char *buf = malloc(TEXT_QUOTE_BYTES);

	ck_assert_ptr_nonnull(buf);
	for (size_t plain = 0; plain <= TEXT_QUOTE_BYTES; plain++) {
		memset(bytes, 'a', plain);
		memset(bytes + plain, 0xff, sizeof(bytes) - plain);
		text_quote(buf, bytes, sizeof(bytes));
		ck_assert_uint_lt(strlen(buf), TEXT_QUOTE_BYTES);
		ck_assert_str_eq(buf + strlen(buf) - 3, "...");
	}
	free(buf);
}

TEST(test_text_quote_in_an_argument_list)
{
	char line[64];

	snprintf(line, sizeof(line), "'%s' '%s'", TEXT_QUOTE("a\t", 2), TEXT_QUOTE("b", 1));
	ck_assert_str_eq(line, "'a\\x09' 'b'");
}

TEST(test_text_defuse_leaves_only_what_is_printable)
{
	char line[40] = "plain 'and' \"quoted\" \\x41", all[TEXT_LINE_BYTES];

	ck_assert(!text_defuse(line, sizeof(line)));
	ck_assert_str_eq(line, "plain 'and' \"quoted\" \\x41");
	strcpy(line, "a\nb\tc\x1b[2J\x80");
	ck_assert(text_defuse(line, sizeof(line)));
	ck_assert_str_eq(line, "a\\x0ab\\x09c\\x1b[2J\\x80");
	/* The longest there is, and each escape at its end: what does not fit goes. */
	for (size_t bytes = 1; bytes <= sizeof(all); bytes++) {
		memset(all, 0xff, sizeof(all));
		all[bytes - 1] = '\0';
		text_defuse(all, bytes);
		ck_assert_uint_eq(strlen(all), (bytes - 1) / 4 * 4);
		ck_assert(bytes == sizeof(all) || (uint8_t)all[bytes] == 0xff);
	}
}

TEST(test_err_is_printable_whatever_it_holds)
{
	struct err err = ERR_NONE;

	err_set(&err, -EPROTO, "block '%s'", "\x1b[31m\n");
	err_up(&err, -EPROTO, "section '%s'", "\r\x07");
	ck_assert_str_eq(err.text, "section '\\x0d\\x07': block '\\x1b[31m\\x0a'");
}
