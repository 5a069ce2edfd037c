#include "engine/devices/split.h"
#include "engine/stream/globalstate.h"

#include <errno.h>

#include "base/be.h"
#include "tests/support/check_main.h"
#include "tests/unit/data/made.h"

/* ---- real tails and packages ---- */

static void check_footers_agree(struct tail *t)
{
	struct split_result r = tail_split(t), f = SPLIT_RESULT_NONE;
	struct err err = ERR_NONE;
	int got = split_by_footers(&f, t->buf, r.eof_off + 1, SPLIT_TAIL, &t->opts, &err);

	if (!t->opts.footers) {
		ck_assert_int_eq(got, -EINVAL);
	} else {
		ck_assert_msg(got == 0, "%s: %s", t->path, err.text);
		ck_assert_int_eq(f.way, SPLIT_BY_FOOTERS);
		ck_assert_uint_eq(f.eof_off, r.eof_off);
		same_sections(&r, &f);
	}
	split_result_fini(&f);
	split_result_fini(&r);
}

TEST_CASE("split_footers", 60);

TEST(test_split_by_footers_agrees_with_the_description)
{
	for_each_tail(".tail", check_footers_agree);
}

static void mutate_footers(struct tail *t)
{
	size_t runs = getenv("MUTATIONS") ? strtoul(getenv("MUTATIONS"), NULL, 10) : 300;
	enum split_mode mode = strstr(t->path, ".package") ? SPLIT_PACKAGE : SPLIT_TAIL;
	uint64_t seed = 0xdeadbeefcafef00dull;

	for (size_t i = 0; i < runs; i++) {
		size_t off = random_next(&seed) % t->bytes;
		struct split_result r = SPLIT_RESULT_NONE;
		struct err err = ERR_NONE;
		uint8_t saved = t->buf[off];
		int got;

		t->buf[off] = (uint8_t)random_next(&seed);
		got = split_by_footers(&r, t->buf, t->bytes, mode, &plain, &err);
		ck_assert(got == 0 || got == -EPROTO);
		check_result(&r, t->buf, t->bytes);
		split_result_fini(&r);
		t->buf[off] = saved;
	}
}

TEST(test_split_mutated_packages_are_told_apart_or_harmless)
{
	struct tail *t = tail_named("10.0-pc-nodesc.tail");

	mutate_footers(t);
	tail_free(t);
	for_each_tail(".package", mutate_footers);
}

TEST(test_split_without_a_description_by_footers)
{
	struct tail *t = tail_named("10.0-pc-nodesc.tail");
	struct split_result r = SPLIT_RESULT_NONE;
	struct split_tail state = { 0 };
	char run_state[GLOBALSTATE_NAME_MAX + 1];
	const struct split_section *s;
	struct err err = ERR_NONE;

	ck_assert_int_eq(split_try_tail(&state, &r, t->buf, t->bytes, &plain, &err), 0);
	ck_assert_int_eq(split_tail_end(&state, t->buf, t->bytes, &plain, &err), -EPROTO);
	ck_assert_ptr_nonnull(strstr(err.text, "without a description"));
	ck_assert_int_eq(split_by_footers(&r, t->buf, t->bytes, SPLIT_TAIL, &plain, &err), 0);
	check_result(&r, t->buf, t->bytes);
	ck_assert_uint_gt(r.section_count, 20);
	s = tail_section(&r, t->buf, "globalstate");
	ck_assert_ptr_nonnull(s);
	ck_assert_int_eq(globalstate_parse(run_state, t->buf + s->body_off, s->body_bytes, &err), 0);
	ck_assert_str_eq(run_state, "prelaunch");
	ck_assert_int_eq(split_by_footers(&r, t->buf, t->bytes - 1, SPLIT_TAIL, &plain, &err), -EPROTO);
	split_result_fini(&r);
	tail_free(t);
}

static void check_package(struct tail *t)
{
	static const uint16_t want[] = { 4, 2, 5 };
	struct split_result r = SPLIT_RESULT_NONE;
	struct err err = ERR_NONE;
	int got = split_by_footers(&r, t->buf, t->bytes, SPLIT_PACKAGE, &plain, &err);

	ck_assert_msg(got == 0, "%s: %s", t->path, err.text);
	check_result(&r, t->buf, t->bytes);
	ck_assert_uint_eq(r.eof_off, t->bytes);
	ck_assert_uint_gt(r.section_count, 20);
	ck_assert_uint_eq(r.command_count, COUNT(want));
	for (size_t i = 0; i < COUNT(want); i++) {
		ck_assert_uint_eq(r.commands[i].command, want[i]);
		ck_assert_uint_eq(r.commands[i].section, i == 0 ? 0 : r.section_count);
	}
	ck_assert_uint_eq(be32_load(t->buf + r.commands[1].payload_off), 3);
	ck_assert_ptr_nonnull(tail_section(&r, t->buf, "globalstate"));
	split_result_fini(&r);
	/* Cut or lengthened, or read as a tail, it is not a package. */
	for (size_t n = 0; n<t->bytes; n += n + 400> t->bytes ? 1 : 97)
		ck_assert_int_eq(split_by_footers(&r, t->buf, n, SPLIT_PACKAGE, &plain, &err), -EPROTO);
	ck_assert_int_eq(split_by_footers(&r, t->buf, t->bytes, SPLIT_TAIL, &plain, &err), -EPROTO);
	ck_assert_int_eq(split_by_footers(&r, t->buf + 5, t->bytes - 5, SPLIT_PACKAGE, &plain, &err), -EPROTO);
	ck_assert_ptr_nonnull(strstr(err.text, "LISTEN"));
}

TEST(test_split_packages_of_real_sources)
{
	for_each_tail(".package", check_package);
}

/* ---- made ones ---- */

TEST(test_split_by_footers_goes_back_when_the_first_end_was_false)
{
	struct split_result r = SPLIT_RESULT_NONE;
	struct err err = ERR_NONE;
	struct out body = { 0 }, o = { 0 };

	/* The guest forged a footer and a whole section after it, and that section has no end. */
	put(&body, "data", 4);
	footer(&body, 7);
	head(&body, 4, 100, "forged", 0, 1);
	put(&body, "tail", 4);
	full(&o, 7, "a", 0, body.p, body.n);
	full(&o, 9, "b", 1, "xy", 2);
	put8(&o, 0);
	ck_assert_int_eq(split_by_footers(&r, o.p, o.n, SPLIT_TAIL, &plain, &err), 0);
	ck_assert_uint_eq(r.section_count, 2);
	ck_assert_uint_eq(r.sections[0].body_bytes, body.n);
	split_result_fini(&r);
	free(o.p);
	free(body.p);
}

TEST(test_split_by_footers_takes_no_eof_but_the_last_byte)
{
	struct split_result r = SPLIT_RESULT_NONE;
	struct err err = ERR_NONE;
	struct out body = { 0 }, o = { 0 };

	put(&body, "data", 4);
	footer(&body, 7);
	put(&body, "\0more", 5);
	full(&o, 7, "a", 0, body.p, body.n);
	put8(&o, 0);
	ck_assert_int_eq(split_by_footers(&r, o.p, o.n, SPLIT_TAIL, &plain, &err), 0);
	ck_assert_uint_eq(r.section_count, 1);
	ck_assert_uint_eq(r.sections[0].body_bytes, body.n);
	split_result_fini(&r);
	free(o.p);
	free(body.p);
}

TEST(test_split_package_orders_its_commands)
{
	/* L listen, S section, P ping, R run, D discard, E eof byte */
	static const struct {
		const char *form;
		bool good;
	} rows[] = {
		{ "LSSPR", true }, { "LSPPR", true }, { "LSPSR", true }, { "LSR", true },   { "LR", true },
		{ "LSSP", false }, { "SSPR", false }, { "LLSR", false }, { "LSRP", false }, { "LSRR", false },
		{ "PLSR", false }, { "LSDR", false }, { "LSLR", false }, { "LSRE", false }, { "LSERE", false },
		{ "R", false },    { "L", false },    { "", false },     { "LSPE", false },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct split_result r = SPLIT_RESULT_NONE;
		struct err err = ERR_NONE;
		struct out o = { 0 };
		uint32_t id = 1;
		int got;

		put(&o, "", 0);
		for (const char *c = rows[i].form; *c; c++) {
			if (*c == 'S')
				full(&o, id, "dev", id, "body", 4);
			else if (*c == 'E')
				put8(&o, 0);
			else
				command(&o,
				        *c == 'L' ? 4 :
				        *c == 'P' ? 2 :
				        *c == 'R' ? 5 :
				                    6,
				        "\0\0\0\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
				        *c == 'P' ? 4 :
				        *c == 'D' ? 20 :
				                    0);
			id++;
		}
		got = split_by_footers(&r, o.p ? o.p : (const uint8_t *)"", o.n, SPLIT_PACKAGE, &plain, &err);
		ck_assert_msg((got == 0) == rows[i].good, "%s: %d %s", rows[i].form, got, err.text);
		split_result_fini(&r);
		free(o.p);
	}
}

/* ---- early sections ---- */

static const struct split_handler ram_live[] = { { "ram", 0, 2, 0 } };
static const struct split_opts early_opts = { .footers = true, .live = ram_live, .live_count = 1 };

TEST(test_split_early_end_by_what_follows)
{
	static const struct {
		const char *bytes;
		size_t n;
		bool good;
	} rows[] = {
		{ "\x01\0\0\0\x03\x03ram\0\0\0\0\0\0\0\4", 17, true },
		{ "\x04\0\0\0\x04\x01z\0\0\0\0\0\0\0\1", 15, true },
		{ "\x02\0\0\0\x02", 5, true },
		{ "\x03\0\0\0\x02", 5, true },
		{ "\x08\0\x02\0\x04", 5, true },
		{ "\x08\0\x0b\0\0", 5, true },
		{ "\x02\0\0\0\x03", 5, false },
		{ "\x08\0\x02\0\x05", 5, false },
		{ "\x08\0\x0c\0\0", 5, false },
		{ "\x00", 1, false },
		{ "\x04\0\0\0\x04\x00", 6, false },
		{ "\x04\x01", 2, false },
		{ "\x04\0\0\0\x25\x01z\0\0\0\0\0\0\0\1", 15, false },
		{ "\x01\0\0\0\x02\x01z\0\0\0\0\0\0\0\1", 15, false },
		{ "\x04\0\0\0\x04\x01\x01\0\0\0\0\0\0\0\1", 15, false },
		{ "\x04\0\0\0\x04\x01z\0\0\0\0\x01\x32\x1b\x19", 15, true },
		{ "\x04\0\0\0\x04\x01z\0\0\0\0\x7f\xff\xff\xff", 15, true },
		{ "\x04\0\0\0\x04\x01z\0\0\0\0\x80\0\0\0", 15, false },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		size_t scan = 0, body_bytes = 0, n;
		struct err err = ERR_NONE;
		struct out o = { 0 };
		int got = 0;

		put(&o, "body of it", 10);
		footer(&o, 0x24);
		footer(&o, 0x25);
		put(&o, rows[i].bytes, rows[i].n);
		o.p[14] = 0x25; /* two footers of this section: only the second can be followed by an element */
		for (n = 0; got == 0 && n <= o.n; n++)
			got = split_early_end(&body_bytes, &scan, o.p, n, 0x25, &early_opts, &err);
		ck_assert_msg(got == (rows[i].good ? 1 : 0), "row %zu: %d", i, got);
		if (rows[i].good) {
			ck_assert_uint_eq(body_bytes, 15);
			ck_assert_uint_eq(n - 1, o.n);
		}
		free(o.p);
	}
}

TEST(test_split_early_end_finds_a_footer_that_overlaps_a_false_one)
{
	static const uint8_t bytes[] = "\x7e\0\0\0\x7e\0\0\0\x7e\2\0\0\0\2";
	size_t scan = 0, body_bytes = 0;
	struct err err = ERR_NONE;

	ck_assert_int_eq(split_early_end(&body_bytes, &scan, bytes, sizeof(bytes) - 1, 0x7e, &early_opts, &err), 1);
	ck_assert_uint_eq(body_bytes, 4);
}

TEST(test_split_early_end_gives_up_at_the_limit)
{
	size_t bytes = SPLIT_EARLY_BYTES_MAX + 100, scan = 0, body_bytes;
	uint8_t *buf = malloc(bytes);
	struct err err = ERR_NONE;

	for (size_t i = 0; i < bytes; i++)
		buf[i] = (uint8_t) "\x7e\0\0\0\x25"[i % 5];
	ck_assert_int_eq(split_early_end(&body_bytes, &scan, buf, 1000, 0x25, &early_opts, &err), 0);
	ck_assert_int_eq(split_early_end(&body_bytes, &scan, buf, bytes, 0x25, &early_opts, &err), -EPROTO);
	ck_assert_ptr_nonnull(strstr(err.text, "no end of the section"));
	free(buf);
}

/* ---- time ---- */

/* Sections and footers that fit everywhere but at the end: plain backtracking would take forever. */
static void hostile_footers(unsigned ids, const char *what)
{
	struct split_result r = SPLIT_RESULT_NONE;
	struct err err = ERR_NONE;
	struct out o = { 0 };
	double start = cpu_s();

	for (unsigned i = 0; o.n < 1 << 20; i++) {
		head(&o, 4, 1 + i % ids, "a", i, 1);
		footer(&o, 1 + (i * 7) % ids);
		head(&o, 4, 1 + (i * 3) % ids, "a", i, 1);
		footer(&o, 1 + i % ids);
	}
	put8(&o, 0xff);
	ck_assert_int_eq(split_by_footers(&r, o.p, o.n, SPLIT_TAIL, &plain, &err), -EPROTO);
	took(what, start, 5);
	free(o.p);
}

TEST(test_split_hostile_footers_cost_no_exponent)
{
	hostile_footers(1, "1 MiB of footers of one id");
	hostile_footers(2, "1 MiB of footers of two ids");
	hostile_footers(40, "1 MiB of footers of forty ids");
	hostile_footers(10007, "1 MiB of footers of many ids");
}
