/* How much dividing device state makes us hold, besides the state itself. */
#include "tests/support/check_main.h"
#include "tests/support/held.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/be.h"
#include "base/err.h"
#include "engine/devices/split.h"

#define BYTES_MAX (24u << 20)

static uint8_t *buf;
static size_t bytes;
static struct err err;

static void begin(void)
{
	buf = malloc(BYTES_MAX + 64);
	ck_assert_ptr_nonnull(buf);
	bytes = 0;
}

static void put(const void *p, size_t n)
{
	memcpy(buf + bytes, p, n);
	bytes += n;
}

static void put_footer(uint32_t id)
{
	uint8_t footer[5] = { 0x7e };

	be32_store(footer + 1, id);
	put(footer, sizeof(footer));
}

/* "n", of the instance that the number is. */
static void put_section(uint32_t id, uint32_t instance)
{
	uint8_t head[15] = { 0x04, [5] = 1, 'n' };

	be32_store(head + 1, id);
	be32_store(head + 7, instance);
	put(head, sizeof(head));
	bytes -= 1;
	buf[bytes++] = 1; /* version */
}

static void put_command(uint16_t command)
{
	uint8_t c[5] = { 0x08 };

	be16_store(c + 1, command);
	put(c, sizeof(c));
}

static int divide(enum split_mode mode, struct split_result *r)
{
	struct split_opts opts = { .footers = true };

	err = ERR_NONE;
	return split_by_footers(r, buf, bytes, mode, &opts, &err);
}

TEST_CASE("split", 120);

/* Ends of sections, and nothing else: each is plausible, since a section follows. */
TEST_EACH(test_a_package_of_footers_holds_little, 2)
{
	struct split_result r = SPLIT_RESULT_NONE;
	struct held held;
	int e;

	begin();
	put_command(4);
	/* Ids that are many, so that each is a group of its own; or one, which is one group. */
	for (uint32_t i = 0; bytes < BYTES_MAX; i++) {
		put_section(_i ? i & 0xffffff : 7, i);
		put_footer(_i ? i & 0xffffff : 7);
	}
	put_command(5);
	held_begin(&held);
	e = divide(SPLIT_PACKAGE, &r);
	ck_assert_msg(e == -E2BIG, "%d: %s", e, err.text);
	ck_assert_ptr_nonnull(strstr(err.text, "look like the end of a section"));
	held_within(&held, SPLIT_BYTES_MAX, _i ? "footers of many ids" : "footers of one id");
	printf("of a package of %zu bytes\n", bytes);
	free(buf);
}

/* As many sections as there may be, and as many false ends. */
TEST_EACH(test_as_many_sections_as_possible_hold_little, 2)
{
	enum split_mode mode = _i ? SPLIT_PACKAGE : SPLIT_TAIL;
	struct split_result r = SPLIT_RESULT_NONE;
	struct held held;
	int e;

	begin();
	if (mode == SPLIT_PACKAGE)
		put_command(4);
	for (uint32_t i = 0; i < SPLIT_SECTIONS_MAX; i++) {
		put_section(i, i);
		/* In its body, the ends of others. */
		for (uint32_t k = 0; k < 3 && i > 0; k++) {
			put_footer(SPLIT_SECTIONS_MAX + 3 * i + k);
			put_section(i, i);
		}
		put_footer(i);
	}
	if (mode == SPLIT_PACKAGE)
		put_command(5);
	else
		put("", 1);
	held_begin(&held);
	e = divide(mode, &r);
	ck_assert_msg(e == 0, "%d: %s", e, err.text);
	ck_assert_uint_eq(r.section_count, SPLIT_SECTIONS_MAX);
	held_within(&held, SPLIT_BYTES_MAX, _i ? "a package of 65536 sections" : "a tail of 65536 sections");
	split_result_fini(&r);
	free(buf);
}
