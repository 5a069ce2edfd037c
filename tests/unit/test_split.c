/* Splitting a tail by its description; the two must agree: engine/devices/split.h. */
#include "engine/devices/split.h"

#include <errno.h>

#include "engine/devices/vmdesc.h"
#include "tests/support/check_main.h"
#include "tests/unit/data/made.h"

/* ---- real tails ---- */

static void check_description(struct tail *t)
{
	struct split_result r = tail_split(t), again = SPLIT_RESULT_NONE;
	struct split_opts other = t->opts;
	struct err err = ERR_NONE;

	ck_assert_int_eq(r.way, SPLIT_BY_DESCRIPTION);
	ck_assert_uint_eq(r.section_count + t->opts.early_count, vmdesc_device_count(r.desc));
	ck_assert_uint_eq(r.json_off + r.json_bytes, t->bytes);
	ck_assert_uint_eq(r.eof_off + 6, r.json_off);
	check_result(&r, t->buf, t->bytes);
	ck_assert_int_eq(split_by_description(&again, r.desc, t->buf, r.eof_off + 1, &t->opts, &err), 0);
	same_sections(&r, &again);
	split_result_fini(&again);
	/* A byte less, a byte more, the wrong word about footers: none of it passes. */
	ck_assert_int_eq(split_by_description(&again, r.desc, t->buf, r.eof_off, &t->opts, &err), -EPROTO);
	ck_assert_int_eq(split_by_description(&again, r.desc, t->buf, r.eof_off + 2, &t->opts, &err), -EPROTO);
	other.footers = !other.footers;
	ck_assert_int_eq(split_by_description(&again, r.desc, t->buf, r.eof_off + 1, &other, &err), -EPROTO);
	ck_assert_ptr_null(again.sections);
	split_result_fini(&r);
}

TEST_CASE("real", 100);

TEST(test_split_by_description_is_byte_exact_on_real_tails)
{
	for_each_tail(".tail", check_description);
}

static void check_prefixes(struct tail *t)
{
	struct split_tail state = { 0 };
	struct err err = ERR_NONE;
	struct split_result r = SPLIT_RESULT_NONE;

	for (size_t n = 0; n < t->bytes; n++) {
		struct split_tail fresh = { 0 };

		if (split_try_tail(&state, &r, t->buf, n, &t->opts, &err) != 0 || r.sections)
			ck_abort_msg("%s: not 0 after %zu bytes", t->path, n);
		/* Without memory of earlier calls it says the same; not for each prefix, which would be a square. */
		if (t->bytes < 50000 || n % 977 == 0)
			ck_assert_int_eq(split_try_tail(&fresh, &r, t->buf, n, &t->opts, &err), 0);
	}
	ck_assert_int_eq(state.miss.code, 0);
	ck_assert_int_eq(split_try_tail(&state, &r, t->buf, t->bytes, &t->opts, &err), 1);
	split_result_fini(&r);
}

TEST(test_split_every_prefix_of_a_tail_needs_more)
{
	for_each_tail(".tail", check_prefixes);
}

/* Bytes that are neither header, footer, subsection header nor description: any value of theirs is as good. */
static void mark_desc(uint8_t *data, const struct vmdesc_desc *desc, size_t off)
{
	for (const struct vmdesc_field *f = desc->fields; f; f = f->next) {
		for (uint64_t i = 0; i < f->elements; i++) {
			if (f->desc)
				mark_desc(data, f->desc, off + f->off + i * f->bytes);
			else
				memset(data + off + f->off + i * f->bytes, 1, f->bytes);
		}
	}
	off += desc->fields_bytes;
	for (const struct vmdesc_desc *s = desc->subsections; s; s = s->next) {
		mark_desc(data, s, off + 6 + s->name_bytes);
		off += 6 + s->name_bytes + s->body_bytes;
	}
}

TEST(test_split_no_byte_of_structure_goes_unchecked)
{
	struct tail *t = tail_named("10.0-microvm.tail");
	struct split_result r = tail_split(t);
	uint8_t *data = calloc(1, t->bytes);

	for (size_t i = 0; i < r.section_count; i++) {
		const struct vmdesc_device *device = vmdesc_device(r.desc, (size_t)r.sections[i].device);

		mark_desc(data, device->desc, r.sections[i].body_off);
		/* An old-style device's version is nowhere else. */
		if (device->old_style)
			memset(data + r.sections[i].body_off - 4, 1, 4);
	}
	for (size_t off = 0; off < r.json_off; off++) {
		struct split_result again = SPLIT_RESULT_NONE;
		struct split_tail state = { 0 };
		struct err err = ERR_NONE;

		if (data[off])
			continue;
		t->buf[off] ^= 4;
		ck_assert_msg(split_try_tail(&state, &again, t->buf, t->bytes, &t->opts, &err) != 1, "0x%zx", off);
		t->buf[off] ^= 4;
	}
	split_result_fini(&r);
	free(data);
	tail_free(t);
}

static void check_mutant(const struct tail *t, const uint8_t *data, size_t off, size_t count)
{
	struct split_result r = SPLIT_RESULT_NONE;
	struct split_tail state = { 0 };
	struct err err = ERR_NONE;
	int got = split_try_tail(&state, &r, t->buf, t->bytes, &t->opts, &err);

	if (got == 1) {
		check_result(&r, t->buf, t->bytes);
	} else {
		bool only_data = true;

		ck_assert(got == 0 || got == -EPROTO);
		ck_assert_ptr_null(r.sections);
		for (size_t i = 0; i < count; i++)
			only_data = only_data && data[off + i];
		ck_assert_msg(!only_data, "%s: field data at %zu: %s %s", t->path, off, err.text, state.miss.text);
	}
	if (got == 0)
		ck_assert_int_eq(split_tail_end(&state, t->buf, t->bytes, &t->opts, &err), -EPROTO);
	split_result_fini(&r);
}

static void mutate(struct tail *t)
{
	/* 20000 of each small tail, less of the larger ones: MUTATIONS=20000 for all of them. */
	size_t runs = getenv("MUTATIONS") ? strtoul(getenv("MUTATIONS"), NULL, 10) : t->bytes < 50000 ? 4000 : 400;
	uint64_t seed = 0x9e3779b97f4a7c15ull;
	struct split_result r = tail_split(t);
	uint8_t *data = calloc(1, t->bytes), saved[8];
	size_t eof_off = r.eof_off;

	for (size_t i = 0; i < r.section_count; i++)
		mark_desc(data, vmdesc_device(r.desc, (size_t)r.sections[i].device)->desc, r.sections[i].body_off);
	split_result_fini(&r);
	for (size_t i = 0; i < runs; i++) {
		size_t count = 1 + random_next(&seed) % sizeof(saved);
		/* Half of them into the sections, half anywhere: descriptions are large. */
		size_t off = random_next(&seed) % ((i & 1 ? t->bytes : eof_off) - count);

		memcpy(saved, t->buf + off, count);
		for (size_t k = 0; k < count; k++)
			t->buf[off + k] =
			        (uint8_t)(i & 2 ? random_next(&seed) : t->buf[off + k] ^ 1u << random_next(&seed) % 8);
		check_mutant(t, data, off, count);
		memcpy(t->buf + off, saved, count);
	}
	free(data);
}

TEST(test_split_mutated_tails_are_told_apart_or_harmless)
{
	for_each_tail(".tail", mutate);
}

/* ---- the description against the sections ---- */

struct story {
	const char *json, *story; /* NULL: agrees */
};

static const struct story stories[] = {
	{ TOP(DEV("a", "0", "3") ", " DEV("b", "1", "2")), NULL },
	{ TOP(DEV("a", "0", "3")), "element 0x04 (FULL) at 0x17, where EOF was expected" },
	{ TOP(DEV("a", "0", "3") ", " DEV("b", "1", "2") ", " DEV("c", "0", "1")), "element 0x00 (EOF)" },
	{ TOP(DEV("a", "0", "2") ", " DEV("b", "1", "2")), "no footer of section id 7 at 0x11" },
	{ TOP(DEV("a", "0", "4") ", " DEV("b", "1", "2")), "no footer of section id 7 at 0x13" },
	{ TOP(DEV("a", "0", "300") ", " DEV("b", "1", "2")), "body of 300 bytes" },
	{ TOP(DEV("a", "0", "9223372036854775807") ", " DEV("b", "1", "2")), "body of 9223372036854775807 bytes" },
	{ TOP(DEV("a", "1", "3") ", " DEV("b", "1", "2")), "is 'a' instance 0" },
	{ TOP(DEV("aa", "0", "3") ", " DEV("b", "1", "2")), "device 0 'aa' instance 0: section at 0x0 is 'a'" },
	{ TOP(DEV("b", "1", "2") ", " DEV("a", "0", "3")), "device 0 'b' instance 1: section at 0x0 is 'a'" },
	{ TOP(""), "element 0x04 (FULL) at 0x0, where EOF was expected" },
	{ "{\"devices\": [}", "'{' expected" },
	{ "{\"devices\": [[[}", "'{' expected" },
};

TEST_CASE("made", 4);

TEST_EACH(test_split_says_why_a_description_does_not_agree, (int)COUNT(stories))
{
	struct split_result r = SPLIT_RESULT_NONE;
	struct split_tail state = { 0 };
	struct err err = ERR_NONE;
	struct out o = { 0 };
	int got;

	full(&o, 7, "a", 0, "abc", 3);
	full(&o, 9, "b", 1, "xy", 2);
	eof_and(&o, stories[_i].json);
	got = try_all(&o, &plain, &r, &state, &err);
	if (!stories[_i].story) {
		ck_assert_int_eq(got, 1);
		ck_assert_uint_eq(r.section_count, 2);
		ck_assert_int_eq(r.sections[1].device, 1);
	} else {
		ck_assert_int_eq(got, 0);
		ck_assert_int_eq(split_tail_end(&state, o.p, o.n, &plain, &err), -EPROTO);
		ck_assert_msg(strstr(err.text, stories[_i].story) != NULL, "%s", err.text);
		ck_assert_ptr_nonnull(strstr(err.text, "does not agree"));
	}
	split_result_fini(&r);
	free(o.p);
}

#define SUBS(names) \
	TOP("{\"name\": \"a\", \"instance_id\": 0, \"vmsd_name\": \"a\", \"version\": 1, \"fields\": [{\"name\": " \
	    "\"s\", " \
	    "\"array_len\": 2, \"type\": \"struct\", \"struct\": {\"vmsd_name\": \"s\", \"version\": 1, \"fields\": " \
	    "[{\"name\": \"x\", \"type\": \"uint8\", \"size\": 1}], \"subsections\": [{\"vmsd_name\": \"s/b\", " \
	    "\"version\": 2, " \
	    "\"fields\": []}]}, \"size\": 10}], \"subsections\": [{\"vmsd_name\": \"" names \
	    "\", \"version\": 3, \"fields\": []}]}")

TEST(test_split_checks_each_subsection_header)
{
	static const uint8_t body[] = "X\5\3s/b\0\0\0\2Y\5\3s/b\0\0\0\2\5\3a/z\0\0\0\3";

	for (size_t flip = 0; flip <= sizeof(body) - 1; flip++) {
		struct split_result r = SPLIT_RESULT_NONE;
		struct split_tail state = { 0 };
		struct err err = ERR_NONE;
		struct out o = { 0 };
		uint8_t copy[sizeof(body)];
		bool data = flip == 0 || flip == 10 || flip == sizeof(body) - 1;
		int got;

		memcpy(copy, body, sizeof(body));
		copy[flip] ^= 0x20;
		full(&o, 7, "a", 0, copy, sizeof(body) - 1);
		eof_and(&o, SUBS("a/z"));
		got = try_all(&o, &plain, &r, &state, &err);
		ck_assert_msg(got == (data ? 1 : -EPROTO), "%zu: %d %s", flip, got, err.text);
		if (!data)
			ck_assert_ptr_nonnull(strstr(err.text, "is not at 0x"));
		split_result_fini(&r);
		free(o.p);
	}
}

TEST(test_split_checks_the_version_against_the_description)
{
	struct split_result r = SPLIT_RESULT_NONE;
	struct split_tail state = { 0 };
	struct err err = ERR_NONE;
	struct out o = { 0 };

	head(&o, 4, 7, "a", 0, 2);
	footer(&o, 7);
	eof_and(&o, TOP("{\"name\": \"a\", \"instance_id\": 0, \"vmsd_name\": \"a\", \"version\": 1, \"fields\": []}"));
	ck_assert_int_eq(try_all(&o, &plain, &r, &state, &err), -EPROTO);
	ck_assert_ptr_nonnull(strstr(err.text, "version 2, the description says 1"));
	free(o.p);
}

TEST(test_split_no_section_can_begin_like_this)
{
	static const struct {
		const char *bytes;
		size_t n;
		const char *story;
	} rows[] = {
		{ "\x08\x00\x0b\x00\x00", 5, "command 11 at 0x0" },
		{ "\x03", 1, "element 0x03 (END)" },
		{ "\x01", 1, "element 0x01 (START)" },
		{ "\x51", 1, "element 0x51 (unknown)" },
		{ "\x04\0\0\0\1\0", 6, "has no name" },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct split_result r = SPLIT_RESULT_NONE;
		struct split_tail state = { 0 };
		struct err err = ERR_NONE;
		struct out o = { 0 };

		put(&o, rows[i].bytes, rows[i].n);
		ck_assert_int_eq(try_all(&o, &plain, &r, &state, &err), -EPROTO);
		ck_assert_msg(strstr(err.text, rows[i].story) != NULL, "%s", err.text);
		free(o.p);
	}
}

TEST(test_split_command_between_sections_is_named)
{
	struct split_result r = SPLIT_RESULT_NONE;
	struct split_tail state = { 0 };
	struct err err = ERR_NONE;
	struct out o = { 0 };

	full(&o, 7, "a", 0, "abc", 3);
	command(&o, 2, "\0\0\0\1", 4);
	full(&o, 9, "b", 1, "xy", 2);
	eof_and(&o, stories[0].json);
	ck_assert_int_eq(try_all(&o, &plain, &r, &state, &err), 0);
	ck_assert_int_eq(split_tail_end(&state, o.p, o.n, &plain, &err), -EPROTO);
	ck_assert_msg(strstr(err.text, "command 2 at 0x17, where a section was expected") != NULL, "%s", err.text);
	free(o.p);
}

TEST(test_split_data_after_the_description_is_named)
{
	struct tail *t = tail_named("7.2-microvm.tail");
	struct split_result r = SPLIT_RESULT_NONE;
	struct split_tail state = { 0 };
	struct err err = ERR_NONE;
	struct out o = { 0 };

	put(&o, t->buf, t->bytes);
	put(&o, "{}}", 3);
	ck_assert_int_eq(try_all(&o, &plain, &r, &state, &err), 0);
	ck_assert_int_eq(split_tail_end(&state, o.p, o.n, &plain, &err), -EPROTO);
	ck_assert_msg(strstr(err.text, "3 bytes of data after the description") != NULL, "%s", err.text);
	free(o.p);
	tail_free(t);
}

TEST(test_split_a_false_description_in_a_body_does_not_end_it)
{
	struct split_result r = SPLIT_RESULT_NONE;
	struct split_tail state = { 0 };
	struct err err = ERR_NONE;
	struct out o = { 0 };
	char json[1000];
	size_t body_off, body;

	/* A description that parses, with a length that ends exactly at what has been received: inside a body. */
	head(&o, 4, 7, "a", 0, 1);
	body_off = o.n;
	eof_and(&o, TOP(DEV("a", "0", "3")));
	ck_assert_int_eq(try_all(&o, &plain, &r, &state, &err), 0);
	ck_assert_int_ne(state.miss.code, 0);
	put(&o, "more", 4);
	body = o.n - body_off;
	footer(&o, 7);
	snprintf(json, sizeof(json),
	         TOP("{\"name\": \"a\", \"instance_id\": 0, \"fields\": [{\"name\": \"data\", \"size\": %zu, \"type\": "
	             "\"b\"}]}"),
	         body);
	eof_and(&o, json);
	ck_assert_int_eq(try_all(&o, &plain, &r, &state, &err), 1);
	ck_assert_uint_eq(r.sections[0].body_bytes, body);
	split_result_fini(&r);
	free(o.p);
}

TEST(test_split_same_device_or_id_twice_is_an_error)
{
	static const struct split_handler live[] = { { "a", 0, 7, 0 } };
	static const struct split_opts with_live = { .footers = true, .live = live, .live_count = 1 };
	static const struct {
		const char *name;
		uint32_t instance, id;
		const struct split_opts *opts;
		size_t sections; /* 0: an error */
	} rows[] = {
		{ "a", 0, 8, &plain, 0 },
		/* By footers an id used before is no section, but more of the first one's body. */
		{ "b", 0, 7, &plain, 1 },
		{ "a", 1, 7, &plain, 1 },
		{ "a", 1, 8, &plain, 2 },
		{ "b", 0, 8, &with_live, 2 }, /* the first one is the final state of a live handler */
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct split_result r = SPLIT_RESULT_NONE;
		struct err err = ERR_NONE;
		struct out o = { 0 };
		int got;

		full(&o, 7, "a", 0, "abc", 3);
		full(&o, rows[i].id, rows[i].name, rows[i].instance, "xy", 2);
		put8(&o, 0);
		got = split_by_footers(&r, o.p, o.n, SPLIT_TAIL, rows[i].opts, &err);
		ck_assert_msg(got == (rows[i].sections ? 0 : -EPROTO), "%zu: %s", i, err.text);
		ck_assert_uint_eq(r.section_count, rows[i].sections);
		if (got < 0)
			ck_assert_ptr_nonnull(strstr(err.text, "'a' instance 0 occurs twice"));
		split_result_fini(&r);
		/* With a description it says so. */
		o.n--;
		eof_and(&o, rows[i].instance ? TOP(DEV("a", "0", "3") ", " DEV("a", "1", "2")) :
		                               TOP(DEV("a", "0", "3") ", " DEV("b", "0", "2")));
		got = try_all(&o, rows[i].opts, &r, &(struct split_tail){ 0 }, &err);
		ck_assert_int_eq(got, rows[i].id == 7                               ? -EPROTO :
		                      strcmp(rows[i].name, "a") || rows[i].instance ? 1 :
		                                                                      0);
		if (rows[i].id == 7)
			ck_assert_msg(strstr(err.text, "has section id 7, which 'a' has") != NULL, "%s", err.text);
		split_result_fini(&r);
		free(o.p);
	}
}

TEST(test_split_id_of_a_live_handler_belongs_to_it)
{
	static const struct split_handler live[] = { { "vfio", 0, 7, 0 }, { "ram", 0, 2, 0 } };
	static const struct split_opts opts = { .footers = true, .live = live, .live_count = 2 };

	for (int same = 0; same < 2; same++) {
		struct split_result r = SPLIT_RESULT_NONE;
		struct split_tail state = { 0 };
		struct err err = ERR_NONE;
		struct out o = { 0 };

		full(&o, 7, same ? "vfio" : "nic1", 0, "abc", 3);
		eof_and(&o, same ? TOP(DEV("vfio", "0", "3")) : TOP(DEV("nic1", "0", "3")));
		ck_assert_int_eq(try_all(&o, &opts, &r, &state, &err), same ? 1 : -EPROTO);
		if (!same)
			ck_assert_ptr_nonnull(strstr(err.text, "'nic1' has section id 7, which 'vfio' has"));
		split_result_fini(&r);
		free(o.p);
	}
}

TEST(test_split_early_sections_are_matched_and_passed_over)
{
	static const struct {
		struct split_handler early[2];
		size_t count;
		const char *story;
	} rows[] = {
		{ { { "e", 0, 5, 4 } }, 1, NULL },
		{ { { "e", 0, 5, 5 } }, 1, "'e' had 5 bytes, the description says 4" },
		{ { { "e", 1, 5, 4 } }, 1, "early section 'e' instance 1" },
		{ { { "f", 0, 5, 4 } }, 1, "early section 'f'" },
		{ { { NULL, 0, 0, 0 } }, 0, "device 0 'e' instance 0" },
		{ { { "e", 0, 5, 4 }, { "a", 0, 6, 3 } }, 2, "where EOF" },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct split_opts opts = { .footers = true, .early = rows[i].early, .early_count = rows[i].count };
		struct split_result r = SPLIT_RESULT_NONE;
		struct split_tail state = { 0 };
		struct err err = ERR_NONE;
		struct out o = { 0 };
		int got;

		full(&o, 7, "a", 0, "abc", 3);
		eof_and(&o, TOP(DEV("e", "0", "4") ", " DEV("a", "0", "3")));
		got = try_all(&o, &opts, &r, &state, &err);
		ck_assert_int_eq(got, rows[i].story ? 0 : 1);
		if (rows[i].story)
			ck_assert_msg(strstr(state.miss.text, rows[i].story) != NULL, "%zu: %s", i, state.miss.text);
		else
			ck_assert_int_eq(r.sections[0].device, 1);
		split_result_fini(&r);
		free(o.p);
	}
}

TEST(test_split_early_id_is_not_used_again)
{
	static const struct split_handler early[] = { { "e", 0, 7, 4 } };
	static const struct split_opts opts = { .footers = true, .early = early, .early_count = 1 };
	struct split_result r = SPLIT_RESULT_NONE;
	struct err err = ERR_NONE;
	struct out o = { 0 };

	full(&o, 7, "a", 0, "abc", 3);
	put8(&o, 0);
	ck_assert_int_eq(split_by_footers(&r, o.p, o.n, SPLIT_TAIL, &opts, &err), -EPROTO);
	ck_assert_ptr_nonnull(strstr(err.text, "'a' has section id 7, which 'e' has"));
	free(o.p);
}

TEST(test_split_no_devices_at_all)
{
	struct split_result r = SPLIT_RESULT_NONE;
	struct split_tail state = { 0 };
	struct err err = ERR_NONE;
	struct out o = { 0 };

	eof_and(&o, TOP(""));
	ck_assert_int_eq(try_all(&o, &plain, &r, &state, &err), 1);
	ck_assert_uint_eq(r.section_count, 0);
	split_result_fini(&r);
	ck_assert_int_eq(split_by_footers(&r, (const uint8_t *)"", 1, SPLIT_TAIL, &plain, &err), 0);
	ck_assert_uint_eq(r.section_count, 0);
	split_result_fini(&r);
	free(o.p);
}
