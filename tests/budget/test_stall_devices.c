/* Device state that is designed to be hard to divide: packages of footers, states that drip, large descriptions. */
#include "tests/support/check_main.h"
#include "tests/support/roomy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB (1ull << 20)

/* As many as may be, or a bit less: SPLIT_FEET_MAX of 20 bytes and some. */
#define FOOTERS_BYTES (5 * MIB)

/* 4 to 25 ns are measured. */
#define NS_PER_BYTE_MAX 60

static const char *const postcopy[] = { "postcopy-ram", NULL };
static const char *const suppressed[] = { "suppress-vmdesc", "on", NULL };

/* A footer of one of 65536 ids, and the head of a section of another: all of them fit, and none leads to the end. */
static void put_footers(struct wire *w, size_t bytes)
{
	size_t end = w->len + bytes;

	srand(1);
	while (w->len < end) {
		wire_u8(w, WIRE_FULL);
		wire_be32(w, 0x10000 | ((uint32_t)rand() & 0xffff));
		wire_str8(w, "x");
		wire_be32(w, (uint32_t)rand() & 0xffffff);
		wire_be32(w, 1);
		wire_u8(w, WIRE_FOOTER);
		wire_be32(w, 0x10000 | ((uint32_t)rand() & 0xffff));
	}
}

static void run(struct roomy *r, struct wire *w, const struct land_opts *o, const char *what)
{
	roomy_begin(r);
	roomy_land(r, w, o);
	printf("%s: %d, %s\n", what, r->result, r->error);
	stall_check(&r->seen, what);
	stall_check_cpu(&r->seen, what, w->len, NS_PER_BYTE_MAX);
	wire_fini(w);
	roomy_end(r);
}

TEST_CASE("devices", 120);

TEST(test_a_package_of_footers_does_not_hold_up_others)
{
	static const struct land_opts o = { .caps = postcopy, .return_path = true, .end = SOURCE_END_CLOSE };
	struct roomy r = { .bytes = 16 * MIB, .backing = ROOMY_MEMFD, .guest_view = true };
	struct wire_block *list = roomy_names(1, 4, MIB);
	struct wire w = { 0 };
	size_t package;

	stall_need_figures();
	roomy_head(&w, true);
	wire_advise(&w, WIRE_TPAGE_BYTES, WIRE_TPAGE_BYTES);
	roomy_ram(&w, list, 1);
	package = wire_package_begin(&w);
	wire_listen(&w);
	put_footers(&w, FOOTERS_BYTES);
	wire_fill(&w, WIRE_FOOTER, 59 * MIB); /* each of them looked at, and none has an id that fits */
	wire_u8(&w, 0xff);                    /* after the last one nothing fits */
	wire_run(&w);
	wire_package_end(&w, package);
	run(&r, &w, &o, "a package of footers");
	ck_assert_msg(strstr(r.error, "package"), "%s", r.error);
	free(list);
}

/* After each pause the state looks whole: dividing it again must not cost what all of it costs. */
TEST(test_a_state_that_drips_is_not_divided_after_every_byte)
{
	struct source_pause pauses[30];
	const struct land_opts o = { .params = suppressed,
		                     .return_path = true,
		                     .pauses = pauses,
		                     .pause_count = sizeof(pauses) / sizeof(pauses[0]),
		                     .end = SOURCE_END_CLOSE };
	struct wire_block *list = roomy_names(1, 4, MIB);
	struct roomy r = { .bytes = 16 * MIB };
	struct wire w = { 0 };

	stall_need_figures();
	roomy_head(&w, true);
	roomy_ram(&w, list, 1);
	roomy_ram_end(&w);
	put_footers(&w, FOOTERS_BYTES);
	for (unsigned i = 0; i < o.pause_count; i++) {
		wire_footer(&w, 7);
		wire_eof(&w);
		pauses[i] = (struct source_pause){ .off = w.len, .ms = i < 2 ? 500 : 70 };
	}
	run(&r, &w, &o, "a state that drips");
	free(list);
}

/* Eight megabytes of description: the most that is taken. */
TEST(test_a_large_description_does_not_hold_up_others)
{
	static const struct land_opts o = { .return_path = false };
	struct wire_block *list = roomy_names(1, 4, MIB);
	struct roomy r = { .bytes = 16 * MIB };
	struct wire w = { 0 };
	char name[32];

	stall_need_figures();
	roomy_head(&w, false);
	roomy_ram(&w, list, 1);
	roomy_ram_end(&w);
	for (unsigned i = 0; i < 40000; i++) {
		const struct wire_device device = { .name = name, .instance_id = i, .data = "abcd", .bytes = 4 };

		snprintf(name, sizeof(name), "device %u", i % 7);
		wire_device(&w, 1000 + i, &device);
	}
	wire_eof(&w);
	wire_vmdesc(&w);
	run(&r, &w, &o, "40000 devices");
	ck_assert_int_eq(r.result, 0);
	ck_assert_uint_eq(r.devices, 40000);
	free(list);
}

/* Every eighth byte may begin a description, and none is one. */
TEST(test_false_descriptions_do_not_hold_up_others)
{
	static const struct land_opts o = { .end = SOURCE_END_CLOSE };
	struct wire_block *list = roomy_names(1, 4, MIB);
	struct roomy r = { .bytes = 16 * MIB };
	struct wire w = { 0 };

	stall_need_figures();
	roomy_head(&w, false);
	roomy_ram(&w, list, 1);
	roomy_ram_end(&w);
	wire_section(&w, WIRE_FULL, 5, "x", 0, 1);
	for (unsigned i = 0; i < 2000000; i++)
		wire_bytes(&w, "\0\6\0\0\0\2{}", 8);
	run(&r, &w, &o, "false descriptions");
	ck_assert_int_lt(r.result, 0);
	free(list);
}
