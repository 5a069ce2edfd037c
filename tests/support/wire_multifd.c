/* Multifd channels, packet by packet, and whole migrations over them. See wire.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "base/assert.h"
#include "tests/support/wire.h"

#define MAGIC 0x11223344u

void wire_multifd_hello(struct wire *w, const uint8_t *uuid, uint8_t id)
{
	wire_mark(w, "hello");
	wire_be32(w, MAGIC);
	wire_be32(w, 1);
	if (uuid)
		wire_bytes(w, uuid, 16);
	else
		wire_fill(w, 0, 16);
	wire_u8(w, id);
	wire_fill(w, 0, 39);
}

void wire_multifd_header(struct wire *w, const struct wire_packet *p)
{
	char name[256] = "";
	unsigned used = p->offset_count < WIRE_MULTIFD_PAGES_MAX ? p->offset_count : WIRE_MULTIFD_PAGES_MAX;

	if (p->block)
		memcpy(name, p->block, strnlen(p->block, sizeof(name)));
	wire_mark(w, "packet");
	wire_be32(w, p->magic ? p->magic : MAGIC);
	wire_be32(w, p->version ? p->version : 1);
	wire_be32(w, p->flags);
	wire_be32(w, p->pages_alloc);
	wire_be32(w, p->normal_pages);
	wire_be32(w, p->payload_bytes);
	wire_be64(w, p->packet_num);
	wire_be32(w, p->zero_pages);
	wire_fill(w, 0, 28);
	wire_bytes(w, name, sizeof(name));
	for (unsigned i = 0; i < used; i++)
		wire_be64(w, p->offsets[i]);
	wire_fill(w, 0, 8 * (WIRE_MULTIFD_PAGES_MAX - used));
}

void wire_multifd_sync(struct wire *w)
{
	wire_mark(w, "SYNC");
	wire_multifd_header(w, &(struct wire_packet){ .flags = WIRE_MULTIFD_SYNC });
	wire_mark(w, "interval");
}

void wire_multifd_device(struct wire *w, const char *name, uint32_t instance_id, const void *data, uint32_t bytes)
{
	char idstr[256] = "";

	memcpy(idstr, name, strnlen(name, sizeof(idstr)));
	wire_mark(w, "device packet");
	wire_be32(w, MAGIC);
	wire_be32(w, 1);
	wire_be32(w, WIRE_MULTIFD_DEVICE);
	wire_bytes(w, idstr, sizeof(idstr));
	wire_be32(w, instance_id);
	wire_be32(w, bytes);
	wire_bytes(w, data, bytes);
}

/* ---- compression (doc/wire/multifd.md 4.5) -------------------------------------------------------------------- */

struct wire_encoder {
	uint32_t method;
	z_stream zlib;
	ZSTD_CStream *zstd;
};

struct wire_encoder *wire_encoder_new(uint32_t method)
{
	return wire_encoder_new_at(method, 1);
}

struct wire_encoder *wire_encoder_new_at(uint32_t method, int level)
{
	struct wire_encoder *enc = calloc(1, sizeof(*enc));

	ASSERT(enc);
	enc->method = method;
	if (method == WIRE_MULTIFD_ZLIB)
		ASSERT(deflateInit(&enc->zlib, level) == Z_OK);
	if (method == WIRE_MULTIFD_ZSTD) {
		enc->zstd = ZSTD_createCStream();
		ASSERT(enc->zstd && !ZSTD_isError(ZSTD_initCStream(enc->zstd, level)));
	}
	return enc;
}

void wire_encoder_free(struct wire_encoder *enc)
{
	if (!enc)
		return;
	if (enc->method == WIRE_MULTIFD_ZLIB)
		deflateEnd(&enc->zlib);
	ZSTD_freeCStream(enc->zstd);
	free(enc);
}

static size_t encode_zlib(struct wire_encoder *enc, const void *src, size_t bytes, void *ret_piece, size_t cap)
{
	enc->zlib.next_in = (Bytef *)src;
	enc->zlib.avail_in = (uInt)bytes;
	enc->zlib.next_out = ret_piece;
	enc->zlib.avail_out = (uInt)cap;
	ASSERT(deflate(&enc->zlib, Z_SYNC_FLUSH) == Z_OK);
	ASSERT(enc->zlib.avail_in == 0 && enc->zlib.avail_out > 0);
	return cap - enc->zlib.avail_out;
}

static size_t encode_zstd(struct wire_encoder *enc, const void *src, size_t bytes, void *ret_piece, size_t cap)
{
	ZSTD_inBuffer in = { src, bytes, 0 };
	ZSTD_outBuffer out = { ret_piece, cap, 0 };

	ASSERT(ZSTD_compressStream2(enc->zstd, &out, &in, ZSTD_e_flush) == 0);
	ASSERT(in.pos == in.size);
	return out.pos;
}

size_t wire_encode(struct wire_encoder *enc, const void *src, size_t bytes, void *ret_piece, size_t cap)
{
	if (enc->method == WIRE_MULTIFD_ZLIB)
		return encode_zlib(enc, src, bytes, ret_piece, cap);
	if (enc->method == WIRE_MULTIFD_ZSTD)
		return encode_zstd(enc, src, bytes, ret_piece, cap);
	ASSERT(bytes <= cap);
	memcpy(ret_piece, src, bytes);
	return bytes;
}

/* ---- a whole migration --------------------------------------------------------------------------------------- */

#define RAM_ID 2u
#define FIRST_DEVICE_ID 10u
#define PIECE_BYTES_MAX (1u << 20)
#define PAGE WIRE_TPAGE_BYTES

/* A packet that is being filled. */
struct lane {
	struct wire *w;
	struct wire_encoder *enc;
	const char *block; /* of the pages waiting; stays as the stale name */
	uint64_t normal[WIRE_MULTIFD_PAGES_MAX], zero[WIRE_MULTIFD_PAGES_MAX];
	unsigned normal_count, zero_count;
	uint8_t pages[WIRE_MULTIFD_PAGES_MAX * PAGE];
	struct wire_packet last; /* what stale fields repeat */
	uint64_t last_offsets[WIRE_MULTIFD_PAGES_MAX];
};

struct maker {
	const struct multifd_opts *o;
	struct multifd_honest *h;
	struct lane *lanes;
	uint64_t packet_num;
	uint8_t *piece;
};

/* What waits in the lane goes out; in old streams with the flag of the sync point that
 * made it go (doc/wire/multifd.md 4.4). */
static void lane_flush(struct maker *m, struct lane *l, bool sync)
{
	uint64_t offsets[2 * WIRE_MULTIFD_PAGES_MAX];
	unsigned count = l->normal_count + l->zero_count;
	struct wire_packet p = { .flags = (sync ? WIRE_MULTIFD_SYNC : 0) | m->o->method,
		                 .pages_alloc = WIRE_MULTIFD_PAGES_MAX,
		                 .normal_pages = l->normal_count,
		                 .zero_pages = l->zero_count,
		                 .packet_num = m->packet_num++,
		                 .block = l->block,
		                 .offsets = l->last_offsets,
		                 .offset_count = count };

	memcpy(offsets, l->normal, l->normal_count * 8);
	memcpy(offsets + l->normal_count, l->zero, l->zero_count * 8);
	memcpy(l->last_offsets, offsets, count * 8);
	if (l->normal_count)
		p.payload_bytes =
		        (uint32_t)wire_encode(l->enc, l->pages, l->normal_count * PAGE, m->piece, PIECE_BYTES_MAX);
	if (sync)
		wire_mark(l->w, "SYNC");
	wire_multifd_header(l->w, &p);
	wire_mark(l->w, "payload");
	wire_bytes(l->w, m->piece, p.payload_bytes);
	l->last = p;
	l->normal_count = l->zero_count = 0;
}

static void lane_add(struct maker *m, struct lane *l, const char *block, uint64_t off, const uint8_t *page, bool zero)
{
	unsigned most = m->o->packet_pages ? m->o->packet_pages : WIRE_MULTIFD_PAGES_MAX;

	if (l->normal_count + l->zero_count && (l->block != block || l->normal_count + l->zero_count == most))
		lane_flush(m, l, false);
	l->block = block;
	if (zero) {
		l->zero[l->zero_count++] = off;
	} else {
		memcpy(l->pages + l->normal_count * PAGE, page, PAGE);
		l->normal[l->normal_count++] = off;
	}
}

static void lane_sync_old(struct maker *m, struct lane *l)
{
	struct wire_packet stale = l->last;

	/* The phantom, and an empty SYNC alike, repeat what the last packet with pages said, and announce nothing. */
	stale.normal_pages = stale.zero_pages = 0;
	stale.pages_alloc = WIRE_MULTIFD_PAGES_MAX;
	stale.flags = WIRE_MULTIFD_SYNC;
	stale.packet_num = m->packet_num;
	if (l->normal_count + l->zero_count) {
		lane_flush(m, l, true);
		stale = l->last;
		stale.normal_pages = stale.zero_pages = 0;
		stale.flags = 0;
	} else {
		wire_mark(l->w, "SYNC");
		m->packet_num++;
	}
	if (stale.flags || !m->o->no_phantom)
		wire_multifd_header(l->w, &stale);
	wire_mark(l->w, "interval");
}

static void sync_channels(struct maker *m)
{
	for (unsigned i = 0; i < m->h->count; i++) {
		struct lane *l = &m->lanes[i];

		if (m->o->old) {
			lane_sync_old(m, l);
			continue;
		}
		if (l->normal_count + l->zero_count)
			lane_flush(m, l, false);
		wire_multifd_sync(l->w);
	}
	m->h->syncs++;
}

/* The section's last record; @round_ends: in per-round mode there is a sync point before it. */
static void close_section(struct maker *m, bool round_ends)
{
	struct wire *w = &m->h->main;
	bool sync = m->o->per_section || round_ends;

	if (sync)
		sync_channels(m);
	wire_mark(w, "before sync");
	if (!m->o->per_section && round_ends)
		wire_flush(w);
	if (!m->o->per_section && round_ends)
		wire_mark(w, "sync point");
	wire_eos(w);
	if (m->o->per_section)
		wire_mark(w, "sync point");
	wire_footer(w, RAM_ID);
}

static void send_page(struct maker *m, unsigned block, uint64_t tpage, unsigned round, const uint8_t *page, bool zero)
{
	const char *name = m->h->image.blocks[block].name;
	int to = m->o->route ? m->o->route(m->o->opaque, block, tpage, round) : (int)((tpage + round) % m->h->count);

	memcpy(m->h->image.blocks[block].data + tpage * PAGE, page, PAGE);
	m->h->image.page_records += !zero;
	m->h->image.zero_records += zero;
	if (zero && (m->o->zero_in_main || to < 0))
		wire_zero(&m->h->main, name, tpage * PAGE, 0);
	else if (to < 0)
		wire_page(&m->h->main, name, tpage * PAGE, page);
	else
		lane_add(m, &m->lanes[to], name, tpage * PAGE, page, zero);
}

static uint64_t pages_of(const struct honest_image *image)
{
	uint64_t pages = 0;

	for (unsigned b = 0; b < image->block_count; b++)
		pages += image->blocks[b].bytes / PAGE;
	return pages;
}

/* Two sections: in per-section mode a sync point in the middle, too. */
static void make_round(struct maker *m, unsigned round, unsigned rounds)
{
	wire_fill_fn *fill = m->o->fill ? m->o->fill : wire_fill_default;
	uint64_t half = pages_of(&m->h->image) / 2, at = 0;
	uint8_t page[PAGE];

	wire_part(&m->h->main, WIRE_PART, RAM_ID);
	for (unsigned b = 0; b < m->h->image.block_count; b++) {
		for (uint64_t i = 0; i < m->h->image.blocks[b].bytes / PAGE; i++, at++) {
			enum wire_how how;

			if (at == half) {
				close_section(m, false);
				wire_part(&m->h->main, round + 1 == rounds ? WIRE_END : WIRE_PART, RAM_ID);
			}
			memset(page, 0, sizeof(page));
			how = fill(m->o->opaque, b, i, round, page);
			if (how == WIRE_SEND_ZERO)
				memset(page, 0, sizeof(page));
			if (how != WIRE_SEND_NOT)
				send_page(m, b, i, round, page, how == WIRE_SEND_ZERO);
		}
	}
	close_section(m, true);
}

static void make_begin(struct maker *m, const struct wire_block *blocks, unsigned count)
{
	struct wire *w = &m->h->main;

	wire_header(w);
	wire_config(w, m->o->machine ? m->o->machine : "pc-i440fx-7.2");
	if (m->o->return_path) {
		wire_open_return_path(w);
		wire_ping(w, 1);
	}
	wire_section(w, WIRE_START, RAM_ID, "ram", 0, 4);
	wire_mem_size(w, blocks, count);
	close_section(m, true);
}

static void make_end(struct wire *w)
{
	for (unsigned i = 0; i < 5; i++)
		wire_device(w, FIRST_DEVICE_ID + i * 3, &wire_standard_devices[i]);
	wire_globalstate(w, FIRST_DEVICE_ID + 15, "running");
	wire_eof(w);
	wire_vmdesc(w);
}

static void make_image(struct honest_image *image, const struct wire_block *blocks, unsigned count)
{
	ASSERT(count <= 8);
	image->block_count = count;
	for (unsigned i = 0; i < count; i++) {
		snprintf(image->blocks[i].name, sizeof(image->blocks[i].name), "%s", blocks[i].name);
		image->blocks[i].bytes = blocks[i].bytes;
		image->blocks[i].data = calloc(1, blocks[i].bytes);
		ASSERT(image->blocks[i].data);
	}
}

void multifd_honest(struct multifd_honest *ret, const struct multifd_opts *o)
{
	const struct wire_block *blocks = o->blocks ? o->blocks : wire_standard_blocks;
	unsigned count = o->blocks ? o->block_count : 2, rounds = o->rounds ? o->rounds : 2;
	struct maker m = { .o = o, .h = ret };

	*ret = (struct multifd_honest){ .count = o->channels ? o->channels : 2 };
	ret->channels = calloc(ret->count, sizeof(*ret->channels));
	m.lanes = calloc(ret->count, sizeof(*m.lanes));
	m.piece = malloc(PIECE_BYTES_MAX);
	ASSERT(ret->channels && m.lanes && m.piece);
	for (unsigned i = 0; i < ret->count; i++) {
		m.lanes[i].w = &ret->channels[i];
		m.lanes[i].enc = wire_encoder_new_at(o->method, o->level ? o->level : 1);
		wire_multifd_hello(&ret->channels[i], o->uuid, (uint8_t)i);
	}
	make_image(&ret->image, blocks, count);
	make_begin(&m, blocks, count);
	for (unsigned r = 0; r < rounds; r++)
		make_round(&m, r, rounds);
	make_end(&ret->main);
	for (unsigned i = 0; i < ret->count; i++)
		wire_encoder_free(m.lanes[i].enc);
	free(m.lanes);
	free(m.piece);
}

void multifd_honest_fini(struct multifd_honest *h)
{
	wire_fini(&h->main);
	for (unsigned i = 0; i < h->count; i++)
		wire_fini(&h->channels[i]);
	free(h->channels);
	honest_image_fini(&h->image);
	*h = (struct multifd_honest){ 0 };
}
