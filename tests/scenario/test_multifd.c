/* Pages on channels of their own: all of them land, and of several copies the last one stays (spec/multifd.md). */
#include "tests/support/check_main.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/be.h"
#include "tests/support/several.h"

#define PAGE ((uint64_t)WIRE_TPAGE_BYTES)

/* More than a packet's worth in the first block, so that packets are full, and several blocks in one interval. */
static const struct wire_block big_blocks[] = {
	{ .name = "pc.ram", .bytes = 600 * WIRE_TPAGE_BYTES },
	{ .name = "vga.vram", .bytes = 5 * WIRE_TPAGE_BYTES },
	{ .name = "rom", .bytes = 1 * WIRE_TPAGE_BYTES },
};

/* How releases differ on the wire (multifd.md 13). */
static const struct era {
	const char *name;
	bool per_section, old, zero_in_main;
} eras[] = {
	{ "7.2", true, true, true },
	{ "8.2", false, true, true },
	{ "9.0 and later", false, false, false },
	{ "10.0 with machine 7.2", true, false, true },
	{ "10.0 with machine 8.2", false, false, true },
	{ "9.0 and later, per section", true, false, false },
};

#define ERAS (sizeof(eras) / sizeof(eras[0]))
static const uint32_t methods[] = { 0, WIRE_MULTIFD_ZLIB, WIRE_MULTIFD_ZSTD };

static struct multifd_opts opts_of(const struct era *era, unsigned channels, uint32_t method)
{
	return (struct multifd_opts){ .channels = channels,
		                      .method = method,
		                      .per_section = era->per_section,
		                      .old = era->old,
		                      .zero_in_main = era->zero_in_main };
}

/* ---- what pages hold --------------------------------------------------------------------------------------- */

/* Every page in every round, so that each is rewritten again and again. */
static enum wire_how fill_all(void *opaque, unsigned block, uint64_t tpage, unsigned round, uint8_t *page)
{
	wire_fill_default(opaque, block, tpage * 12, 0, page);
	page[0] = (uint8_t)round;
	page[PAGE - 1] = (uint8_t)~round;
	return WIRE_SEND_PAGE;
}

/* Content and zeros by turns, other pages the other way round. */
static enum wire_how fill_by_turns(void *opaque, unsigned block, uint64_t tpage, unsigned round, uint8_t *page)
{
	enum wire_how how = fill_all(opaque, block, tpage, round, page);

	return (tpage + round) % 2 ? WIRE_SEND_ZERO : how;
}

/* Never the same channel twice in a row, and the main stream every fourth time. */
static int route_around(void *opaque, unsigned block, uint64_t tpage, unsigned round)
{
	unsigned channels = *(unsigned *)opaque;
	unsigned at = (unsigned)(tpage + block + round) % (channels + 1);

	return at == channels ? WIRE_ON_MAIN : (int)at;
}

/* The last packet on a lane only when there is one: with it the sync packet of an old source carries pages. */
static int route_first(void *opaque, unsigned block, uint64_t tpage, unsigned round)
{
	(void)opaque;
	(void)block;
	(void)tpage;
	(void)round;
	return 0;
}

/* ---- ways to send ------------------------------------------------------------------------------------------ */

static void lands(const struct multifd_opts *m, const struct several_opts *o, size_t chunk_bytes)
{
	struct several s;

	several_begin(&s, m, o);
	several_connect_all(&s);
	for (unsigned i = 0; i < s.line_count; i++)
		s.lines[i].chunk_bytes = chunk_bytes;
	several_finish(&s);
	several_check_landed(&s);
	ck_assert_uint_eq(s.scene.e.stats.received_pages * PAGE, s.scene.e.stats.ram_bytes);
	several_end(&s);
}

START_TEST(test_every_era_and_compression_lands_over_one_to_four_channels)
{
	const struct era *era = &eras[_i];

	for (unsigned channels = 1; channels <= 4; channels++)
		for (unsigned i = 0; i < 3; i++)
			for (unsigned rp = 0; rp < 2; rp++) {
				struct multifd_opts m = opts_of(era, channels, methods[i]);

				m.return_path = rp;
				m.rounds = 3;
				lands(&m, &(struct several_opts){ .anon = channels % 2 }, 0);
			}
}
END_TEST

START_TEST(test_full_packets_of_several_blocks_land)
{
	for (unsigned i = 0; i < 3; i++)
		for (unsigned channels = 1; channels <= 4; channels += 3) {
			struct multifd_opts m = opts_of(&eras[_i], channels, methods[i]);

			m.blocks = big_blocks;
			m.block_count = 3;
			m.rounds = 3;
			lands(&m, &(struct several_opts){ .tcp = channels == 4 }, 0);
			lands(&m, &(struct several_opts){ .anon = true }, channels * 5000);
		}
}
END_TEST

START_TEST(test_delivery_in_pieces_of_any_size_changes_nothing)
{
	static const size_t sizes[] = { 13, 63, 64, 65, 1343, 1344, 1345, 4096, 5440 };

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		for (unsigned k = 0; k < 3; k += 2) {
			struct multifd_opts m = opts_of(&eras[k], 2, methods[i % 3]);

			lands(&m, NULL, sizes[i]);
		}
}
END_TEST

START_TEST(test_delivery_byte_by_byte_changes_nothing)
{
	struct multifd_opts m = opts_of(&eras[0], 2, 0);

	m.rounds = 1;
	lands(&m, NULL, 1);
}
END_TEST

START_TEST(test_packets_of_one_page_land)
{
	for (unsigned i = 0; i < 3; i++) {
		struct multifd_opts m = opts_of(&eras[_i], 3, methods[i]);

		m.packet_pages = 1;
		m.rounds = 4;
		m.fill = fill_by_turns;
		lands(&m, NULL, 0);
	}
}
END_TEST

START_TEST(test_a_channel_that_never_carries_a_page_lands_the_others)
{
	for (unsigned i = 0; i < ERAS; i++) {
		struct multifd_opts m = opts_of(&eras[i], 3, 0);

		m.route = route_first;
		m.rounds = 3;
		lands(&m, NULL, 0);
	}
}
END_TEST

/* A SYNC packet is the last thing before its sync point, with pages or without: what follows may be long in coming. */
START_TEST(test_nothing_needs_to_follow_a_sync_packet_with_pages)
{
	for (unsigned i = 0; i < 3; i++) {
		struct multifd_opts m = opts_of(&eras[_i], 2, methods[i]);

		m.no_phantom = m.return_path = true;
		lands(&m, &(struct several_opts){ .anon = i == 0 }, 0);
	}
}
END_TEST

/* Only what is told in the parameter counts, where it is told. */
START_TEST(test_the_way_of_syncing_can_be_told)
{
	static const char *const on[] = { "multifd-flush-after-each-section", "on", NULL };
	static const char *const off[] = { "multifd-flush-after-each-section", "off", NULL };
	struct multifd_opts m = opts_of(&eras[0], 2, 0);

	lands(&m, &(struct several_opts){ .params = on }, 0);
	m = opts_of(&eras[2], 2, 0);
	lands(&m, &(struct several_opts){ .params = off }, 0);
}
END_TEST

START_TEST(test_two_hundred_and_fifty_five_channels_land)
{
	struct multifd_opts m = opts_of(&eras[2], 255, 0);

	m.blocks = big_blocks;
	m.block_count = 3;
	lands(&m, NULL, 0);
}
END_TEST

/* All connected before one of them speaks: a source over a slow network, or in the middle of its TLS handshakes. */
START_TEST(test_two_hundred_and_fifty_five_channels_may_connect_before_any_speaks)
{
	struct multifd_opts m = opts_of(&eras[2], 255, 0);
	struct several s;

	several_begin(&s, &m, NULL);
	several_connect_all(&s);
	several_settle(&s);
	several_finish(&s);
	several_check_landed(&s);
	several_end(&s);
}
END_TEST

/* ---- the barrier: a later copy of a page never loses to an earlier one (5.3) --------------------------------- */

static size_t after_start(const struct several *s, unsigned line)
{
	return wire_find(several_wire(s, line), line == SEVERAL_MAIN ? "sync point" : "interval", 0);
}

/*
 * One line lags: all others have sent everything (main all but its last bytes, so that it cannot land) and settled
 * when the laggard's first round comes. What the others hold of later rounds must have waited for it.
 */
static void laggard_lands(const struct multifd_opts *m, unsigned laggard)
{
	struct several s;

	several_begin(&s, m, &(struct several_opts){ .anon = laggard % 2 });
	several_connect_all(&s);
	for (unsigned i = 0; i < s.line_count; i++)
		several_allow(&s, i, i == laggard ? after_start(&s, i) :
		                     i == SEVERAL_MAIN ? wire_find(&s.h.main, "EOF", 0) : SEVERAL_ALL);
	several_settle(&s);
	several_allow(&s, laggard, laggard == SEVERAL_MAIN ? wire_find(&s.h.main, "EOF", 0) : SEVERAL_ALL);
	several_settle(&s);
	several_finish(&s);
	several_check_landed(&s);
	several_end(&s);
}

static void any_laggard_lands(const struct era *era, wire_fill_fn *fill, wire_route_fn *route)
{
	static const unsigned counts[] = { 1, 2, 3 };

	for (unsigned c = 0; c < 3; c++)
		for (unsigned laggard = 0; laggard <= counts[c]; laggard++) {
			unsigned channels = counts[c];
			struct multifd_opts m = opts_of(era, channels, 0);

			m.rounds = 4;
			m.fill = fill;
			m.route = route;
			m.opaque = &channels;
			laggard_lands(&m, laggard);
		}
}

START_TEST(test_a_page_rewritten_on_another_channel_each_round_ends_as_sent_last)
{
	any_laggard_lands(&eras[_i], fill_all, NULL);
}
END_TEST

START_TEST(test_a_page_rewritten_on_channels_and_in_the_main_stream_ends_as_sent_last)
{
	any_laggard_lands(&eras[_i], fill_all, route_around);
}
END_TEST

START_TEST(test_zero_pages_and_content_by_turns_end_as_sent_last)
{
	any_laggard_lands(&eras[_i], fill_by_turns, NULL);
}
END_TEST

/* No channel is read beyond its SYNC, and main is not read beyond its sync point, until all are there. */
START_TEST(test_nobody_passes_a_sync_point_alone)
{
	for (unsigned laggard = 0; laggard < 3; laggard++) {
		struct multifd_opts m = opts_of(&eras[_i], 2, 0);
		struct several s;
		struct emb_block *ram;
		bool any = false;

		m.rounds = 2;
		m.fill = fill_all;
		several_begin(&s, &m, NULL);
		several_connect_all(&s);
		ram = embedder_block(&s.scene.e, "pc.ram");
		for (unsigned i = 0; i < s.line_count; i++)
			several_allow(&s, i, i == laggard ? after_start(&s, i) - (i ? 1344 : 8) : SEVERAL_ALL);
		several_settle(&s);
		for (unsigned i = 0; i < ram->bytes; i++)
			any |= ram->host[i] != 0;
		ck_assert_msg(!any, "pages landed before all were at the first sync point");
		several_finish(&s);
		several_check_landed(&s);
		several_end(&s);
	}
}
END_TEST

/* ---- lies on a channel --------------------------------------------------------------------------------------- */

/*
 * Two channels, per round. What @put writes stands on channel 1 behind its first SYNC; then the channel is silent, or
 * ends if @ends. The main stream is held before its last sync point, so that nothing but the lie ends the migration.
 */
struct lie {
	const char *what;
	void (*put)(struct wire *w);
	int code;
	const char *words;
	bool ends;
	uint32_t method;
};

static const uint64_t offsets_0[] = { 0, 4096, 8192, 12288 };
static const uint64_t offset_wild[] = { 16 * 4096 };
static const uint64_t offset_huge[] = { UINT64_MAX - 4095 };
static const uint64_t offset_odd[] = { 1 };

static void put_page(struct wire *w, struct wire_packet p)
{
	p.pages_alloc = p.pages_alloc ? p.pages_alloc : WIRE_MULTIFD_PAGES_MAX;
	p.block = p.block ? p.block : "pc.ram";
	p.offsets = p.offsets ? p.offsets : offsets_0;
	p.offset_count = 4;
	if (p.offsets != offsets_0)
		p.offset_count = 1;
	wire_multifd_header(w, &p);
	wire_fill(w, 0x77, p.payload_bytes < 65536 ? p.payload_bytes : 65536);
}

static void put_magic(struct wire *w)
{
	put_page(w, (struct wire_packet){ .magic = 0x11223345, .normal_pages = 1, .payload_bytes = 4096 });
}
static void put_version(struct wire *w)
{
	put_page(w, (struct wire_packet){ .version = 2, .normal_pages = 1, .payload_bytes = 4096 });
}
static void put_flag(struct wire *w)
{
	put_page(w, (struct wire_packet){ .flags = 0x80, .normal_pages = 1, .payload_bytes = 4096 });
}
static void put_alloc(struct wire *w)
{
	put_page(w, (struct wire_packet){ .pages_alloc = 129, .normal_pages = 1, .payload_bytes = 4096 });
}
static void put_pages(struct wire *w)
{
	put_page(w, (struct wire_packet){ .normal_pages = 129, .payload_bytes = 129 * 4096 });
}
static void put_overflow(struct wire *w)
{
	put_page(w, (struct wire_packet){ .normal_pages = 2, .zero_pages = UINT32_MAX, .payload_bytes = 8192 });
}
static void put_block(struct wire *w)
{
	put_page(w, (struct wire_packet){ .block = "nowhere", .normal_pages = 1, .payload_bytes = 4096 });
}
static void put_wild(struct wire *w)
{
	put_page(w, (struct wire_packet){ .offsets = offset_wild, .normal_pages = 1, .payload_bytes = 4096 });
}
static void put_huge(struct wire *w)
{
	put_page(w, (struct wire_packet){ .offsets = offset_huge, .normal_pages = 1, .payload_bytes = 4096 });
}
static void put_odd(struct wire *w)
{
	put_page(w, (struct wire_packet){ .offsets = offset_odd, .normal_pages = 1, .payload_bytes = 4096 });
}
static void put_wild_zero(struct wire *w)
{
	put_page(w, (struct wire_packet){ .offsets = offset_wild, .zero_pages = 1 });
}
static void put_short(struct wire *w)
{
	put_page(w, (struct wire_packet){ .normal_pages = 2, .payload_bytes = 4096 });
}
static void put_long(struct wire *w)
{
	put_page(w, (struct wire_packet){ .normal_pages = 1, .payload_bytes = 8192 });
}
static void put_method(struct wire *w)
{
	put_page(w, (struct wire_packet){ .flags = WIRE_MULTIFD_ZLIB, .normal_pages = 1, .payload_bytes = 100 });
}
static void put_none(struct wire *w)
{
	put_page(w, (struct wire_packet){ .normal_pages = 1, .payload_bytes = 4096 });
}
static void put_garbage_zlib(struct wire *w)
{
	put_page(w, (struct wire_packet){ .flags = WIRE_MULTIFD_ZLIB, .normal_pages = 1, .payload_bytes = 100 });
	wire_multifd_sync(w);
}
static void put_garbage_zstd(struct wire *w)
{
	put_page(w, (struct wire_packet){ .flags = WIRE_MULTIFD_ZSTD, .normal_pages = 1, .payload_bytes = 100 });
	wire_multifd_sync(w);
}
static void put_megabytes(struct wire *w)
{
	put_page(w, (struct wire_packet){ .flags = WIRE_MULTIFD_ZLIB, .normal_pages = 1, .payload_bytes = 1u << 21 });
}
static void put_device(struct wire *w)
{
	uint8_t state[4096] = { 0 };

	wire_multifd_device(w, "0000:00:05.0/vfio", 0, state, sizeof(state));
}
static void put_small_device(struct wire *w)
{
	wire_multifd_device(w, "0000:00:05.0/vfio", 0, "state", 5);
}
static void put_nothing(struct wire *w)
{
	(void)w;
}
static void put_half_header(struct wire *w)
{
	wire_fill(w, 0x11, 1000);
}
static void put_half_payload(struct wire *w)
{
	put_page(w, (struct wire_packet){ .normal_pages = 1, .payload_bytes = 4096 });
	w->len -= 100;
}

static const struct lie lies[] = {
	{ "magic", put_magic, -EPROTO, "magic", .ends = false },
	{ "version", put_version, -EPROTO, "version 2", .ends = false },
	{ "an unknown flag", put_flag, -EPROTO, "flags 0x80", .ends = false },
	{ "pages_alloc", put_alloc, -EPROTO, "129", .ends = false },
	{ "too many pages", put_pages, -EPROTO, "129", .ends = false },
	{ "a sum that overflows", put_overflow, -EPROTO, "zero pages", .ends = false },
	{ "an unknown block", put_block, -EPROTO, "nowhere", .ends = false },
	{ "an offset behind the block", put_wild, -EPROTO, "0x10000", .ends = false },
	{ "an offset at the end of numbers", put_huge, -EPROTO, "0xfffffffffffff000", .ends = false },
	{ "an offset inside a page", put_odd, -EPROTO, "0x1", .ends = false },
	{ "a zero page behind the block", put_wild_zero, -EPROTO, "0x10000", .ends = false },
	{ "a payload too short", put_short, -EPROTO, "payload", .ends = false },
	{ "a payload too long", put_long, -EPROTO, "payload", .ends = false },
	{ "zlib, and none is expected", put_method, -EPROTO, "compression", .ends = false },
	{ "none, and zlib is expected", put_none, -EPROTO, "compression", .method = WIRE_MULTIFD_ZLIB },
	{ "garbage for zlib", put_garbage_zlib, -EPROTO, "zlib", .method = WIRE_MULTIFD_ZLIB },
	{ "garbage for zstd", put_garbage_zstd, -EPROTO, "zstd", .method = WIRE_MULTIFD_ZSTD },
	{ "two megabytes for a page", put_megabytes, -EPROTO, "payload", .method = WIRE_MULTIFD_ZLIB },
	{ "device state", put_device, -EPROTO, "0000:00:05.0/vfio", .ends = false },
	{ "a little device state", put_small_device, -EPROTO, "0000:00:05.0/vfio", .ends = false },
	{ "a little device state, and the end", put_small_device, -EPROTO, "0000:00:05.0/vfio", .ends = true },
	{ "the end on a packet border", put_nothing, -ENODATA, "channel 1|before RAM", .ends = true },
	{ "the end inside a header", put_half_header, -ENODATA, "middle of a packet", .ends = true },
	{ "the end inside a payload", put_half_payload, -ENODATA, "middle of a packet", .ends = true },
};

START_TEST(test_a_lie_on_a_channel_is_a_named_error)
{
	const struct lie *lie = &lies[_i];
	struct multifd_opts m = { .channels = 2, .method = lie->method, .return_path = true };
	struct wire lying = { 0 };
	struct several s;
	struct pump *p;
	const struct emb_block *ram;
	uint8_t lied[64];

	several_begin(&s, &m, NULL);
	several_connect_all(&s);
	wire_bytes(&lying, s.h.channels[1].data, wire_find(&s.h.channels[1], "interval", 0));
	lie->put(&lying);
	p = &s.lines[2];
	p->wire = &lying;
	several_allow(&s, SEVERAL_MAIN, wire_find(&s.h.main, "EOF", 0));
	several_allow(&s, 1, SEVERAL_ALL);
	p->stop_at = lying.len;
	p->end = lie->ends ? PUMP_CLOSE : PUMP_HOLD;
	several_run(&s, 3000);
	ck_assert_msg(s.result != 1, "%s: it hangs", lie->what);
	several_check_failed(&s, lie->code, lie->words);
	ck_assert_msg(strstr(s.scene.e.error, "channel 1"), "which channel? %s", s.scene.e.error);
	ram = embedder_block(&s.scene.e, "pc.ram");
	memset(lied, 0x77, sizeof(lied));
	for (uint64_t off = 0; off < ram->bytes; off += PAGE)
		ck_assert_msg(memcmp(ram->host + off, lied, sizeof(lied)) != 0, "%s: it was written", lie->what);
	wire_fini(&lying);
	several_end(&s);
}
END_TEST

/* The end of a channel before its last SYNC is seen while main is read, too, and by whoever is in the midst of it. */
START_TEST(test_a_channel_that_ends_early_fails_the_migration_at_any_border)
{
	struct multifd_opts m = { .channels = 2, .rounds = 3, .packet_pages = 2 };
	unsigned border = 0;

	for (bool more = true; more; border++) {
		struct several s;
		const struct wire *w;
		unsigned seen = 0;
		size_t cut = 0;

		several_begin(&s, &m, NULL);
		several_connect_all(&s);
		w = &s.h.channels[0];
		for (size_t i = 0; i < w->mark_count; i++)
			if (!strcmp(w->marks[i].what, "packet") && seen++ == border)
				cut = w->marks[i].off;
		more = cut != 0;
		if (more) {
			several_allow(&s, SEVERAL_MAIN, SEVERAL_ALL);
			several_allow(&s, 2, SEVERAL_ALL);
			several_allow(&s, 1, cut);
			s.lines[1].end = PUMP_CLOSE;
			several_run(&s, 5000);
			several_check_failed(&s, -ENODATA, "channel 0");
		}
		several_end(&s);
	}
	ck_assert_uint_gt(border, 5);
}
END_TEST

/* After the last sync point the channels' ends, clean or not, are no news: all pages have come. */
START_TEST(test_the_end_of_channels_behind_the_last_sync_point_is_no_error)
{
	for (unsigned i = 0; i < ERAS; i++) {
		struct multifd_opts m = opts_of(&eras[i], 3, 0);
		struct several s;

		several_begin(&s, &m, NULL);
		several_connect_all(&s);
		several_allow(&s, SEVERAL_MAIN, wire_find(&s.h.main, "EOF", 0));
		for (unsigned c = 1; c <= 3; c++) {
			several_allow(&s, c, SEVERAL_ALL);
			s.lines[c].end = PUMP_CLOSE;
		}
		several_settle(&s);
		several_finish(&s);
		several_check_landed(&s);
		several_end(&s);
	}
}
END_TEST

/* ---- cancel -------------------------------------------------------------------------------------------------- */

/* Return: whether the migration was over before. */
static bool cancelled_at(unsigned dispatches, const struct multifd_opts *m, size_t chunk_bytes)
{
	struct several s;
	bool over;

	several_begin(&s, m, NULL);
	s.cancel_at = dispatches;
	several_connect_all(&s);
	for (unsigned i = 0; i < s.line_count; i++)
		s.lines[i].chunk_bytes = chunk_bytes;
	several_finish(&s);
	over = s.result == 0 && s.dispatches <= dispatches;
	if (s.result != 0)
		several_check_failed(&s, -ECANCELED, NULL);
	else
		several_check_landed(&s);
	several_end(&s);
	return over;
}

START_TEST(test_cancel_after_any_dispatch_gives_everything_back)
{
	struct multifd_opts m = { .channels = 3, .rounds = 2, .return_path = true, .method = methods[_i] };
	unsigned k = 0;

	while (!cancelled_at(k, &m, 400 + 600 * !_i))
		k++;
	ck_assert_uint_gt(k, 20);
}
END_TEST

START_TEST(test_cancel_while_a_worker_receives_a_packet_gives_everything_back)
{
	struct multifd_opts m = { .channels = 2, .blocks = big_blocks, .block_count = 3 };
	struct several s;

	several_begin(&s, &m, NULL);
	several_connect_all(&s);
	for (unsigned i = 0; i < s.line_count; i++)
		several_allow(&s, i, i ? after_start(&s, i) + 100000 : SEVERAL_ALL);
	several_settle(&s);
	inm_cancel(s.scene.e.inm);
	several_run(&s, 3000);
	several_check_failed(&s, -ECANCELED, NULL);
	several_end(&s);
}
END_TEST

START_TEST(test_free_in_the_middle_gives_everything_back)
{
	struct multifd_opts m = { .channels = 3, .rounds = 2, .method = methods[1] };

	for (unsigned k = 0; k < 40; k++) {
		struct several s;

		several_begin(&s, &m, NULL);
		several_connect_all(&s);
		for (unsigned i = 0; i < s.line_count; i++) {
			several_allow(&s, i, SEVERAL_ALL);
			s.lines[i].chunk_bytes = 4000;
		}
		for (unsigned i = 0; i < k; i++)
			several_turn(&s);
		several_end(&s);
	}
}
END_TEST

Suite *suite(void)
{
	Suite *s = suite_create("multifd");
	TCase *t = tcase_create("ways");

	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, test_every_era_and_compression_lands_over_one_to_four_channels, 0, ERAS);
	tcase_add_loop_test(t, test_full_packets_of_several_blocks_land, 0, ERAS);
	tcase_add_loop_test(t, test_packets_of_one_page_land, 0, ERAS);
	tcase_add_test(t, test_delivery_in_pieces_of_any_size_changes_nothing);
	tcase_add_test(t, test_delivery_byte_by_byte_changes_nothing);
	tcase_add_test(t, test_a_channel_that_never_carries_a_page_lands_the_others);
	tcase_add_loop_test(t, test_nothing_needs_to_follow_a_sync_packet_with_pages, 0, 2);
	tcase_add_test(t, test_the_way_of_syncing_can_be_told);
	tcase_add_test(t, test_two_hundred_and_fifty_five_channels_land);
	tcase_add_test(t, test_two_hundred_and_fifty_five_channels_may_connect_before_any_speaks);
	suite_add_tcase(s, t);

	/* These must all fail in a build without the barrier (control no-sync). */
	t = tcase_create("barrier");
	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, test_a_page_rewritten_on_another_channel_each_round_ends_as_sent_last, 0, ERAS);
	tcase_add_loop_test(t, test_a_page_rewritten_on_channels_and_in_the_main_stream_ends_as_sent_last, 0, ERAS);
	tcase_add_loop_test(t, test_zero_pages_and_content_by_turns_end_as_sent_last, 0, ERAS);
	tcase_add_loop_test(t, test_nobody_passes_a_sync_point_alone, 0, ERAS);
	suite_add_tcase(s, t);

	t = tcase_create("lies");
	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, test_a_lie_on_a_channel_is_a_named_error, 0, sizeof(lies) / sizeof(lies[0]));
	tcase_add_test(t, test_a_channel_that_ends_early_fails_the_migration_at_any_border);
	tcase_add_test(t, test_the_end_of_channels_behind_the_last_sync_point_is_no_error);
	suite_add_tcase(s, t);

	t = tcase_create("cancel");
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, test_cancel_after_any_dispatch_gives_everything_back, 0, 3);
	tcase_add_test(t, test_cancel_while_a_worker_receives_a_packet_gives_everything_back);
	tcase_add_test(t, test_free_in_the_middle_gives_everything_back);
	suite_add_tcase(s, t);
	return s;
}
