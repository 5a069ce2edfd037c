/* How far has a main channel got? Every prefix of real openings, and beginnings that no source has. */
#include "tests/support/check_main.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "engine/stream/opening.h"
#include "memory/block.h"

#define HEADER "QEVM\0\0\0\3"
#define CONFIG "\7\0\0\0\3abc"
#define OPEN_RP "\10\0\1\0\0"
#define PING "\10\0\2\0\4\0\0\0\1"

#define BYTES(text) (const uint8_t *)(text), sizeof(text) - 1

TEST_CASE("opening", 4);

TEST(test_opening_every_prefix_says_how_far_it_is)
{
	static const char text[] = HEADER CONFIG OPEN_RP PING "\1";
	const size_t configured = sizeof(HEADER CONFIG) - 1, whole = sizeof(text) - 1;
	struct err err = ERR_NONE;

	for (size_t n = 0; n <= whole; n++) {
		int far = opening_look((const uint8_t *)text, n, true, &err);

		ck_assert_msg(far == (n < configured ? OPENING_SHORT :
		                      n < whole      ? OPENING_SETTLED :
		                                       OPENING_DONE),
		              "%zu bytes: %d", n, far);
	}
}

TEST(test_opening_without_a_configuration_is_settled_after_the_header)
{
	struct err err = ERR_NONE;

	ck_assert_int_eq(opening_look(BYTES("QEVM\0\0\0"), false, &err), OPENING_SHORT);
	ck_assert_int_eq(opening_look(BYTES(HEADER), false, &err), OPENING_SETTLED);
	ck_assert_int_eq(opening_look(BYTES(HEADER "\4"), false, &err), OPENING_DONE);
}

TEST(test_opening_that_no_source_has_is_named)
{
	static const struct {
		const char *bytes;
		size_t len;
		const char *words;
	} rows[] = {
		{ "QEVM\0\0\0\4", 8, "stream version 4" },
		{ "QEVX\0\0\0\3", 8, "not a migration stream" },
		{ HEADER "H", 9, "configuration section expected" },
		{ HEADER "\7\0\0\1\0", 13, "256 bytes" },
		{ HEADER "\7\xff\xff\xff\xff", 13, "4294967295 bytes" },
		{ HEADER CONFIG "\2", 17, "element 0x02" },
		{ HEADER CONFIG PING "G", 26, "element 0x47" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct err err = ERR_NONE;

		ck_assert_int_eq(opening_look((const uint8_t *)rows[i].bytes, rows[i].len, true, &err), -EPROTO);
		ck_assert_msg(strstr(err.text, rows[i].words), "%s", err.text);
	}
}

/* There are no blocks here, so any name is an unknown one. */
TEST(test_opening_of_a_recovery_is_one_whole_command)
{
	static const char ask[] = "\10\0\12\0\4\3ram";
	struct ram ram;
	struct err err = ERR_NONE;

	ram_init(&ram, 12);
	for (size_t n = 0; n < sizeof(ask) - 1; n++)
		ck_assert_int_eq(opening_look_recovery((const uint8_t *)ask, n, &ram, &err), OPENING_SHORT);
	ck_assert_int_eq(opening_look_recovery(BYTES(ask), &ram, &err), -EPROTO);
	ck_assert_msg(strstr(err.text, "unknown block 'ram'"), "%s", err.text);
	ck_assert_int_eq(opening_look_recovery(BYTES("\10\0\11\0\0"), &ram, &err), OPENING_DONE);
	ck_assert_int_eq(opening_look_recovery(BYTES(PING), &ram, &err), -EPROTO);
	ck_assert_int_eq(opening_look_recovery(BYTES("\10\0\12\0\1\0"), &ram, &err), -EPROTO);
	ck_assert_int_eq(opening_look_recovery(BYTES("Q"), &ram, &err), -EPROTO);
	ram_fini(&ram);
}
