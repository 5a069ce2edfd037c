/* A channel's lie is a named error, and so is an end that comes too early (doc/wire/multifd.md 9, 10). */
#include "tests/support/check_main.h"

#include <errno.h>
#include <string.h>

#include "tests/support/multifd_eras.h"
#include "tests/support/several.h"

#define PAGE ((uint64_t)WIRE_TPAGE_BYTES)

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

TEST_CASE("lies", 60);

TEST_ROWS(test_a_lie_on_a_channel_is_a_named_error, lies)
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

/* The end of a channel before its last SYNC is seen while main is read, too, and by whoever is in the midst of it. */
TEST(test_a_channel_that_ends_early_fails_the_migration_at_any_border)
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

/* After the last sync point the channels' ends, clean or not, are no news: all pages have come. */
TEST(test_the_end_of_channels_behind_the_last_sync_point_is_no_error)
{
	for (unsigned i = 0; i < MULTIFD_ERAS; i++) {
		struct multifd_opts m = multifd_opts_of(&multifd_eras[i], 3, 0);
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
