/*
 * Page records in any order a source might think of: runs upwards, downwards and on the spot, between blocks, named or
 * continued, of all kinds, broken into sections anywhere, delivered in pieces of any size. Memory is compared with a
 * model that only knows "the last write wins, and what is not written stays" (doc/wire/stream.md 4). RECORDS_SEED plays
 * one seed alone.
 */
#include "tests/support/check_main.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/be.h"
#include "tests/support/chance.h"
#include "tests/support/scene.h"

#define PAGE ((uint64_t)WIRE_TPAGE_BYTES)
#define RAM_ID 2u

static const char *const caps[] = { "xbzrle", "compress", NULL };

static const struct wire_block blocks[3] = {
	{ .name = "a", .bytes = 300 * WIRE_TPAGE_BYTES },
	{ .name = "pc.ram", .bytes = 40 * WIRE_TPAGE_BYTES },
	{ .name = "single", .bytes = WIRE_TPAGE_BYTES },
};

struct model {
	struct scene *s;
	uint64_t rng;
	unsigned block; /* of the record before */
	uint64_t tpage;
	bool named;
};

static uint64_t below(struct model *m, uint64_t limit)
{
	return chance_below(&m->rng, limit);
}

/* The next place: mostly the next page, as sources do it. */
static void move(struct model *m, bool runs)
{
	unsigned before = m->block;
	uint64_t pages;

	switch (below(m, runs ? 60 : 6)) {
	case 0:
		m->block = (unsigned)below(m, 3);
		break;
	case 1:
		break; /* the same page again */
	case 2:
		m->tpage -= m->tpage > 0;
		break;
	case 3:
		m->tpage += 2;
		break;
	case 4:
		m->tpage = below(m, 300);
		break;
	default:
		m->tpage++;
	}
	pages = blocks[m->block].bytes / PAGE;
	m->tpage %= pages;
	if (m->block != before)
		m->named = false;
}

static void fill(struct model *m, uint8_t *page)
{
	uint64_t mark = chance_draw(&m->rng);

	for (unsigned i = 0; i < PAGE / 8; i++)
		be64_store(page + i * 8, i % 16 ? 0 : mark + i);
}

static void record(struct model *m)
{
	uint8_t *mine = m->s->image.blocks[m->block].data + m->tpage * PAGE, page[WIRE_TPAGE_BYTES];
	const char *name = m->named && below(m, 20) ? NULL : blocks[m->block].name;
	struct wire *w = &m->s->wire;
	uint64_t addr = m->tpage * PAGE;

	fill(m, page);
	switch (below(m, 20)) {
	case 0:
		memset(page, 0, sizeof(page));
		wire_zero(w, name, addr, 0);
		break;
	case 1:
		wire_compress(w, name, addr, page);
		break;
	case 2:
		memcpy(page, mine, sizeof(page));
		page[below(m, PAGE)] ^= 0x5a;
		wire_xbzrle(w, name, addr, mine, page);
		break;
	default:
		wire_page(w, name, addr, page);
	}
	memcpy(mine, page, sizeof(page));
	m->named = true;
}

static void build(struct model *m, unsigned records)
{
	struct wire *w = &m->s->wire;
	bool runs = below(m, 2);

	wire_header(w);
	wire_config(w, "pc-i440fx-7.2");
	wire_section(w, WIRE_START, RAM_ID, "ram", 0, 4);
	wire_mem_size(w, blocks, 3);
	wire_ram_end(w, RAM_ID);
	wire_part(w, WIRE_PART, RAM_ID);
	for (unsigned i = 0; i < records; i++) {
		record(m);
		move(m, runs);
		if (below(m, 50))
			continue;
		wire_ram_end(w, RAM_ID);
		wire_part(w, WIRE_PART, RAM_ID);
	}
	wire_ram_end(w, RAM_ID);
	wire_part(w, WIRE_END, RAM_ID);
	record(m);
	wire_ram_end(w, RAM_ID);
	wire_globalstate(w, 20, "running");
	wire_eof(w);
	wire_vmdesc(w);
}

static void model_begin(struct model *m, struct scene *s, uint64_t seed)
{
	scene_begin(s, NULL);
	*m = (struct model){ .s = s, .rng = seed };
	s->image.block_count = 3;
	for (unsigned i = 0; i < 3; i++) {
		struct emb_block *b;

		snprintf(s->image.blocks[i].name, sizeof(s->image.blocks[i].name), "%s", blocks[i].name);
		s->image.blocks[i].bytes = blocks[i].bytes;
		s->image.blocks[i].data = calloc(1, blocks[i].bytes);
		ck_assert_ptr_nonnull(s->image.blocks[i].data);
		b = embedder_add(&s->e, blocks[i].name, blocks[i].bytes, below(m, 2) ? EMB_ANON : EMB_MEMFD);
		b->dirty = below(m, 2);
		memset(s->image.blocks[i].data, b->dirty ? EMB_PREFILL : 0, blocks[i].bytes);
	}
}

static void play(uint64_t seed)
{
	static const size_t chunks[] = { 0, 1000, 4096, 4105, 20000, 70000 };
	struct model m;
	struct scene s;
	struct pump p;
	int fd;

	model_begin(&m, &s, seed);
	build(&m, 400);
	fd = pump_open(&p, &s.wire);
	p.chunk_bytes = chunks[below(&m, sizeof(chunks) / sizeof(chunks[0]))];
	land_pump(&s.e, &p, fd, &(struct land_opts){ .caps = caps }, UINT32_MAX, NULL);
	ck_assert_msg(s.e.result == 0, "RECORDS_SEED=%llu: %d: %s", (unsigned long long)seed, s.e.result, s.e.error);
	ck_assert_msg(embedder_compare(&s.e, &s.image) == 0, "RECORDS_SEED=%llu: memory differs",
	              (unsigned long long)seed);
	ck_assert_uint_eq(s.e.stats.main_bytes, s.wire.len);
	scene_end(&s);
}

TEST_CASE("records", 120);

TEST(test_of_records_in_any_order_the_last_one_of_each_page_stays)
{
	unsigned long first = scene_env("RECORDS_SEED", 0);

	if (first) {
		play(first);
		return;
	}
	for (uint64_t seed = 1; seed <= 60; seed++)
		play(seed);
}

/* Runs of all lengths, each ended by something else than the next page: what is read ahead must not be kept. */
TEST(test_a_run_of_pages_may_end_anywhere)
{
	uint8_t page[WIRE_TPAGE_BYTES];
	struct model m;
	struct scene s;

	model_begin(&m, &s, 1);
	wire_header(&s.wire);
	wire_config(&s.wire, "pc-i440fx-7.2");
	wire_section(&s.wire, WIRE_START, RAM_ID, "ram", 0, 4);
	wire_mem_size(&s.wire, blocks, 3);
	wire_ram_end(&s.wire, RAM_ID);
	for (unsigned run = 1; run < 200; run++) {
		wire_part(&s.wire, run < 199 ? WIRE_PART : WIRE_END, RAM_ID);
		for (unsigned i = 0; i < run; i++) {
			fill(&m, page);
			wire_page(&s.wire, i ? NULL : "a", i * PAGE, page);
			memcpy(s.image.blocks[0].data + i * PAGE, page, PAGE);
		}
		wire_ram_end(&s.wire, RAM_ID);
	}
	wire_globalstate(&s.wire, 20, "running");
	wire_eof(&s.wire);
	wire_vmdesc(&s.wire);
	scene_land(&s, &(struct land_opts){ 0 });
	scene_check_landed(&s);
	scene_end(&s);
}
