/*
 * Honest streams with random damage: whatever comes, the library ends, in time, in bounded memory, without a write
 * outside the blocks. MUTATIONS is the number of runs; MUTATION_SEED plays one of them again, in this process.
 */
#include "tests/support/check_main.h"

#include <errno.h>
#include <string.h>

#include "base/be.h"
#include "tests/support/chance.h"
#include "tests/support/mutations.h"
#include "tests/support/scene.h"

#define RUN_MS_MAX 5000u

static const char *const caps[] = { "xbzrle", "compress", NULL };

static enum wire_how fill_small(void *opaque, unsigned block, uint64_t tpage, unsigned round, uint8_t *page)
{
	(void)opaque;
	memset(page, (int)(1 + block), 64 + tpage);
	page[50] = (uint8_t)round;
	if (round)
		return tpage % 2 ? WIRE_SEND_XBZRLE : WIRE_SEND_NOT;
	if (tpage == 0)
		return WIRE_SEND_PAGE;
	return tpage % 3 == 1 ? WIRE_SEND_ZERO : WIRE_SEND_COMPRESS;
}

/* ---- damage ------------------------------------------------------------------------------------------------ */

/* Near an element's head more often than in the middle of a page. */
static size_t somewhere(const struct wire *w, uint64_t *rng)
{
	size_t off;

	if (chance_below(rng, 4) == 0)
		return chance_below(rng, w->len);
	off = w->marks[chance_below(rng, w->mark_count)].off + chance_below(rng, 12);
	return off < w->len ? off : w->len - 1;
}

static void interesting(struct wire *w, size_t off, uint64_t *rng)
{
	static const uint64_t values[] = {
		0,
		1,
		2,
		3,
		0x10,
		0x7f,
		0x80,
		0xff,
		0x100,
		0xfff,
		0x1000,
		0x1001,
		0x7fff,
		0x8000,
		0xffff,
		0x10000,
		0x7fffffff,
		0x80000000,
		0xffffffff,
		0x100000000,
		0x7fffffffffffffff,
		0x8000000000000000,
		0xfffffffffffff000,
		0xffffffffffffffff,
	};
	static const size_t widths[] = { 1, 2, 4, 8 };
	uint64_t value = values[chance_below(rng, sizeof(values) / sizeof(values[0]))];
	size_t width = widths[chance_below(rng, 4)];
	uint8_t be[8];

	be64_store(be, value);
	if (width > w->len - off)
		width = w->len - off;
	memcpy(w->data + off, be + 8 - width, width);
}

static void damage(struct wire *w, uint64_t *rng)
{
	size_t off = somewhere(w, rng), from = somewhere(w, rng),
	       len = 1 + chance_below(rng, chance_below(rng, 3) ? 16 : 5000);
	uint8_t noise[16];

	if (len > w->len - off)
		len = w->len - off;
	for (unsigned i = 0; i < sizeof(noise); i++)
		noise[i] = (uint8_t)chance_draw(rng);
	switch (chance_below(rng, 7)) {
	case 0:
		w->data[off] ^= (uint8_t)(1u << chance_below(rng, 8));
		break;
	case 1:
		memcpy(w->data + off, noise, len < sizeof(noise) ? len : sizeof(noise));
		break;
	case 2:
		wire_insert(w, off, noise, 1 + chance_below(rng, sizeof(noise)));
		break;
	case 3:
		if (w->len > len + 64)
			wire_delete(w, off, len);
		break;
	case 4: /* a range twice, or somewhere else as well */
		if (len > w->len - from)
			len = w->len - from;
		wire_insert(w, chance_below(rng, 2) ? from : off, w->data + from, len);
		break;
	default:
		interesting(w, off, rng);
	}
}

/* ---- runs -------------------------------------------------------------------------------------------------- */

struct bench {
	struct scene scene; /* its wire is the honest one */
	struct wire with_return_path;
};

static struct bench bench; /* of the child that runs */

static void bench_begin(struct bench *b)
{
	scene_begin(&b->scene, &(struct honest_opts){ .rounds = 3, .fill = fill_small });
	b->with_return_path = (struct wire){ 0 };
	wire_honest(&b->with_return_path, &(struct honest_opts){ .rounds = 3, .fill = fill_small, .return_path = true },
	            NULL);
	census_free(&b->scene.before);
	census_take(&b->scene.before);
}

static void begin_runs(void)
{
	bench_begin(&bench);
}

static const char *run(uint64_t seed, bool *ret_landed)
{
	struct bench *b = &bench;
	uint64_t rng = seed;
	bool return_path = chance_below(&rng, 2);
	const struct land_opts o = { .return_path = return_path, .caps = caps, .deadline_ms = RUN_MS_MAX };
	struct wire w;
	struct pump p;
	int r, fd;

	wire_copy(&w, return_path ? &b->with_return_path : &b->scene.wire);
	for (size_t i = 1 + chance_below(&rng, 3); i--;)
		damage(&w, &rng);
	fd = pump_open(&p, &w);
	/* A source that reads replies must live until they are written: otherwise the first PONG ends it all. */
	p.end = return_path || chance_below(&rng, 2) ? PUMP_SHUTDOWN : PUMP_CLOSE;
	p.chunk_bytes = chance_below(&rng, 3) ? 0 : 1 + chance_below(&rng, 3000);
	embedder_reset(&b->scene.e);
	r = land_pump(&b->scene.e, &p, fd, &o, UINT32_MAX, NULL);
	wire_fini(&w);
	*ret_landed = r == 0;
	if (r == -ETIMEDOUT)
		return "does not end";
	if (r > 0 || (r < 0 && !b->scene.e.error[0]))
		return "failed without a story";
	if (r < 0 && b->scene.e.start_calls)
		return "failed after the guest was started";
	return NULL;
}

static const char *look(void)
{
	if (embedder_canaries(&bench.scene.e))
		return "memory outside a block was written to";
	if (census_differs(&bench.scene.before))
		return "something is left behind";
	return NULL;
}

static const char *story(void)
{
	return bench.scene.e.error;
}

TEST_CASE("mutation", 1800);

TEST(test_no_mutation_crashes_hangs_or_takes_memory)
{
	mutations_play(&(struct mutations){ .count = 2000,
	                                    .landed_percent_max = 50,
	                                    .look_every = 256,
	                                    .begin = begin_runs,
	                                    .run = run,
	                                    .look = look,
	                                    .story = story });
}

TEST(test_without_damage_the_same_streams_land)
{
	struct bench b;

	bench_begin(&b);
	scene_land(&b.scene, &(struct land_opts){ .caps = caps });
	scene_check_landed(&b.scene);
	embedder_reset(&b.scene.e);
	ck_assert_int_eq(
	        land(&b.scene.e, &b.with_return_path, &(struct land_opts){ .caps = caps, .return_path = true }, NULL),
	        0);
	ck_assert_uint_eq(embedder_compare(&b.scene.e, &b.scene.image), 0);
	wire_fini(&b.with_return_path);
	ck_assert_uint_eq(census_differs(&b.scene.before), 0);
	embedder_fini(&b.scene.e);
	honest_image_fini(&b.scene.image);
	wire_fini(&b.scene.wire);
	census_free(&b.scene.before);
}
