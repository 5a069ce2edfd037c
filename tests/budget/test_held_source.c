/* How much a source makes us hold on its main channel, beyond guest RAM. */
#include "tests/support/check_main.h"
#include "tests/support/held.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bitmap.h"
#include "base/coverage.h"
#include "engine/load/sections.h"
#include "engine/ram/ram.h"
#include "engine/stream/multifd_packet.h"
#include "engine/stream/reader.h"
#include "memory/block.h"
#include "tests/support/postcopy_scene.h"
#include "tests/support/scene.h"
#include "tests/support/several.h"

/* Buffers of a channel, coroutines, and what the embedder of the tests keeps. */
#define FIXED_BYTES (READER_BUFFER_BYTES + (1u << 20))

/* Nobody keeps the devices. */
static const struct inm_ops *careless_ops(void)
{
	static struct inm_ops ops;

	ops = embedder_ops;
	ops.device = NULL;
	return &ops;
}

#define STATE_BYTES ((size_t)48 << 20)

TEST_CASE("source", 120);

/* Two ways to the end: all of it comes, or it breaks off. */
TEST_EACH(test_device_state_is_held_once, 2)
{
	const struct wire_field field = { .name = "buffer", .kind = WIRE_BUFFER, .bytes = STATE_BYTES, .value = 0x55 };
	const struct wire_vmsd vmsd = { .name = "d", .version = 1, .fields = &field, .field_count = 1 };
	const struct wire_device device = { .name = "d", .version_id = 1, .desc = &vmsd };
	struct land_opts o = { .ops = careless_ops(), .deadline_ms = 60000 };
	struct held held;
	struct scene s;
	int r;

	scene_begin(&s, &(struct honest_opts){ .devices = &device, .device_count = 1 });
	o.stop_at = _i ? s.wire.len - 1000 : 0;
	held_begin(&held);
	r = scene_land(&s, &o);
	ck_assert_msg(r == (_i ? -ENODATA : 0), "%d: %s", r, s.e.error);
	held_within(&held, STATE_BYTES + FIXED_BYTES,
	            _i ? "48 MiB of device state that breaks off" : "48 MiB of device state");
	scene_end(&s);
}

/* 512 MiB are announced, and some pages come. */
TEST(test_a_package_is_held_as_it_comes)
{
	static const struct pc_block block = { .name = "pc.ram", .pages = 1024, .backing = EMB_MEMFD };
	struct held held;
	struct pc s;

	held_begin(&held);
	pc_begin(&s, &(struct pc_opts){ .package_lies = true,
	                                .package_bytes = 512u << 20,
	                                .blocks = &block,
	                                .block_count = 1,
	                                .precopied = 50 });
	pc_switch(&s);
	pc_run(&s, 500);
	/* The RAM several times: as the source has it, in its wires, here, and as what came of the package. */
	held_within(&held, 6 * (1024 * PC_PAGE) + FIXED_BYTES, "a package of 512 MiB that does not come");
	pc_end(&s);
}

/* As many sections before the first round as there may be, the longest that there may be among them. */
TEST(test_early_sections_hold_little)
{
	static const struct wire_device early = { .name = "early", .data = "x", .bytes = 1 };
	uint8_t *section = calloc(1, 300 + (1 << 20));
	struct wire more = { 0 };
	struct held held;
	struct scene s;
	int r;

	scene_begin(&s, &(struct honest_opts){ .early = &early });
	for (uint32_t i = 0; i < SECTIONS_MAX - 8; i++) {
		char name[256];
		size_t bytes = i % 100 ? 1 : (1 << 20) - 100;

		snprintf(name, sizeof(name), "early %0200u", i);
		wire_u8(&more, WIRE_FULL);
		wire_be32(&more, 5000 + i);
		wire_str8(&more, name);
		wire_be32(&more, 0);
		wire_be32(&more, 1);
		wire_bytes(&more, section, bytes);
		wire_u8(&more, WIRE_FOOTER);
		wire_be32(&more, 5000 + i);
	}
	wire_insert(&s.wire, wire_find(&s.wire, "FULL", 0), more.data, more.len);
	wire_fini(&more);
	free(section);
	held_begin(&held);
	r = scene_land(&s, &(struct land_opts){ .ops = careless_ops(), .deadline_ms = 60000 });
	/* The description, which is the honest source's, does not know them. */
	ck_assert_msg(r < 0 && strstr(s.e.error, "early section"), "%d: %s", r, s.e.error);
	held_within(&held, FIXED_BYTES + SECTIONS_MAX * 512, "1016 early sections");
	scene_end(&s);
}

#define BLOCK_BYTES_EACH (8u << 10)

/* The embedder has agreed to each of them. Names as long as they may be, and each with a page. */
TEST(test_blocks_hold_little_beside_their_ram)
{
	uint8_t *memory = mmap(NULL, RAM_BLOCKS_MAX * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct ram ram = { 0 };
	struct held held;

	ck_assert_ptr_ne(memory, MAP_FAILED);
	held_begin(&held);
	ram_init(&ram, 12);
	for (unsigned i = 0; i < RAM_BLOCKS_MAX; i++) {
		struct block_source source = { .fd = -1, .addr = memory + 4096ul * i };
		char name[256];
		struct block *b;

		snprintf(name, sizeof(name), "\x01%0254u", i);
		ck_assert_int_eq(ram_add(&ram, name, 255, 4096, &source, &b), 0);
		block_mark_received(b, 0, 1);
	}
	held_within(&held, RAM_BLOCKS_MAX * BLOCK_BYTES_EACH, "4096 blocks of a page");
	ram_fini(&ram);
	munmap(memory, RAM_BLOCKS_MAX * 4096);
}

/* Of 64 GiB: which pages are here, and in postcopy which are to come, and which were asked for. */
TEST(test_what_is_known_of_pages_is_bits_and_nothing_before_they_come)
{
	size_t tpages = (64ull << 30) >> 12;
	struct bitmap received, asked;
	struct coverage expected;
	struct held held;

	held_begin(&held);
	ck_assert_int_eq(bitmap_init(&received, tpages), 0);
	ck_assert_int_eq(bitmap_init(&asked, tpages), 0);
	ck_assert_int_eq(coverage_init(&expected, tpages), 0);
	held_within(&held, 256u << 10, "64 GiB that are announced");
	bitmap_set_range(&received, 0, tpages);
	bitmap_set_range(&asked, 0, tpages);
	coverage_set(&expected, 0, tpages);
	held_within(&held, 3 * tpages / 8 + (512u << 10), "64 GiB of which every page is known");
	bitmap_fini(&received);
	bitmap_fini(&asked);
	coverage_fini(&expected);
}

#define CHANNELS 16u

TEST(test_multifd_channels_hold_a_packet_each)
{
	static const struct wire_block block = { .name = "pc.ram", .bytes = 32 << 20 };
	struct held held;
	struct several s;

	several_begin(&s, &(struct multifd_opts){ .channels = CHANNELS, .blocks = &block, .block_count = 1 }, NULL);
	held_begin(&held);
	several_connect_all(&s);
	several_finish(&s);
	several_check_landed(&s);
	/* RAM is seen twice here: in the test's mapping, when it is compared, and it was resident then. */
	held_within(&held, (32u << 20) + FIXED_BYTES + CHANNELS * (MULTIFD_PACKET_PAGE_BYTES + (64u << 10)),
	            "16 multifd channels and 32 MiB of RAM");
	several_end(&s);
}
