/* The source of a postcopy scene: what it says up to PING 4, built in advance. See postcopy_scene.h. */
#include <string.h>

#include "base/be.h"
#include "tests/support/postcopy_scene_source.h"

#define FIRST_DEVICE_ID 10u
#define DISCARD_RANGES 12u /* as QEMU's (doc/wire/stream.md 5.3) */

static void inject(struct pc *s, enum pc_place here)
{
	if (s->o.inject && s->o.inject_at == here)
		s->o.inject(s, &s->head);
}

static void put_start(struct pc *s)
{
	struct wire_block blocks[PC_BLOCKS_MAX];
	struct wire *w = &s->head;

	for (unsigned b = 0; b < s->ram_count; b++)
		blocks[b] = (struct wire_block){ .name = s->ram[b].said.name,
			                         .bytes = s->ram[b].bytes,
			                         .page_bytes = s->ram[b].unit_pages > 1 ? PC_HUGE_BYTES : 0 };
	wire_section(w, WIRE_START, PC_RAM_ID, "ram", 0, 4);
	wire_mem_size(w, blocks, s->ram_count);
	if (s->o.channels && !s->o.old_multifd) {
		wire_flush(w);
		pc_sync_channels(s);
	}
	pc_end_section(s, w);
}

/* Every other page travels on a multifd channel, in a packet of its own. */
static bool goes_by_multifd(const struct pc *s, uint64_t tpage)
{
	return s->o.channels && !s->o.compression && tpage % 2 && tpage % 7 != 5;
}

static void put_packet(struct pc *s, unsigned block, uint64_t tpage, bool stale)
{
	struct wire *w = &s->lines[PC_MULTIFD + tpage / 2 % s->o.channels].out;
	uint64_t offset = tpage * PC_PAGE;
	uint8_t page[PC_PAGE];

	wire_content(page, block, tpage);
	if (stale)
		memset(page, 0xee, sizeof(page));
	wire_multifd_header(w, &(struct wire_packet){ .pages_alloc = WIRE_MULTIFD_PAGES_MAX,
	                                              .normal_pages = 1,
	                                              .payload_bytes = WIRE_TPAGE_BYTES,
	                                              .block = s->ram[block].said.name,
	                                              .offsets = &offset,
	                                              .offset_count = 1 });
	wire_bytes(w, page, sizeof(page));
}

static void put_precopy_page(struct pc *s, unsigned block, uint64_t tpage, bool stale)
{
	if (goes_by_multifd(s, tpage))
		put_packet(s, block, tpage, stale);
	else
		wire_content_record(&s->head, pc_name_for(s, &s->lines[PC_MAIN], block), block, tpage, stale);
}

static void put_precopy(struct pc *s)
{
	struct wire *w = &s->head;

	wire_part(w, WIRE_PART, PC_RAM_ID);
	for (unsigned b = 0; b < s->ram_count; b++)
		for (uint64_t i = 0; i < s->ram[b].said.pages; i++) {
			bool final = s->ram[b].precopied[i / s->ram[b].unit_pages];

			if (s->o.precopied > 0 && (final || i % 3 == 0))
				put_precopy_page(s, b, i, !final);
		}
	if (s->o.channels && !s->o.old_multifd && s->o.precopied > 0) {
		wire_flush(w);
		pc_sync_channels(s);
	}
	pc_end_section(s, w);
}

static void put_discards_of(struct pc *s, unsigned block)
{
	const struct pc_ram *ram = &s->ram[block];
	struct wire_range ranges[DISCARD_RANGES];
	unsigned count = 0;

	for (uint64_t unit = 0; unit < ram->units;) {
		uint64_t first = unit, begin, end, ignored;

		while (unit < ram->units && !ram->precopied[unit])
			unit++;
		if (unit > first) {
			pc_pages_of_unit(s, block, first, &begin, &ignored);
			pc_pages_of_unit(s, block, unit - 1, &ignored, &end);
			ranges[count++] = (struct wire_range){ begin * PC_PAGE, (end - begin) * PC_PAGE };
		}
		if (count == DISCARD_RANGES) {
			wire_discard(&s->head, ram->said.name, ranges, count);
			count = 0;
		}
		unit += unit < ram->units;
	}
	if (count)
		wire_discard(&s->head, ram->said.name, ranges, count);
}

static void put_devices(struct pc *s)
{
	static const uint8_t state[] = { 1, 2, 3, 0x7e, 0, 0, 0, 4, 5, 6, 7, 8 };
	static const struct wire_device devices[] = {
		{ .name = "timer", .version_id = 2, .data = state, .bytes = sizeof(state) },
		{ .name = "0000:00:03.0/virtio-net", .version_id = 11, .data = state, .bytes = 5 },
		{ .name = "0000:00:04.0/virtio-blk", .version_id = 2, .data = state, .bytes = 1 },
	};

	for (unsigned i = 0; i < 3 && !s->o.no_devices; i++)
		wire_device(&s->head, FIRST_DEVICE_ID + 3 * i, &devices[i]);
	wire_globalstate(&s->head, FIRST_DEVICE_ID + 9, "running");
}

static void put_package(struct pc *s)
{
	struct wire *w = &s->head;
	size_t begun = wire_package_begin(w);

	inject(s, PC_BEFORE_LISTEN);
	if (!s->o.no_listen)
		wire_listen(w);
	inject(s, PC_AFTER_LISTEN);
	put_devices(s);
	wire_ping(w, 3);
	if (s->o.modern)
		wire_ping(w, 0x42);
	inject(s, PC_BEFORE_RUN);
	if (!s->o.no_run)
		wire_run(w);
	inject(s, PC_AFTER_RUN);
	wire_package_end(w, begun);
	if (s->o.package_lies)
		be32_store(w->data + begun - 4, s->o.package_bytes);
	s->package_at = begun - 4;
	s->package_end = w->len;
}

static void put_switch(struct pc *s)
{
	struct wire *w = &s->head;

	s->switch_at = w->len;
	if (s->o.modern || (s->o.channels && !s->o.old_multifd)) {
		wire_part(w, WIRE_PART, PC_RAM_ID);
		if (s->o.channels && !s->o.old_multifd) {
			wire_flush(w);
			pc_sync_channels(s);
		}
		pc_end_section(s, w);
	}
	if (s->o.modern)
		wire_switchover_start(w);
	inject(s, PC_BEFORE_DISCARD);
	for (unsigned b = 0; b < s->ram_count; b++)
		put_discards_of(s, b);
	inject(s, PC_AFTER_DISCARD);
	wire_ping(w, 2);
	put_package(s);
	wire_ping(w, 4);
	inject(s, PC_AFTER_PACKAGE_END);
	s->lines[PC_MAIN].last_block = -1; /* it is named again after the switch (4) */
}

static uint64_t page_sizes(const struct pc *s)
{
	uint64_t sizes = 0;

	for (unsigned b = 0; b < s->ram_count; b++)
		sizes |= s->ram[b].unit_pages * PC_PAGE;
	return sizes;
}

void pc_put_head(struct pc *s)
{
	struct wire *w = &s->head;

	wire_header(w);
	wire_config(w, s->o.modern ? "pc-i440fx-10.2" : "pc-i440fx-7.2");
	wire_open_return_path(w);
	wire_ping(w, 1);
	inject(s, PC_BEFORE_ADVISE);
	if (!s->o.no_advise)
		wire_advise(w, s->o.summary ? s->o.summary : page_sizes(s),
		            s->o.advised_tpage_bytes ? s->o.advised_tpage_bytes : PC_PAGE);
	inject(s, PC_BEFORE_START);
	put_start(s);
	put_precopy(s);
	put_switch(s);
}
