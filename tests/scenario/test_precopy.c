/* Honest streams without postcopy: all of RAM lands, however it is sent (doc/wire/stream.md 4). */
#include "tests/support/check_main.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/be.h"
#include "tests/support/scene.h"

#define PAGE ((uint64_t)WIRE_TPAGE_BYTES)

static const struct land_opts plain = { 0 };

/* ---- what pages hold --------------------------------------------------------------------------------------- */

static enum wire_how fill_zero(void *opaque, unsigned block, uint64_t tpage, unsigned round, uint8_t *page)
{
	(void)opaque;
	(void)block;
	(void)tpage;
	(void)page;
	return round ? WIRE_SEND_NOT : WIRE_SEND_ZERO;
}

/* Content in round 0, zeros in round 1. */
static enum wire_how fill_then_zero(void *opaque, unsigned block, uint64_t tpage, unsigned round, uint8_t *page)
{
	if (round)
		return WIRE_SEND_ZERO;
	wire_fill_default(opaque, block, tpage * 4, 0, page);
	return WIRE_SEND_PAGE;
}

/* Some bytes of each page change in each round, the last page by its last byte only. */
static enum wire_how fill_deltas(void *opaque, unsigned block, uint64_t tpage, unsigned round, uint8_t *page)
{
	wire_fill_default(opaque, block, tpage * 4, 0, page);
	for (unsigned r = 1; r <= round; r++) {
		page[0] ^= tpage % 2 ? (uint8_t)r : 0;
		memset(page + 100 + r * 300, (int)(0x80 + r), 1 + tpage * 20);
		page[PAGE - 1] = (uint8_t)r;
	}
	return round ? WIRE_SEND_XBZRLE : WIRE_SEND_PAGE;
}

static enum wire_how fill_compressed(void *opaque, unsigned block, uint64_t tpage, unsigned round, uint8_t *page)
{
	enum wire_how how = wire_fill_default(opaque, block, tpage, round, page);

	if (tpage % 2)
		memset(page + 64, (int)tpage, PAGE - 64); /* one that compresses well, beside those that do not */
	return how == WIRE_SEND_PAGE && tpage % 5 ? WIRE_SEND_COMPRESS : how;
}

/* Every page in every round. */
static enum wire_how fill_all(void *opaque, unsigned block, uint64_t tpage, unsigned round, uint8_t *page)
{
	wire_fill_default(opaque, block, tpage * 12, 0, page);
	page[0] = (uint8_t)round;
	return WIRE_SEND_PAGE;
}

/* ---- ways to send ------------------------------------------------------------------------------------------ */

static void lands(const struct honest_opts *opts, const struct land_opts *land_opts, enum emb_backing backing)
{
	struct scene s;

	scene_begin(&s, NULL);
	wire_honest(&s.wire, opts, &s.image);
	for (unsigned i = 0; i < s.image.block_count; i++)
		embedder_add(&s.e, s.image.blocks[i].name, s.image.blocks[i].bytes, backing);
	scene_land(&s, land_opts);
	scene_check_landed(&s);
	scene_end(&s);
}

static const char *const footers_off[] = { "send-section-footer", "off", NULL };
static const char *const configuration_off[] = { "send-configuration", "off", NULL };

static const struct {
	const char *what;
	struct honest_opts sent;
	struct land_opts here;
	enum emb_backing backing;
} ways[] = {
	{ .what = "every page" },
	{ .what = "one round", .sent = { .rounds = 1 } },
	{ .what = "of several rounds the last write wins", .sent = { .rounds = 5, .fill = fill_all } },
	{ .what = "the block is named in every record", .sent = { .name_every_page = true, .rounds = 3 } },
	{ .what = "SWITCHOVER_START", .sent = { .switchover_start = true, .machine = "pc-i440fx-10.0" } },
	{ .what = "a zero page over earlier content", .sent = { .fill = fill_then_zero } },
	{ .what = "a zero page over earlier content, anonymous",
	  .sent = { .fill = fill_then_zero },
	  .backing = EMB_ANON },
	{ .what = "anonymous memory", .sent = { .rounds = 3 }, .backing = EMB_ANON },
	{ .what = "no footers: split by the description",
	  .sent = { .no_footers = true, .rounds = 3 },
	  .here = { .params = footers_off } },
	{ .what = "no configuration where none is expected",
	  .sent = { .no_config = true },
	  .here = { .params = configuration_off } },
	{ .what = "over a pipe", .here = { .kind = SOURCE_PIPE } },
};

TEST_CASE("ways", 120);

TEST_ROWS(test_all_of_an_honest_stream_lands, ways)
{
	printf("%s\n", ways[_i].what);
	lands(&ways[_i].sent, &ways[_i].here, ways[_i].backing);
}

TEST(test_eight_blocks_with_long_and_short_names_land)
{
	char longest[256];
	struct wire_block blocks[8];
	char names[8][16];

	memset(longest, 'n', 255);
	longest[255] = 0;
	for (unsigned i = 0; i < 8; i++) {
		snprintf(names[i], sizeof(names[i]), "m%u", i);
		blocks[i] = (struct wire_block){ .name = i == 3 ? longest : names[i], .bytes = (1 + i) * PAGE };
	}
	blocks[5].name = "/"; /* one byte, and not a file name */
	lands(&(struct honest_opts){ .blocks = blocks, .block_count = 8 }, &plain, EMB_MEMFD);
}

TEST(test_delivery_in_pieces_of_any_size_changes_nothing)
{
	static const size_t sizes[] = { 2, 3, 7, 63, 4095, 4096, 4097, 65536 };

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		lands(&(struct honest_opts){ .return_path = true },
		      &(struct land_opts){ .return_path = true, .chunk_bytes = sizes[i] }, EMB_MEMFD);
}

TEST(test_delivery_byte_by_byte_changes_nothing)
{
	struct scene s;
	struct pump p;
	int fd;

	scene_begin(&s, &(struct honest_opts){ .return_path = true });
	fd = pump_open(&p, &s.wire);
	p.chunk_bytes = 1;
	land_pump(&s.e, &p, fd, &(struct land_opts){ .return_path = true, .deadline_ms = 60000 }, UINT32_MAX, NULL);
	scene_check_landed(&s);
	scene_end(&s);
}

TEST(test_pauses_at_element_borders_change_nothing)
{
	static const char *const where[] = { "configuration", "START", "record", "PART",  "END",
		                             "FULL",          "body",  "EOF",    "vmdesc" };
	struct source_pause pauses[10];
	unsigned count = sizeof(where) / sizeof(where[0]);
	struct scene s;

	scene_begin(&s, &(struct honest_opts){ .return_path = true });
	for (unsigned i = 0; i < count; i++)
		pauses[i] = (struct source_pause){ .off = wire_find(&s.wire, where[i], 0), .ms = 20 };
	pauses[count] = (struct source_pause){ .off = s.wire.len - 1, .ms = 20 };
	scene_land(&s, &(struct land_opts){ .return_path = true, .pauses = pauses, .pause_count = count + 1 });
	scene_check_landed(&s);
	scene_end(&s);
}

/* ---- kinds of pages ---------------------------------------------------------------------------------------- */

TEST_CASE("pages", 60);

TEST(test_zero_pages_never_touch_fresh_memory)
{
	struct stat before, after;
	struct scene s;

	scene_begin(&s, &(struct honest_opts){ .fill = fill_zero });
	ck_assert_int_eq(fstat(s.e.blocks[0].fd, &before), 0);
	scene_land(&s, &plain);
	ck_assert_int_eq(fstat(s.e.blocks[0].fd, &after), 0);
	ck_assert_int_eq(after.st_blocks, before.st_blocks); /* the canaries only */
	scene_check_landed(&s);
	ck_assert_uint_eq(s.e.stats.zero_pages, 20);
	scene_end(&s);
}

TEST(test_zero_pages_never_touch_fresh_anonymous_memory)
{
	unsigned char resident[16];
	struct emb_block *b;
	struct scene s;

	scene_begin(&s, NULL);
	wire_honest(&s.wire, &(struct honest_opts){ .fill = fill_zero }, &s.image);
	b = embedder_add(&s.e, "pc.ram", 16 * PAGE, EMB_ANON);
	embedder_add(&s.e, s.image.blocks[1].name, 4 * PAGE, EMB_ANON);
	scene_land(&s, &plain);
	ck_assert_int_eq(mincore(b->host, 16 * PAGE, resident), 0);
	for (unsigned i = 0; i < 16; i++)
		ck_assert_msg(!(resident[i] & 1), "page %u was touched", i);
	scene_check_landed(&s);
	scene_end(&s);
}

TEST(test_in_dirty_memory_zero_pages_are_written_and_unsent_pages_are_kept)
{
	struct emb_block *b;
	struct scene s;

	scene_begin(&s, NULL);
	wire_header(&s.wire);
	wire_config(&s.wire, "pc-i440fx-7.2");
	wire_section(&s.wire, WIRE_START, 2, "ram", 0, 4);
	wire_mem_size(&s.wire, wire_standard_blocks, 1);
	wire_ram_end(&s.wire, 2);
	wire_part(&s.wire, WIRE_END, 2);
	wire_zero(&s.wire, "pc.ram", 3 * PAGE, 0);
	wire_ram_end(&s.wire, 2);
	wire_globalstate(&s.wire, 9, "running");
	wire_eof(&s.wire);
	wire_vmdesc(&s.wire);
	b = embedder_add(&s.e, "pc.ram", 16 * PAGE, EMB_MEMFD);
	b->dirty = true;
	ck_assert_msg(scene_land(&s, &plain) == 0, "%s", s.e.error);
	for (unsigned i = 0; i < 16; i++)
		for (unsigned k = 0; k < PAGE; k++)
			ck_assert_uint_eq(b->host[i * PAGE + k], i == 3 ? 0 : EMB_PREFILL);
	scene_end(&s);
}

TEST(test_xbzrle_deltas_are_applied)
{
	static const char *const caps[] = { "xbzrle", NULL };
	struct scene s;

	scene_begin(&s, &(struct honest_opts){ .rounds = 6, .fill = fill_deltas });
	ck_assert_uint_gt(s.image.xbzrle_records, 20);
	scene_land(&s, &(struct land_opts){ .caps = caps });
	scene_check_landed(&s);
	ck_assert_uint_eq(s.e.stats.xbzrle_pages, s.image.xbzrle_records);
	scene_end(&s);
}

TEST(test_compressed_pages_are_inflated)
{
	static const char *const caps[] = { "compress", NULL };
	struct scene s;

	scene_begin(&s, &(struct honest_opts){ .rounds = 3, .fill = fill_compressed });
	ck_assert_uint_gt(s.image.compress_records, 10);
	scene_land(&s, &(struct land_opts){ .caps = caps });
	scene_check_landed(&s);
	ck_assert_uint_eq(s.e.stats.compressed_pages, s.image.compress_records);
	scene_end(&s);
}

/* ---- kinds of memory --------------------------------------------------------------------------------------- */

TEST_CASE("memory", 60);

TEST(test_a_resizable_block_takes_a_shorter_length)
{
	struct emb_block *b;
	struct scene s;

	scene_begin(&s, NULL);
	wire_honest(&s.wire, &(struct honest_opts){ 0 }, &s.image);
	b = embedder_add(&s.e, "pc.ram", 64 * PAGE, EMB_MEMFD);
	b->resizable = true;
	embedder_add(&s.e, s.image.blocks[1].name, 4 * PAGE, EMB_MEMFD);
	scene_land(&s, &plain);
	scene_check_landed(&s);
	ck_assert_uint_eq(b->said_bytes, 16 * PAGE);
	for (uint64_t i = 16 * PAGE; i < 64 * PAGE; i++)
		ck_assert_uint_eq(b->host[i], 0);
	scene_end(&s);
}

TEST(test_the_descriptor_of_a_block_may_be_closed_after_the_call)
{
	struct scene s;

	scene_begin(&s, &(struct honest_opts){ .rounds = 3 });
	s.e.close_fds = true;
	scene_land(&s, &plain);
	ck_assert_int_eq(s.e.blocks[0].fd, -1);
	scene_check_landed(&s);
	scene_end(&s);
}

TEST(test_each_block_is_asked_for_once_with_its_length)
{
	struct scene s;

	scene_begin(&s, &(struct honest_opts){ .rounds = 3 });
	scene_land(&s, &plain);
	for (unsigned i = 0; i < s.e.block_count; i++) {
		ck_assert_uint_eq(s.e.blocks[i].asked, 1);
		ck_assert_uint_eq(s.e.blocks[i].said_bytes, s.image.blocks[i].bytes);
		ck_assert_uint_eq(s.e.blocks[i].said_page_bytes, 0);
	}
	scene_end(&s);
}

TEST(test_the_numbers_are_those_of_the_stream)
{
	struct scene s;

	scene_begin(&s, &(struct honest_opts){ .rounds = 3 });
	scene_land(&s, &plain);
	scene_check_landed(&s);
	ck_assert_int_eq(s.e.stats.state, INM_STATE_COMPLETED);
	ck_assert_uint_eq(s.e.stats.main_bytes, s.wire.len);
	ck_assert_uint_eq(s.e.stats.ram_bytes, 20 * PAGE);
	ck_assert_uint_eq(s.e.stats.page_bytes, PAGE);
	ck_assert_uint_eq(s.e.stats.normal_pages, s.image.page_records);
	ck_assert_uint_eq(s.e.stats.zero_pages, s.image.zero_records);
	ck_assert_uint_eq(s.e.stats.received_pages, 20);
	ck_assert_uint_eq(s.e.stats.remaining_pages, 0);
	ck_assert_uint_eq(s.e.stats.ram_blocks, 2);
	ck_assert_uint_eq(s.e.stats.devices, s.wire.body_count);
	ck_assert_uint_gt(s.e.stats.total_ns, 0);
	scene_end(&s);
}
