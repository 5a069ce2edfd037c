/* The words of which options and addresses consist: base/parse.h. */
#include "base/parse.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/check_main.h"

#define ARRAY_COUNT(a) (sizeof(a) / sizeof((a)[0]))

TEST_CASE("parse", 4);

TEST(test_parse_u64_takes_the_whole_text_or_nothing)
{
	static const struct {
		const char *text;
		int r;
		uint64_t value;
	} rows[] = {
		{ "0", 0, 0 },
		{ "1", 0, 1 },
		{ "007", 0, 7 }, /* not octal: no user means that */
		{ "18446744073709551615", 0, UINT64_MAX },
		{ "18446744073709551616", -ERANGE, 0 },
		{ "99999999999999999999999999999999999999", -ERANGE, 0 },
		{ "0x0", 0, 0 },
		{ "0xfF", 0, 255 },
		{ "0XffffFFFFffffFFFF", 0, UINT64_MAX },
		{ "0x10000000000000000", -ERANGE, 0 },
		{ "", -EINVAL, 0 },
		{ "0x", -EINVAL, 0 },
		{ "x1", -EINVAL, 0 },
		{ "0xg", -EINVAL, 0 },
		{ "-1", -EINVAL, 0 },
		{ "+1", -EINVAL, 0 },
		{ " 1", -EINVAL, 0 },
		{ "1 ", -EINVAL, 0 },
		{ "1k", -EINVAL, 0 },
		{ "12a", -EINVAL, 0 },
		{ "1.0", -EINVAL, 0 },
		{ "99999999999999999999999999999999999999x", -EINVAL, 0 },
	};

	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		uint64_t value = 4711;

		ck_assert_msg(parse_u64(rows[i].text, &value) == rows[i].r, "'%s'", rows[i].text);
		ck_assert_msg(value == (rows[i].r ? 4711 : rows[i].value), "'%s' is %llu", rows[i].text,
		              (unsigned long long)value);
	}
}

TEST(test_parse_size_multiplies_by_its_suffix)
{
	static const struct {
		const char *text;
		int r;
		uint64_t bytes;
	} rows[] = {
		{ "0", 0, 0 },
		{ "4096", 0, 4096 },
		{ "1b", 0, 1 },
		{ "1k", 0, 1024 },
		{ "1K", 0, 1024 },
		{ "64M", 0, 64ull << 20 },
		{ "2g", 0, 2ull << 30 },
		{ "16T", 0, 16ull << 40 },
		{ "3P", 0, 3ull << 50 },
		{ "15E", 0, 15ull << 60 },
		{ "16E", -ERANGE, 0 },
		{ "18014398509481983K", 0, UINT64_MAX - 1023 },
		{ "18014398509481984K", -ERANGE, 0 },
		{ "0x10", 0, 16 },
		{ "0x10k", 0, 16384 },
		{ "0x1E", 0, 30 },
		{ "0xb", 0, 11 },
		{ "", -EINVAL, 0 },
		{ "k", -EINVAL, 0 },
		{ "1kk", -EINVAL, 0 },
		{ "1KiB", -EINVAL, 0 },
		{ "1.5G", -EINVAL, 0 },
		{ "-1k", -EINVAL, 0 },
		{ "1 k", -EINVAL, 0 },
		{ "1x", -EINVAL, 0 },
		{ "99999999999999999999999k", -ERANGE, 0 },
		{ "99999999999999999999999z", -EINVAL, 0 },
	};

	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		uint64_t bytes = 4711;

		ck_assert_msg(parse_size(rows[i].text, &bytes) == rows[i].r, "'%s'", rows[i].text);
		ck_assert_msg(bytes == (rows[i].r ? 4711 : rows[i].bytes), "'%s' is %llu", rows[i].text,
		              (unsigned long long)bytes);
	}
}

TEST(test_parse_name_is_the_place_of_the_whole_word)
{
	static const char *const names[] = { "seq", "stride", "" };

	ck_assert_int_eq(parse_name("seq", names, 3), 0);
	ck_assert_int_eq(parse_name("stride", names, 3), 1);
	ck_assert_int_eq(parse_name("", names, 3), 2);
	ck_assert_int_eq(parse_name("stride", names, 1), -EINVAL);
	ck_assert_int_eq(parse_name("stri", names, 3), -EINVAL);
	ck_assert_int_eq(parse_name("Seq", names, 3), -EINVAL);
}

TEST(test_parse_on_off_knows_eight_words)
{
	static const char *const on[] = { "on", "yes", "true", "y" };
	static const char *const off[] = { "off", "no", "false", "n" };
	static const char *const bad[] = { "", "1", "0", "ON", "on ", " on", "o", "offf", "=on" };
	bool value;

	for (size_t i = 0; i < ARRAY_COUNT(on); i++) {
		value = false;
		ck_assert_msg(parse_on_off(on[i], &value) == 0 && value, "'%s'", on[i]);
	}
	for (size_t i = 0; i < ARRAY_COUNT(off); i++) {
		value = true;
		ck_assert_msg(parse_on_off(off[i], &value) == 0 && !value, "'%s'", off[i]);
	}
	for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
		value = true;
		ck_assert_msg(parse_on_off(bad[i], &value) == -EINVAL && value, "'%s'", bad[i]);
	}
}

TEST(test_parse_uuid_is_exact_about_its_form)
{
	static const uint8_t want[16] = { 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
		                          0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef };
	static const char *const bad[] = {
		"",
		"01234567",
		"0123456789abcdef0123456789abcdef",
		"01234567-89ab-cdef-0123-456789abcde",
		"01234567-89ab-cdef-0123-456789abcdeff",
		"01234567-89ab-cdef-0123-456789abcde ",
		"01234567-89ab-cdef-0123456789abcdef",
		"0123456-789ab-cdef-0123-456789abcdef",
		"{01234567-89ab-cdef-0123-456789abcdef}",
		"g1234567-89ab-cdef-0123-456789abcdef",
		"01234567-89ab-cdef-0123-456789abcdeg",
	};
	uint8_t uuid[16];

	ck_assert_int_eq(parse_uuid("01234567-89ab-cdef-0123-456789ABCDEF", uuid), 0);
	ck_assert_mem_eq(uuid, want, 16);
	for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
		/* On the heap to its exact length, so that a reader beyond its end is seen by the sanitizers. */
		char *exact = strdup(bad[i]);

		memset(uuid, 0x5a, sizeof(uuid));
		ck_assert_msg(parse_uuid(exact, uuid) == -EINVAL, "'%s'", bad[i]);
		ck_assert_msg(uuid[0] == 0x5a && uuid[15] == 0x5a, "'%s' wrote", bad[i]);
		free(exact);
	}
}
