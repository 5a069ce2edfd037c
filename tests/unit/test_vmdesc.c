#include "engine/devices/vmdesc.h"

#include <errno.h>
#include <time.h>

#include "base/err.h"
#include "tests/support/check_main.h"
#include "tests/unit/data/tails.h"

#define TOP(devices) "{\"page_size\": 4096, \"devices\": [" devices "]}"
#define DEVICE(fields) \
	TOP("{\"name\": \"d\", \"instance_id\": 0, \"vmsd_name\": \"d\", \"version\": 1, \"fields\": [" fields "]}")
#define U32(name) "{\"name\": \"" name "\", \"type\": \"uint32\", \"size\": 4}"
#define DESC(name, fields) "\"vmsd_name\": \"" name "\", \"version\": 1, \"fields\": [" fields "]"

static struct vmdesc *parse(const char *text)
{
	struct vmdesc *d = NULL;
	struct err err = ERR_NONE;
	int r = vmdesc_parse(&d, text, strlen(text), NULL, &err);

	ck_assert_msg(r == 0, "%s: %s", text, err.text);
	return d;
}

static uint64_t bytes_of(const char *text)
{
	struct vmdesc *d = parse(text);
	uint64_t bytes = vmdesc_device(d, 0)->desc->body_bytes;

	vmdesc_free(d);
	return bytes;
}

/* A copy of exact size, so that ASan sees a step past the text. */
static int try_parse(const char *text, size_t bytes, struct err *err)
{
	char *copy = malloc(bytes ? bytes : 1);
	struct vmdesc *d = NULL;
	int r;

	memcpy(copy, text, bytes);
	r = vmdesc_parse(&d, copy, bytes, NULL, err);
	if (r < 0)
		ck_assert_ptr_null(d);
	vmdesc_free(d);
	free(copy);
	return r;
}

TEST_CASE("vmdesc", 60);

TEST(test_vmdesc_adds_up_fields_arrays_and_subsections)
{
	ck_assert_uint_eq(bytes_of(DEVICE("")), 0);
	ck_assert_uint_eq(bytes_of(DEVICE(U32("a") ", " U32("b"))), 8);
	ck_assert_uint_eq(bytes_of(DEVICE("{\"name\": \"a\", \"array_len\": 5, \"type\": \"uint16\", \"size\": 2}")),
	                  10);
	/* Pointers that are all NULL: the description does not mention the structure. */
	ck_assert_uint_eq(bytes_of(DEVICE("{\"name\": \"css\", \"array_len\": 256, \"type\": \"struct\", "
	                                  "\"struct\": {}, \"size\": 1}")),
	                  256);
	ck_assert_uint_eq(bytes_of(DEVICE("{\"name\": \"a\", \"type\": \"struct\", \"struct\": {" DESC(
	                          "s", U32("x")) "}, \"size\": 4}")),
	                  4);
	/* 2 + strlen("d/sub") + 4 + 4 */
	ck_assert_uint_eq(bytes_of(TOP("{\"name\": \"d\", \"instance_id\": 0, " DESC(
	                          "d", U32("a")) ", \"subsections\": [{" DESC("d/sub", U32("b")) "}]}")),
	                  4 + 15);
}

TEST(test_vmdesc_reads_each_device_form)
{
	struct vmdesc *d = parse(TOP("{\"name\": \"0000:00:03.0/x\", \"instance_id\": 7, " DESC(
	        "x", U32("a")) "}, "
	                       "{\"name\": \"slirp\", \"instance_id\": 0, \"size\": 131, \"fields\": "
	                       "[{\"name\": \"data\", \"size\": 131, \"type\": \"buffer\"}]}"));
	const struct vmdesc_device *x = vmdesc_device(d, 0), *slirp = vmdesc_device(d, 1);
	const char *text;
	size_t bytes;

	ck_assert_uint_eq(vmdesc_device_count(d), 2);
	ck_assert_str_eq(x->name, "0000:00:03.0/x");
	ck_assert_uint_eq(x->instance_id, 7);
	ck_assert(!x->old_style);
	ck_assert_str_eq(slirp->name, "slirp");
	ck_assert(slirp->old_style);
	ck_assert_uint_eq(slirp->desc->body_bytes, 131);
	text = vmdesc_device_text(d, 1, &bytes);
	ck_assert_int_eq(strncmp(text, "{\"name\": \"slirp\", ", 18), 0);
	ck_assert_int_eq(strncmp(text + bytes - 2, "]}", 2), 0);
	vmdesc_free(d);
}

TEST(test_vmdesc_reads_vstruct_and_tmp_from_the_field_itself)
{
	static const char *const types[] = { "vstruct", "tmp" };

	for (size_t i = 0; i < 2; i++) {
		char text[512];
		struct vmdesc *d;

		snprintf(text, sizeof(text),
		         DEVICE("{\"name\": \"v\", \"type\": \"%s\", " DESC("in",
		                                                            U32("x") ", " U32("y")) ", \"size\": 8}"),
		         types[i]);
		d = parse(text);
		ck_assert_int_eq(vmdesc_device(d, 0)->desc->fields->kind, VMDESC_STRUCT);
		ck_assert_str_eq(vmdesc_device(d, 0)->desc->fields->desc->name, "in");
		ck_assert_str_eq(vmdesc_device(d, 0)->desc->fields->desc->fields->next->name, "y");
		vmdesc_free(d);
	}
}

TEST(test_vmdesc_uses_only_the_size_of_lists)
{
	static const char *const types[] = { "qtailq", "qlist", "gtree" };

	for (size_t i = 0; i < 3; i++) {
		char text[512];
		struct vmdesc *d;

		/* Each element repeats the keys. */
		snprintf(text, sizeof(text),
		         DEVICE("{\"name\": \"v\", \"type\": \"%s\", " DESC("in", U32("x")) ", " DESC(
		                 "in", U32("y")) ", \"size\": 11}"),
		         types[i]);
		d = parse(text);
		ck_assert_uint_eq(vmdesc_device(d, 0)->desc->body_bytes, 11);
		ck_assert_int_eq(vmdesc_device(d, 0)->desc->fields->kind, VMDESC_OPAQUE);
		ck_assert_ptr_null(vmdesc_device(d, 0)->desc->fields->desc);
		vmdesc_free(d);
	}
}

TEST(test_vmdesc_order_of_keys_and_unknown_keys_do_not_matter)
{
	struct vmdesc *d = parse(
	        "{\"new\": [1, -2.5e+3, {\"a\": null}, true, \"\\u00e4\\ud83d\\ude00\"], \"devices\": [{\"fields\": "
	        "[{\"size\": 4, \"struct\": {\"fields\": [" U32(
	                "q") "], \"version\": 9, \"x\": {}, \"vmsd_name\": \"s\"}, "
	                     "\"index\": 3, \"type\": \"struct\", \"name\": \"a\\\"\\u0041\"}], \"version\": 2, "
	                     "\"vmsd_name\": \"v\", \"instance_id\": 1, \"name\": \"d\"}], \"page_size\": 16384}");
	const struct vmdesc_desc *desc = vmdesc_device(d, 0)->desc;

	ck_assert_uint_eq(desc->version, 2);
	ck_assert_str_eq(desc->fields->name, "a\"A");
	ck_assert_uint_eq(desc->fields->desc->version, 9);
	vmdesc_free(d);
}

TEST(test_vmdesc_knows_kinds_by_type_and_width)
{
	static const struct {
		const char *type;
		unsigned bytes;
		enum vmdesc_kind kind;
	} rows[] = {
		{ "bool", 1, VMDESC_BOOL },
		{ "uint8", 1, VMDESC_UINT },
		{ "int16", 2, VMDESC_INT },
		{ "int32 equal", 4, VMDESC_INT },
		{ "int32 le", 4, VMDESC_INT },
		{ "uint8 equal", 1, VMDESC_UINT },
		{ "uint64", 8, VMDESC_UINT },
		{ "timer", 8, VMDESC_TIMER },
		{ "unused_buffer", 3, VMDESC_UNUSED },
		{ "buffer", 4, VMDESC_OPAQUE },
		{ "uint32", 8, VMDESC_OPAQUE },
		{ "uint", 4, VMDESC_OPAQUE },
		{ "int128", 16, VMDESC_OPAQUE },
		{ "uint8x", 1, VMDESC_OPAQUE },
		{ "bool", 4, VMDESC_OPAQUE },
		{ "int64 more", 8, VMDESC_OPAQUE },
		{ "struct", 4, VMDESC_OPAQUE },
		{ "virtio", 9, VMDESC_OPAQUE },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char text[256];
		struct vmdesc *d;

		snprintf(text, sizeof(text), DEVICE("{\"name\": \"a\", \"type\": \"%s\", \"size\": %u}"), rows[i].type,
		         rows[i].bytes);
		d = parse(text);
		ck_assert_msg(vmdesc_device(d, 0)->desc->fields->kind == rows[i].kind, "%s", rows[i].type);
		vmdesc_free(d);
	}
}

#define FIELD(members) DEVICE("{" members "}")

static const struct {
	const char *text, *story;
} bad[] = {
	{ "", "'{' expected" },
	{ "[]", "'{' expected" },
	{ "{}", "no \"devices\"" },
	{ TOP("") " ", NULL },
	{ TOP("") "}", "data after" },
	{ TOP("") "\n{}", "data after" },
	{ "{\"devices\": [], \"devices\": []}", "twice" },
	{ "{\"page_size\": 1, \"page_size\": 1, \"devices\": []}", "twice" },
	{ "{\"page_size\": 99999999999, \"devices\": []}", "too large" },
	{ "{\"page_size\": -4096, \"devices\": []}", "negative" },
	{ "{\"page_size\": \"4096\", \"devices\": []}", "a number expected" },
	{ TOP("{}"), "without name" },
	{ TOP("{\"name\": \"\", \"instance_id\": 0, \"fields\": []}"), "name of 0 bytes" },
	{ TOP("{\"name\": \"d\", \"instance_id\": 0}"), "without name, instance_id or fields" },
	{ TOP("{\"name\": \"d\", \"instance_id\": 4294967296, \"fields\": []}"), "too large" },
	{ TOP("{\"name\": \"d\", \"instance_id\": 0, \"size\": 5, \"fields\": []}"),
	  "has size 5, its fields add up to 0" },
	{ TOP("{\"name\": \"d\", \"name\": \"d\", \"instance_id\": 0, \"fields\": []}"),
	  "the same key twice in a device" },
	{ TOP("{\"name\": \"d\", \"instance_id\": 0, \"fields\": [], \"fields\": []}"), "the same key twice" },
	{ TOP("{\"name\": \"d\", \"instance_id\": 0, \"fields\": []}, {\"name\": \"e\", \"instance_id\": 0, "
	      "\"fields\": []}, "
	      "{\"name\": \"d\", \"instance_id\": 0, \"fields\": []}"),
	  "'d' instance 0 occurs twice" },
	{ TOP("{\"name\": \"d\", \"instance_id\": 0, \"vmsd_name\": \"x\", \"fields\": []}"),
	  "version or fields missing" },
	{ FIELD("\"name\": \"a\", \"type\": \"uint8\""), "without name, type or size" },
	{ FIELD("\"name\": \"a\", \"size\": 1"), "without name, type or size" },
	{ FIELD("\"name\": \"a\", \"type\": \"b\", \"size\": -1"), "a negative number" },
	{ FIELD("\"name\": \"a\", \"type\": \"b\", \"size\": 1.5"), "no integer" },
	{ FIELD("\"name\": \"a\", \"type\": \"b\", \"size\": 1e9"), "no integer" },
	{ FIELD("\"name\": \"a\", \"type\": \"b\", \"size\": 01"), "leading zero" },
	{ FIELD("\"name\": \"a\", \"type\": \"b\", \"size\": 1, \"size\": 1"), "the same key twice in a field" },
	{ FIELD("\"name\": \"a\", \"type\": \"b\", \"size\": 18446744073709551616"), "above 2^64" },
	{ FIELD("\"name\": \"a\", \"type\": \"b\", \"size\": 99999999999999999999999999"), "above 2^64" },
	{ FIELD("\"name\": \"a\", \"type\": \"b\", \"size\": 9223372036854775808"), "too large" },
	{ FIELD("\"name\": \"a\", \"array_len\": 9223372036854775808, \"type\": \"b\", \"size\": 1"), "too large" },
	{ FIELD("\"name\": \"a\", \"array_len\": 9223372036854775807, \"type\": \"b\", \"size\": 3"),
	  "do not fit in 64 bits" },
	{ FIELD("\"name\": \"a\", \"array_len\": 9223372036854775807, \"type\": \"b\", \"size\": 2"),
	  "do not fit in 63 bits" },
	{ FIELD("\"name\": \"a\", \"type\": \"b\", \"size\": 9223372036854775807}, {\"name\": \"a\", \"type\": \"b\", "
	        "\"size\": 1"),
	  "63 bits" },
	{ FIELD("\"name\": \"a\", \"type\": \"struct\", \"struct\": {" DESC("s", U32("x")) "}, \"size\": 5"),
	  "'a' has size 5, its structure adds up to 4" },
	{ FIELD("\"name\": \"a\", \"type\": \"vstruct\", " DESC("s", U32("x")) ", \"size\": 3"), "has size 3" },
	{ FIELD("\"name\": \"a\", \"type\": \"tmp\", " DESC("s", U32("x")) ", " DESC("s", U32("x")) ", \"size\": 4"),
	  "the same key twice" },
	{ FIELD("\"name\": \"a\", \"type\": \"struct\", \"struct\": {}, \"size\": 0"), "an empty description" },
	{ FIELD("\"name\": \"a\x01\", \"type\": \"b\", \"size\": 1"), "the byte 0x01" },
	{ FIELD("\"name\": \"a\xff\", \"type\": \"b\", \"size\": 1"), "the byte 0xff" },
	{ FIELD("\"name\": \"\xed\xa0\x80\", \"type\": \"b\", \"size\": 1"), "the byte 0xed" },
	{ FIELD("\"name\": \"\xc0\x80\", \"type\": \"b\", \"size\": 1"), "the byte 0xc0" },
	{ FIELD("\"name\": \"\\u0000\", \"type\": \"b\", \"size\": 1"), "with a NUL" },
	{ FIELD("\"name\": \"\\ud800\", \"type\": \"b\", \"size\": 1"), "half a surrogate" },
	{ FIELD("\"name\": \"\\udc00\", \"type\": \"b\", \"size\": 1"), "half a surrogate" },
	{ FIELD("\"name\": \"\\x\", \"type\": \"b\", \"size\": 1"), "unknown escape" },
	{ FIELD("\"name\": \"a\" \"type\": \"b\""), "',' expected" },
	{ FIELD("\"name\": nul"), "'\"' expected" },
	{ FIELD("\"unknown\": nul"), "a value expected" },
	{ FIELD("\"unknown\": -x"), "a digit expected" },
	{ "{\"page_size\": 1, }", "'\"' expected" },
	{ "{\"page_size\": 1", "',' expected" },
	{ "{\"page_si", "the text ends inside a string" },
	{ "{\"page_si\\", "the text ends inside a string" },
	{ TOP("{\"name\": \"d\", \"instance_id\": 0, " DESC("d", "") ", \"subsections\": [{" DESC("", "") "}]}"),
	  "without a name" },
};

TEST_ROWS(test_vmdesc_rejects_by_name, bad)
{
	struct err err = ERR_NONE;
	int r = try_parse(bad[_i].text, strlen(bad[_i].text), &err);

	if (!bad[_i].story) {
		ck_assert_int_eq(r, 0);
		return;
	}
	ck_assert_msg(r == -EPROTO && err.code == r, "%s: %d", bad[_i].text, r);
	ck_assert_msg(strstr(err.text, bad[_i].story) != NULL, "%s: \"%s\"", bad[_i].text, err.text);
}

static char *repeat(const char *start, const char *middle, size_t count, const char *end)
{
	size_t n = strlen(middle), at = strlen(start);
	char *text = malloc(at + n * count + strlen(end) + 1);

	strcpy(text, start);
	for (size_t i = 0; i < count; i++, at += n)
		memcpy(text + at, middle, n);
	strcpy(text + at, end);
	return text;
}

TEST(test_vmdesc_bounds_nesting)
{
	static const char *const bombs[][2] = {
		{ "{\"x\": ", "[" },
		{ "", "{\"x\": " },
		{ "{\"devices\": [{\"fields\": ", "[{\"type\": \"struct\", \"struct\": {\"fields\": " },
		{ "{\"devices\": [{\"fields\": ", "[{\"fields\": " },
		{ "{\"devices\": [{\"subsections\": ", "[{\"subsections\": " },
	};

	for (size_t i = 0; i < sizeof(bombs) / sizeof(bombs[0]); i++) {
		char *text = repeat(bombs[i][0], bombs[i][1], 100000, "");
		struct err err = ERR_NONE;
		int r = try_parse(text, strlen(text), &err);

		ck_assert_msg(r == -E2BIG && strstr(err.text, "nested deeper"), "%zu: %d %s", i, r, err.text);
		free(text);
	}
}

TEST(test_vmdesc_bounds_length_and_devices)
{
	static const char device[] = "{\"name\": \"d\", \"instance_id\": 0, \"fields\": []}, ";
	char *text = repeat("{", " ", VMDESC_BYTES_MAX, "}");
	struct err err = ERR_NONE;

	ck_assert_int_eq(try_parse(text, strlen(text), &err), -E2BIG);
	ck_assert_ptr_nonnull(strstr(err.text, "the limit is"));
	free(text);
	text = repeat("{\"devices\": [", device, VMDESC_DEVICES_MAX + 1, "");
	ck_assert_int_eq(try_parse(text, strlen(text), &err), -E2BIG);
	ck_assert_ptr_nonnull(strstr(err.text, "devices"));
	free(text);
}

TEST(test_vmdesc_every_prefix_is_an_error)
{
	static const char text[] =
	        TOP("{\"name\": \"d\", \"instance_id\": 0, " DESC("d", U32("a\\u00e4")) ", \"subsections\": [{" DESC(
	                "d/sub", U32("b")) "}], \"x\": [1, {\"y\": -1.5e3}]}");
	struct err err = ERR_NONE;

	for (size_t n = 0; n < sizeof(text) - 1; n++)
		ck_assert_msg(try_parse(text, n, &err) == -EPROTO, "%.*s", (int)n, text);
	ck_assert_int_eq(try_parse(text, sizeof(text) - 1, &err), 0);
}

TEST(test_vmdesc_parses_the_largest_text_in_a_blink)
{
	char *text = repeat("{\"devices\": [{\"name\": \"d\", \"instance_id\": 0, \"fields\": [", U32("a") ", ", 180000,
	                    U32("a") "]}]}");
	struct timespec a, b;
	double s;

	ck_assert_uint_lt(strlen(text), VMDESC_BYTES_MAX);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
	ck_assert_uint_eq(bytes_of(text), 720004);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
	s = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9;
	/* Measured 0.1 s; ten times that is a sanitizer or a busy machine, not a square. */
	ck_assert_msg(s < 3, "%zu bytes of text took %.3f s", strlen(text), s);
	free(text);
}

static void check_real(struct tail *t)
{
	struct split_result r = tail_split(t);
	const struct vmdesc *d = r.desc;
	size_t sum = 0, text_bytes;

	ck_assert_uint_gt(vmdesc_device_count(d), 10);
	for (size_t k = 0; k < vmdesc_device_count(d); k++) {
		const struct vmdesc_device *dev = vmdesc_device(d, k);
		const char *text = vmdesc_device_text(d, k, &text_bytes);
		char start[300];

		snprintf(start, sizeof(start), "{\"name\": \"%s\", \"instance_id\": %u, ", dev->name, dev->instance_id);
		ck_assert_int_eq(strncmp(text, start, strlen(start)), 0);
		ck_assert_int_eq(text[text_bytes - 1], '}');
		if (k < t->opts.early_count)
			continue;
		sum += 14 + dev->name_bytes + dev->desc->body_bytes + (t->opts.footers ? 5 : 0);
	}
	ck_assert_uint_eq(sum, r.eof_off);
	split_result_fini(&r);
}

TEST(test_vmdesc_of_real_sources_adds_up_to_their_tails)
{
	for_each_tail(".tail", check_real);
}
