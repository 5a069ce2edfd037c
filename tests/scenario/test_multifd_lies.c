/* A channel's lie is a named error, and so is an end that comes too early (doc/wire/multifd.md 9, 10). */
#include "tests/support/check_main.h"

#include <errno.h>
#include <string.h>

#include "tests/support/multifd_eras.h"
#include "tests/support/several.h"

#define PAGE ((uint64_t)WIRE_TPAGE_BYTES)

/*
 * Two channels, per round. What @put writes, or else @packet with its payload, stands on channel 1 after its first
 * SYNC; then the channel is silent, or ends if @ends. The main stream is held before its last sync point, so that
 * nothing but the lie ends the migration.
 */
struct lie {
	const char *what;
	struct wire_packet packet; /* of "pc.ram", from offset 0 on, where nothing else is said */
	void (*put)(struct wire *w);
	const char *words;
	bool sync; /* after it */
	bool ends;
	int code;        /* 0: -EPROTO */
	uint32_t method; /* that is expected */
};

#define PACKET(pages, bytes, ...) .packet = { .normal_pages = (pages), .payload_bytes = (bytes), __VA_ARGS__ }
#define AT(offset) .offsets = (const uint64_t[]){ offset }, .offset_count = 1

static void put_packet(struct wire *w, struct wire_packet p)
{
	static const uint64_t offsets[] = { 0, 4096, 8192, 12288 };

	p.pages_alloc = p.pages_alloc ? p.pages_alloc : WIRE_MULTIFD_PAGES_MAX;
	p.block = p.block ? p.block : "pc.ram";
	p.offset_count = p.offsets ? p.offset_count : 4;
	p.offsets = p.offsets ? p.offsets : offsets;
	wire_multifd_header(w, &p);
	wire_fill(w, 0x77, p.payload_bytes < 65536 ? p.payload_bytes : 65536);
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
	put_packet(w, (struct wire_packet){ .normal_pages = 1, .payload_bytes = 4096 });
	w->len -= 100;
}

static const struct lie lies[] = {
	{ "magic", PACKET(1, 4096, .magic = 0x11223345), .words = "magic" },
	{ "version", PACKET(1, 4096, .version = 2), .words = "version 2" },
	{ "an unknown flag", PACKET(1, 4096, .flags = 0x80), .words = "flags 0x80" },
	{ "pages_alloc", PACKET(1, 4096, .pages_alloc = 129), .words = "129" },
	{ "too many pages", PACKET(129, 129 * 4096), .words = "129" },
	{ "a sum that overflows", PACKET(2, 8192, .zero_pages = UINT32_MAX), .words = "zero pages" },
	{ "an unknown block", PACKET(1, 4096, .block = "nowhere"), .words = "nowhere" },
	{ "an offset past the block", PACKET(1, 4096, AT(16 * 4096)), .words = "0x10000" },
	{ "an offset at the end of numbers", PACKET(1, 4096, AT(UINT64_MAX - 4095)), .words = "0xfffffffffffff000" },
	{ "an offset inside a page", PACKET(1, 4096, AT(1)), .words = "0x1" },
	{ "a zero page past the block", PACKET(0, 0, AT(16 * 4096), .zero_pages = 1), .words = "0x10000" },
	{ "a payload too short", PACKET(2, 4096), .words = "payload" },
	{ "a payload too long", PACKET(1, 8192), .words = "payload" },
	{ "zlib, and none is expected", PACKET(1, 100, .flags = WIRE_MULTIFD_ZLIB), .words = "compression" },
	{ "none, and zlib is expected", PACKET(1, 4096), .words = "compression", .method = WIRE_MULTIFD_ZLIB },
	{ "garbage for zlib", PACKET(1, 100, .flags = WIRE_MULTIFD_ZLIB), .words = "zlib", .sync = true,
	  .method = WIRE_MULTIFD_ZLIB },
	{ "garbage for zstd", PACKET(1, 100, .flags = WIRE_MULTIFD_ZSTD), .words = "zstd", .sync = true,
	  .method = WIRE_MULTIFD_ZSTD },
	{ "two megabytes for a page", PACKET(1, 1u << 21, .flags = WIRE_MULTIFD_ZLIB), .words = "payload",
	  .method = WIRE_MULTIFD_ZLIB },
	{ "device state", .put = put_device, .words = "0000:00:05.0/vfio" },
	{ "a little device state", .put = put_small_device, .words = "0000:00:05.0/vfio" },
	{ "a little device state, and the end", .put = put_small_device, .words = "0000:00:05.0/vfio", .ends = true },
	{ "the end on a packet border", .put = put_nothing, .words = "channel 1|before RAM", .ends = true,
	  .code = -ENODATA },
	{ "the end inside a header", .put = put_half_header, .words = "middle of a packet", .ends = true,
	  .code = -ENODATA },
	{ "the end inside a payload", .put = put_half_payload, .words = "middle of a packet", .ends = true,
	  .code = -ENODATA },
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
	if (lie->put)
		lie->put(&lying);
	else
		put_packet(&lying, lie->packet);
	if (lie->sync)
		wire_multifd_sync(&lying);
	p = &s.lines[2];
	p->wire = &lying;
	several_allow(&s, SEVERAL_MAIN, wire_find(&s.h.main, "EOF", 0));
	several_allow(&s, 1, SEVERAL_ALL);
	p->stop_at = lying.len;
	p->end = lie->ends ? PUMP_CLOSE : PUMP_HOLD;
	several_run(&s, 3000);
	ck_assert_msg(s.result != 1, "%s: it hangs", lie->what);
	several_check_failed(&s, lie->code ? lie->code : -EPROTO, lie->words);
	ck_assert_msg(strstr(s.scene.e.error, "channel 1"), "which channel? %s", s.scene.e.error);
	ram = embedder_block(&s.scene.e, "pc.ram");
	memset(lied, 0x77, sizeof(lied));
	for (uint64_t off = 0; off < ram->bytes; off += PAGE)
		ck_assert_msg(memcmp(ram->host + off, lied, sizeof(lied)) != 0, "%s: it was written", lie->what);
	wire_fini(&lying);
	several_end(&s);
}

/* The end of a channel before its last SYNC shows while main is read, too, and to a reader in the middle of it. */
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
