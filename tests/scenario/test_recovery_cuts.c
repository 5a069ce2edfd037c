/*
 * A postcopy is cut at the end of each record, and at arbitrary bytes, while the guest runs and writes. The source
 * comes back and sends what the bitmaps lack. Then every byte is right, nothing that the guest wrote is overwritten,
 * and no thread still waits (doc/wire/stream.md 5.8).
 *
 * CUTS=N: N cuts at random bytes, and from 2000 on at each piece of a huge page, too. CUTS_SEED=N: other bytes.
 */
#include "tests/support/check_main.h"

#include "tests/support/chance.h"
#include "tests/support/huge_pool.h"
#include "tests/support/recovery_scene.h"

#define CUTS_DEFAULT 120
#define CUTS_ALL 2000
#define RECORDS_MAX 5000
/* Of a huge page's pieces, where not each is taken. */
#define STRIDE 61
#define LIMIT_MS 10000

static const struct pc_block memories[][2] = {
	{ { "pc.ram", 12, EMB_MEMFD }, { "vga.vram", 4, EMB_ANON } },
	{ { "pc.ram", 12, EMB_ANON }, { "vga.vram", 4, EMB_MEMFD } },
	{ { "pc.ram", 2 * 512, EMB_HUGETLB }, { "vga.vram", 4, EMB_ANON } },
};
#define MEMORIES 3
#define HUGE_MEMORY 2

/* How pages travel: pushed on main while the guest runs; or only what it asks for. */
enum mode { PUSHED, ASKED_ON_MAIN, PUSHED_WITH_PREEMPT, ASKED_ON_PREEMPT, MODES };
#define WAYS (MEMORIES * MODES)
#define SMALL_WAYS (HUGE_MEMORY * MODES)

struct cut {
	int memory;
	enum mode mode;
	enum rec_cut which;
	bool reset; /* RST instead of FIN: over TCP, where the source came back to after a first loss */
	bool old;
	bool twice;  /* lost again in the same way as soon as it is back */
	bool random; /* at @at bytes after the package, else after @at records */
	size_t at;
};

static struct pc_opts opts_of(const struct cut *c)
{
	bool preempt = c->mode == PUSHED_WITH_PREEMPT || c->mode == ASKED_ON_PREEMPT;

	return pc_in_memory(
	        memories[c->memory],
	        (struct pc_opts){
	                .precopied = 10,
	                .preempt = !preempt ? PC_NO_PREEMPT :
	                           c->old   ? PC_EARLY :
	                                      PC_LATE,
	                .split = c->mode == PUSHED_WITH_PREEMPT,
	                .quiet = c->mode == ASKED_ON_MAIN || c->mode == ASKED_ON_PREEMPT,
	                .touch = { .threads = 3, .order = (enum pc_order)(c->at % 3), .write = true, .passes = 2 },
	        });
}

static struct rec_opts back_of(const struct cut *c)
{
	return (struct rec_opts){ .old = c->old, .preempt_first = c->at % 2 };
}

/* To the place of the cut. Return: whether the stream is so long. */
static bool come_to(struct rec *r, const struct cut *c)
{
	unsigned line = c->mode == ASKED_ON_PREEMPT ? PC_PREEMPT : PC_MAIN;
	size_t base = line == PC_MAIN ? r->s.lines[PC_MAIN].sent : 0;

	if (c->random) {
		rec_limit(r, line, base + c->at);
		return rec_until(r, rec_at_limit, LIMIT_MS);
	}
	rec_limit(r, line, base);
	for (size_t i = 0; i <= c->at; i++) {
		if (!rec_until(r, rec_at_limit, LIMIT_MS))
			return false;
		if (i < c->at)
			rec_next_record(r);
	}
	return true;
}

static bool lose_and_recover(struct rec *r, const struct cut *c, bool reset)
{
	const struct rec_opts back = back_of(c);

	if (!rec_pause(r, c->which, reset))
		return false;
	if (c->reset && !reset)
		rec_move(r, "tcp:127.0.0.1:0");
	rec_recover(r, &back);
	return true;
}

/* Return: whether there was something left to cut. */
static bool cut_once(const struct cut *c)
{
	const struct pc_opts o = opts_of(c);
	bool cut;
	struct rec r;

	rec_begin(&r, &o);
	pc_switch(&r.s);
	rec_limit(&r, PC_MAIN, r.s.package_end);
	ck_assert(rec_until(&r, rec_guest_runs, 5000));
	if (c->reset)
		ck_assert(lose_and_recover(&r, c, false));
	cut = come_to(&r, c);
	if (cut && lose_and_recover(&r, c, c->reset) && c->twice && come_to(&r, c))
		lose_and_recover(&r, c, c->reset);
	rec_limit(&r, r.line, SIZE_MAX);
	r.s.lines[PC_MAIN].held = r.s.lines[PC_PREEMPT].held = false;
	rec_finish(&r);
	return cut;
}

/* What else may differ goes by the place, so that each place sees another mix. */
static struct cut cut_at(int memory, enum mode mode, size_t at, bool random)
{
	uint64_t seed = (at * MEMORIES + (size_t)memory) * MODES + mode, dice = chance_draw(&seed);
	bool preempt = mode == PUSHED_WITH_PREEMPT || mode == ASKED_ON_PREEMPT;

	return (struct cut){ .memory = memory,
		             .mode = mode,
		             .which = preempt ? (enum rec_cut)(dice % REC_CUTS) : REC_MAIN,
		             .reset = dice >> 8 & 1,
		             .old = dice >> 9 & 1,
		             .twice = (dice >> 10) % 4 == 0,
		             .random = random,
		             .at = at };
}

/* Those that come after the package on the line that is cut; one of the huge pages has come before. */
static size_t pages_of(int memory, enum mode mode)
{
	if (memory != HUGE_MEMORY)
		return memories[memory][0].pages;
	return mode == PUSHED_WITH_PREEMPT ? 256 : 512;
}

TEST_CASE("records", 600);

TEST_EACH(test_a_cut_behind_each_record_loses_nothing, SMALL_WAYS)
{
	bool all = scene_env("CUTS", CUTS_DEFAULT) >= CUTS_ALL;
	enum mode mode = (enum mode)(_i % MODES);
	int memory = _i / MODES;
	size_t at = 0, places = 0;
	struct cut c;

	do {
		c = cut_at(memory, mode, at, false);
		places++;
		/* The other elements are around the small pages, after them. */
		at += memory == HUGE_MEMORY && !all ? STRIDE : 1;
	} while (cut_once(&c) && at < RECORDS_MAX);
	/* A few pages have come before. */
	ck_assert_uint_ge(places, pages_of(memory, mode) * 3 / 4 / (memory == HUGE_MEMORY && !all ? STRIDE : 1));
}

TEST_CASE("bytes", 600);

TEST_EACH(test_a_cut_at_any_byte_loses_nothing, SMALL_WAYS)
{
	uint64_t seed = scene_env("CUTS_SEED", 1) * MEMORIES * MODES + (uint64_t)_i;
	size_t bytes = pages_of(_i / MODES, (enum mode)(_i % MODES)) * PC_PAGE * 3 / 4;
	size_t cuts = (scene_env("CUTS", CUTS_DEFAULT) + MEMORIES * MODES - 1) / (MEMORIES * MODES), cut = 0;

	for (size_t i = 0; i < cuts; i++) {
		struct cut c = cut_at(_i / MODES, (enum mode)(_i % MODES), chance_draw(&seed) % bytes, true);

		cut += cut_once(&c);
	}
	ck_assert_uint_ge(cut, cuts * 8 / 10);
}

/* Others may have the pool while what needs none of it runs. */
TEST_CASE("records_huge", 600, HUGE_POOL);
TEST_AGAIN(test_a_cut_behind_each_record_loses_nothing, SMALL_WAYS, WAYS);

TEST_CASE("bytes_huge", 600, HUGE_POOL);
TEST_AGAIN(test_a_cut_at_any_byte_loses_nothing, SMALL_WAYS, WAYS);
