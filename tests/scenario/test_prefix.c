/* A stream that ends anywhere but at its end: the guest never starts, nothing hangs, nothing is left behind. */
#include "tests/support/check_main.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/scene.h"

#define CENSUS_EVERY 64u

static const char *const caps[] = { "xbzrle", "compress", NULL };

/* Every kind of record in few bytes, so that every single byte can be a border. */
static enum wire_how fill_small(void *opaque, unsigned block, uint64_t tpage, unsigned round, uint8_t *page)
{
	(void)opaque;
	memset(page, (int)(1 + block), 100 + tpage);
	page[50] = (uint8_t)round;
	if (round)
		return tpage < 3 ? WIRE_SEND_XBZRLE : WIRE_SEND_NOT;
	if (block == 0 && tpage == 0)
		return WIRE_SEND_PAGE;
	return tpage % 3 == 1 ? WIRE_SEND_ZERO : WIRE_SEND_COMPRESS;
}

/* One cut. Return: what went wrong, or NULL. */
static const char *cut(struct scene *s, size_t at, bool return_path)
{
	const struct land_opts o = { .return_path = return_path, .caps = caps, .deadline_ms = 5000 };
	struct pump p;
	int r, fd = pump_open(&p, &s->wire);

	embedder_reset(&s->e);
	p.stop_at = at;
	p.end = at % 2 ? PUMP_CLOSE : PUMP_SHUTDOWN; /* the end of the connection, or of the stream only */
	r = land_pump(&s->e, &p, fd, &o, UINT32_MAX, NULL);
	if (r == -ETIMEDOUT)
		return "hangs";
	if (r == 0 || s->e.start_calls)
		return "landed";
	if (!s->e.error[0] || s->e.stats.state != INM_STATE_FAILED)
		return "failed without a story";
	return NULL;
}

static void cuts(bool return_path, size_t from, size_t to, size_t step)
{
	unsigned count = 0;
	struct scene s;

	scene_begin(&s, &(struct honest_opts){ .return_path = return_path, .rounds = 3, .fill = fill_small });
	census_free(&s.before);
	census_take(&s.before); /* with the blocks, for the checks on the way */
	if (to > s.wire.len)
		to = s.wire.len;
	for (size_t at = from; at < to; at += step) {
		const char *wrong = cut(&s, at, return_path);

		ck_assert_msg(!wrong, "cut at 0x%zx of 0x%zx: %s (%d: %s)", at, s.wire.len, wrong, s.e.result,
		              s.e.error);
		if (++count % CENSUS_EVERY == 0)
			ck_assert_msg(census_differs(&s.before) == 0, "left behind by the cuts before 0x%zx", at);
	}
	ck_assert_uint_eq(census_differs(&s.before), 0);
	ck_assert_uint_eq(embedder_canaries(&s.e), 0);
	embedder_fini(&s.e);
	honest_image_fini(&s.image);
	wire_fini(&s.wire);
	census_free(&s.before);
}

TEST_CASE("prefix", 600);

TEST(test_a_stream_cut_at_any_byte_never_lands)
{
	cuts(false, 1, SIZE_MAX, 1);
}

TEST(test_a_stream_with_return_path_cut_at_any_byte_never_lands)
{
	cuts(true, 1, SIZE_MAX, 1);
}

TEST(test_an_empty_stream_never_lands)
{
	struct scene s;

	scene_begin(&s, &(struct honest_opts){ .fill = fill_small });
	ck_assert_ptr_null(cut(&s, 0, false));
	scene_end(&s);
}

TEST(test_the_uncut_stream_lands)
{
	struct scene s;

	scene_begin(&s, &(struct honest_opts){ .rounds = 3, .fill = fill_small });
	ck_assert_uint_lt(s.wire.len, 65536);
	scene_land(&s, &(struct land_opts){ .caps = caps });
	scene_check_landed(&s);
	scene_end(&s);
}

TEST(test_a_large_stream_cut_at_any_element_never_lands)
{
	struct scene s;

	scene_begin(&s, &(struct honest_opts){ .rounds = 4 });
	for (size_t i = 1; i < s.wire.mark_count; i++) {
		const char *wrong = cut(&s, s.wire.marks[i].off, false);

		ck_assert_msg(!wrong, "cut before %s at 0x%zx: %s", s.wire.marks[i].what, s.wire.marks[i].off, wrong);
	}
	scene_end(&s);
}

/* Pages whole and far apart: the cuts inside of one are alike, so PREFIX_STEP is a prime beside their size. */
TEST(test_a_large_stream_cut_anywhere_never_lands)
{
	size_t step = scene_env("PREFIX_STEP", 97);
	struct scene s;

	scene_begin(&s, &(struct honest_opts){ .rounds = 4 });
	ck_assert_uint_gt(s.wire.len, 65536);
	for (size_t at = step; at < s.wire.len; at += step) {
		const char *wrong = cut(&s, at, false);

		ck_assert_msg(!wrong, "cut at 0x%zx: %s", at, wrong);
	}
	scene_end(&s);
}

TEST(test_a_reset_connection_never_lands)
{
	static const char *const where[] = { "PART", "END", "FULL", "vmdesc" };

	for (unsigned i = 0; i < sizeof(where) / sizeof(where[0]); i++) {
		struct scene s;

		scene_begin(&s, &(struct honest_opts){ .return_path = true });
		scene_land(&s, &(struct land_opts){ .return_path = true,
		                                    .uri = "tcp:127.0.0.1:0",
		                                    .stop_at = wire_find(&s.wire, where[i], 0) + 3,
		                                    .end = SOURCE_END_RESET });
		ck_assert_msg(s.e.result < 0 && s.e.result != -ETIMEDOUT, "%s: %d", where[i], s.e.result);
		ck_assert_uint_eq(s.e.start_calls, 0);
		scene_end(&s);
	}
}
