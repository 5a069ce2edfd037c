/* Live sections that are neither RAM nor bitmaps: byte for byte to the embedder, or refused at their START. */
#include "tests/support/check_main.h"

#include <errno.h>
#include <string.h>

#include "tests/support/scene.h"

#define SECTION_ID 7
#define COLLECTED_MAX (4u << 20)

static struct {
	uint8_t data[COLLECTED_MAX];
	size_t bytes;
	unsigned lasts[3], pieces, wrong;
	int fail;
	const uint8_t *stream;
} got;

static int collect(void *opaque, const struct inm_live_state *piece)
{
	(void)opaque;
	got.pieces++;
	got.wrong += piece->bytes == 0 || got.bytes + piece->bytes > COLLECTED_MAX ||
	             memcmp(piece->data, got.stream + piece->stream_offset, piece->bytes) != 0;
	if (got.wrong)
		return -EIO;
	memcpy(got.data + got.bytes, piece->data, piece->bytes);
	got.bytes += piece->bytes;
	got.lasts[piece->part] += piece->last;
	return got.fail;
}

struct live_case {
	const char *name;
	uint32_t version;
	const void *start, *part, *end;
	size_t start_bytes, part_bytes, end_bytes;
};

static void put_body(struct wire *w, uint8_t type, const struct live_case *c, const void *body, size_t bytes)
{
	if (type == WIRE_START)
		wire_section(w, type, SECTION_ID, c->name, 3, c->version);
	else
		wire_part(w, type, SECTION_ID);
	wire_bytes(w, body, bytes);
	wire_footer(w, SECTION_ID);
}

/* An honest stream with the section in its set-up, two rounds of it, and its END where @c has one. */
static void make(struct scene *s, const struct live_case *c)
{
	struct wire more = { 0 }, ram = { 0 };
	size_t at;

	scene_begin(s, &(struct honest_opts){ .rounds = 2 });
	put_body(&more, WIRE_START, c, c->start, c->start_bytes);
	at = wire_find(&s->wire, "PART", 0);
	put_body(&ram, WIRE_PART, c, c->part, c->part_bytes);
	put_body(&ram, WIRE_PART, c, c->part, c->part_bytes);
	wire_bytes(&more, ram.data, ram.len);
	if (c->end)
		put_body(&more, WIRE_END, c, c->end, c->end_bytes);
	wire_insert(&s->wire, at, more.data, more.len);
	wire_fini(&more);
	wire_fini(&ram);
	memset(&got, 0, sizeof(got));
	got.stream = s->wire.data;
}

static int land_it(struct scene *s, bool callback)
{
	struct inm_ops ops = embedder_ops;

	ops.live_state = callback ? collect : NULL;
	return scene_land(s, &(struct land_opts){ .ops = &ops });
}

#define HTAB_ENTRY "0123456789abcdef"
#define HTAB_END "\0\0\0\0\0\0\0\0"
#define CASE(name, version, s, p, e) \
	{ \
		name, version, s, p, e, sizeof(s) - 1, sizeof(p) - 1, sizeof(e) - 1 \
	}

static const struct live_case good[] = {
	CASE("spapr/htab", 1, "\0\0\0\x12", "\0\0\0\0\0\0\0\5\0\2\0\1" HTAB_ENTRY HTAB_ENTRY HTAB_END,
	     "\0\0\0\0" HTAB_END),
	/* An index without entries is not the end. */
	CASE("spapr/htab", 1, "\0\0\0\x2e",
	     "\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\1\0\0" HTAB_ENTRY "\0\0\0\0\0\0\0\1" HTAB_END, "\0\0\0\0" HTAB_END),
	/* A radix guest. */
	CASE("spapr/htab", 1, "\xff\xff\xff\xff", "\xff\xff\xff\xff", "\xff\xff\xff\xff"),
	CASE("s390-storage_attributes", 0, "\0\0\0\0\0\0\0\1",
	     "\0\0\0\0\0\0\x10\2\0\0\0\0\0\0\0\5abcde\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1",
	     "\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\1"),
};

TEST_CASE("live_state", 60);

TEST_ROWS(test_a_live_state_reaches_the_embedder_byte_for_byte, good)
{
	const struct live_case *c = &good[_i];
	struct scene s;

	make(&s, c);
	ck_assert_msg(land_it(&s, true) == 0, "%s", s.e.error);
	scene_check_landed(&s);
	ck_assert_uint_eq(got.wrong, 0);
	ck_assert_uint_eq(got.bytes, c->start_bytes + 2 * c->part_bytes + c->end_bytes);
	ck_assert_mem_eq(got.data + c->start_bytes, c->part, c->part_bytes);
	ck_assert_mem_eq(got.data + got.bytes - c->end_bytes, c->end, c->end_bytes);
	ck_assert_uint_eq(got.lasts[INM_LIVE_START], 1);
	ck_assert_uint_eq(got.lasts[INM_LIVE_PART], 2);
	ck_assert_uint_eq(got.lasts[INM_LIVE_END], 1);
	scene_end(&s);
}

TEST(test_a_long_body_comes_in_pieces)
{
	static uint8_t part[4 + 8 + 65535 * 16 + 8];
	struct live_case c = good[0];
	struct scene s;

	part[8] = part[9] = 0xff;
	memset(part + 12, 0x42, 65535 * 16);
	c.part = part;
	c.part_bytes = sizeof(part);
	make(&s, &c);
	ck_assert_msg(land_it(&s, true) == 0, "%s", s.e.error);
	ck_assert_uint_eq(got.bytes, c.start_bytes + 2 * c.part_bytes + c.end_bytes);
	ck_assert_uint_ge(got.pieces, 32);
	ck_assert_uint_eq(got.lasts[INM_LIVE_PART], 2);
	scene_end(&s);
}

TEST_EACH(test_an_embedder_without_a_place_for_it_refuses_it_at_its_start, 4)
{
	struct scene s;

	make(&s, &good[_i]);
	ck_assert_int_eq(land_it(&s, false), -ENOTSUP);
	ck_assert_msg(strstr(s.e.error, "START") && strstr(s.e.error, good[_i].name) && strstr(s.e.error, "live_state"),
	              "%s", s.e.error);
	scene_end(&s);
}

TEST(test_a_refusal_of_a_piece_ends_the_migration)
{
	struct scene s;

	make(&s, &good[0]);
	got.fail = -ENOSPC;
	ck_assert_int_eq(land_it(&s, true), -ENOSPC);
	ck_assert_msg(strstr(s.e.error, "spapr/htab"), "%s", s.e.error);
	scene_end(&s);
}

TEST(test_a_positive_answer_to_a_piece_is_a_mistake_and_not_success)
{
	struct scene s;

	make(&s, &good[0]);
	got.fail = ENOSPC;
	ck_assert_int_eq(land_it(&s, true), -EINVAL);
	ck_assert_msg(strstr(s.e.error, "the callback for live section 'spapr/htab' returned 28; it must return 0"),
	              "%s", s.e.error);
	ck_assert_uint_eq(got.pieces, 1);
	scene_end(&s);
}

TEST_EACH(test_lies_about_a_live_state_are_named, 6)
{
	static const struct {
		struct live_case c;
		const char *why;
	} bad[] = {
		{ CASE("spapr/htab", 2, "\0\0\0\x12", "", ""), "version 2" },
		{ CASE("spapr/htab", 1, "\0\0\0\x12", "\0\0\0\x12" HTAB_END, ""), "0x00000012" },
		{ CASE("s390-storage_attributes", 0, "\0\0\0\0\0\0\0\4", "", ""), "could not read" },
		{ CASE("s390-storage_attributes", 0, "\0\0\0\0\0\0\0\3", "", ""), "flags" },
		{ CASE("s390-storage_attributes", 0, "\0\0\0\0\0\0\0\2\xff\xff\xff\xff\xff\xff\xff\xff", "", ""),
		  "attributes" },
		{ { "spapr/htab", 1, "\0\0\0\x12", "\0\0\0\0" HTAB_END, NULL, 4, 12, 0 }, "has ended" },
	};
	struct scene s;

	make(&s, &bad[_i].c);
	ck_assert_int_eq(land_it(&s, true), -EPROTO);
	ck_assert_msg(strstr(s.e.error, bad[_i].why) && strstr(s.e.error, bad[_i].c.name), "%s", s.e.error);
	scene_end(&s);
}
