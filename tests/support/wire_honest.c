/* A whole stream as an honest source sends it (doc/wire/stream.md 1.5), and what must be in memory afterwards. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/be.h"
#include "tests/support/wire.h"

const struct wire_block wire_standard_blocks[2] = {
	{ .name = "pc.ram", .bytes = 16 * WIRE_TPAGE_BYTES },
	{ .name = "0000:00:02.0/vga.vram", .bytes = 4 * WIRE_TPAGE_BYTES },
};

static const struct wire_field inner_fields[] = {
	{ .name = "level", .kind = WIRE_U8, .value = 3 },
	{ .name = "divider", .kind = WIRE_U16, .array = 3, .value = 0x7e00 },
};
static const struct wire_vmsd inner = { .name = "inner", .version = 1, .fields = inner_fields, .field_count = 2 };
static const struct wire_field tail_fields[] = { { .name = "pending", .kind = WIRE_U32, .value = 1 } };
static const struct wire_vmsd tail_sub = {
	.name = "serial/thr_ipending", .version = 1, .fields = tail_fields, .field_count = 1
};
static const struct wire_field serial_fields[] = {
	{ .name = "rbr", .kind = WIRE_U8, .value = 0x7e },
	{ .name = "fifo", .kind = WIRE_BUFFER, .bytes = 33, .value = 0x04 },
	{ .name = "timers", .kind = WIRE_U64, .array = 2, .value = 0x0102030405060708 },
	{ .name = "state", .kind = WIRE_STRUCT, .array = 2, .desc = &inner },
};
static const struct wire_vmsd serial = { .name = "serial",
	                                 .version = 3,
	                                 .fields = serial_fields,
	                                 .field_count = 4,
	                                 .subsections = &tail_sub,
	                                 .subsection_count = 1 };
/* A version of 0 is legal (doc/wire/stream.md 1.4). */
static const struct wire_vmsd mouse = { .name = "vmmouse", .fields = inner_fields, .field_count = 2 };
static const struct wire_field timer_fields[] = {
	{ .name = "cpu_ticks_offset", .kind = WIRE_U64, .value = 0x1122334455667788 },
	{ .name = "unused", .kind = WIRE_BUFFER, .bytes = 8 },
	{ .name = "cpu_clock_offset", .kind = WIRE_U64, .value = UINT64_MAX },
};
static const struct wire_vmsd timer = { .name = "timer", .version = 2, .fields = timer_fields, .field_count = 3 };

/* A body that looks like other elements: a footer, a section head, an EOF followed by a description. */
static const char slirp_state[] = "\x7e\0\0\0\x0a\x04\0\0\0\x0b\x05timer\0\0\0\0\0\0\0\1\0\x06\0\0\0\2{}";

const struct wire_device wire_standard_devices[5] = {
	{ .name = "timer", .version_id = 2, .desc = &timer },
	{ .name = "0000:00:04.0/pci-serial", .version_id = 3, .desc = &serial },
	{ .name = "serial", .instance_id = 1, .version_id = 3, .desc = &serial },
	{ .name = "vmmouse", .desc = &mouse },
	{ .name = "slirp", .version_id = 4, .data = slirp_state, .bytes = sizeof(slirp_state) - 1 },
};

enum wire_how wire_fill_default(void *opaque, unsigned block, uint64_t tpage, unsigned round, uint8_t *page)
{
	uint64_t word = (uint64_t)(block + 1) << 56 | tpage << 16 | (uint64_t)(round + 1) << 8;

	(void)opaque;
	if (round && tpage % 3 != round % 3)
		return WIRE_SEND_NOT;
	if (!round && tpage % 4 == 3)
		return WIRE_SEND_ZERO;
	for (unsigned i = 0; i < WIRE_TPAGE_BYTES / 8; i++)
		be64_store(page + i * 8, word ^ (i * 0x9e3779b97f4a7c15ull));
	return WIRE_SEND_PAGE;
}

#define RAM_ID 2u
#define EARLY_DEVICE_ID 7u
#define FIRST_DEVICE_ID 10u
#define PAGES_PER_PART 8u

struct honest {
	struct wire *w;
	const struct honest_opts *o;
	struct honest_image *image;
	const char *last_block; /* named last; survives sections (4) */
	uint8_t section_type;   /* of the open ram section, 0 if none is open */
	unsigned pages_in_part;
};

static void honest_close(struct honest *h)
{
	if (!h->section_type)
		return;
	wire_ram_end(h->w, RAM_ID);
	h->section_type = 0;
}

static void honest_open(struct honest *h, uint8_t type)
{
	if (h->section_type == type && (type == WIRE_END || h->pages_in_part < PAGES_PER_PART))
		return;
	honest_close(h);
	wire_part(h->w, type, RAM_ID);
	h->section_type = type;
	h->pages_in_part = 0;
}

static void honest_record(struct honest *h, unsigned block, uint64_t addr, enum wire_how how, const uint8_t *fresh)
{
	uint8_t *mine = h->image->blocks[block].data + addr;
	const char *name = h->image->blocks[block].name;
	const char *said = h->last_block == name && !h->o->name_every_page ? NULL : name;
	int n = how == WIRE_SEND_XBZRLE ? wire_xbzrle(h->w, said, addr, mine, fresh) : 1;

	if (n == 0)
		return;
	h->image->zero_records += how == WIRE_SEND_ZERO;
	h->image->compress_records += how == WIRE_SEND_COMPRESS;
	h->image->xbzrle_records += how == WIRE_SEND_XBZRLE && n > 0;
	if (how == WIRE_SEND_PAGE || n < 0) {
		h->image->page_records++;
		wire_page(h->w, said, addr, fresh);
	} else if (how == WIRE_SEND_ZERO) {
		wire_zero(h->w, said, addr, 0);
	} else if (how == WIRE_SEND_COMPRESS) {
		wire_compress(h->w, said, addr, fresh);
	}
	memcpy(mine, fresh, WIRE_TPAGE_BYTES);
	h->last_block = name;
	h->pages_in_part++;
}

static void honest_round(struct honest *h, unsigned round, uint8_t type)
{
	wire_fill_fn *fill = h->o->fill ? h->o->fill : wire_fill_default;
	uint8_t page[WIRE_TPAGE_BYTES];

	honest_open(h, type);
	for (unsigned b = 0; b < h->image->block_count; b++) {
		for (uint64_t i = 0; i < h->image->blocks[b].bytes / WIRE_TPAGE_BYTES; i++) {
			enum wire_how how;

			memset(page, 0, sizeof(page));
			how = fill(h->o->opaque, b, i, round, page);
			if (how == WIRE_SEND_NOT)
				continue;
			if (how == WIRE_SEND_ZERO)
				memset(page, 0, sizeof(page));
			honest_open(h, type);
			honest_record(h, b, i * WIRE_TPAGE_BYTES, how, page);
		}
	}
}

static void honest_begin(struct wire *w, const struct honest_opts *o)
{
	w->no_footers = o->no_footers;
	wire_header(w);
	if (!o->no_config) {
		wire_config(w, o->machine ? o->machine : "pc-i440fx-7.2");
		if (o->capability_count)
			wire_config_capabilities(w, o->capabilities, o->capability_count);
		if (o->uuid)
			wire_config_uuid(w, o->uuid);
	}
	if (o->return_path) {
		wire_open_return_path(w);
		wire_ping(w, 1);
	}
}

static void honest_ram(struct honest *h, const struct wire_block *blocks, unsigned count)
{
	unsigned rounds = h->o->rounds ? h->o->rounds : 2;

	wire_section(h->w, WIRE_START, RAM_ID, "ram", 0, 4);
	wire_mem_size(h->w, blocks, count);
	wire_ram_end(h->w, RAM_ID);
	if (h->o->early)
		wire_device(h->w, EARLY_DEVICE_ID, h->o->early);
	for (unsigned r = 0; r + 1 < rounds; r++)
		honest_round(h, r, WIRE_PART);
	honest_close(h);
	if (h->o->switchover_start)
		wire_switchover_start(h->w);
	honest_round(h, rounds - 1, WIRE_END);
	honest_close(h);
}

static void honest_end(struct wire *w, const struct honest_opts *o)
{
	const struct wire_device *devices = o->devices ? o->devices : wire_standard_devices;
	unsigned count = o->devices ? o->device_count : 5;
	const char *run_state = o->run_state ? o->run_state : "running";

	for (unsigned i = 0; i < count; i++)
		wire_device(w, FIRST_DEVICE_ID + i * 3, &devices[i]);
	if (run_state[0])
		wire_globalstate(w, FIRST_DEVICE_ID + count * 3, run_state);
	wire_eof(w);
	if (!o->no_vmdesc)
		wire_vmdesc(w);
}

void wire_honest(struct wire *w, const struct honest_opts *opts, struct honest_image *ret_image)
{
	const struct wire_block *blocks = opts->blocks ? opts->blocks : wire_standard_blocks;
	unsigned count = opts->blocks ? opts->block_count : 2;
	struct honest_image image = { .block_count = count };
	struct honest h = { .w = w, .o = opts, .image = &image };

	ASSERT(count <= 8);
	for (unsigned i = 0; i < count; i++) {
		snprintf(image.blocks[i].name, sizeof(image.blocks[i].name), "%s", blocks[i].name);
		image.blocks[i].bytes = blocks[i].bytes;
		image.blocks[i].data = calloc(1, blocks[i].bytes);
		ASSERT(image.blocks[i].data);
	}
	honest_begin(w, opts);
	honest_ram(&h, blocks, count);
	honest_end(w, opts);
	if (ret_image)
		*ret_image = image;
	else
		honest_image_fini(&image);
}

void honest_image_fini(struct honest_image *image)
{
	for (unsigned i = 0; i < image->block_count; i++)
		free(image->blocks[i].data);
	*image = (struct honest_image){ 0 };
}
