
#include <errno.h>

#include "engine/devices/vmdesc.h"
#include "tests/support/check_main.h"
#include "tests/unit/data/shown.h"
#include "tests/unit/data/tails.h"

#define DESC(name, fields) "\"vmsd_name\": \"" name "\", \"version\": 1, \"fields\": [" fields "]"
#define F(name, type, size) "{\"name\": \"" name "\", \"type\": \"" type "\", \"size\": " size "}"
#define A(name, len, type, size) \
	"{\"name\": \"" name "\", \"array_len\": " len ", \"type\": \"" type "\", \"size\": " size "}"
#define S(name, desc, size) "{\"name\": \"" name "\", \"type\": \"struct\", \"struct\": {" desc "}, \"size\": " size "}"
#define DEVICE(desc) "{\"page_size\": 4096, \"devices\": [{\"name\": \"d\", \"instance_id\": 0, " desc "}]}"

/* One device, whose body is @body, as compact JSON without what is the same for all. */
static json_t *decode(const char *json, const void *body, size_t bytes, const struct devices_json_opts *opts)
{
	struct vmdesc *d = NULL;
	struct err err = ERR_NONE;
	struct split_section s = { .name_off = 0, .name_bytes = 1, .body_off = 1, .body_bytes = bytes };
	uint8_t *buf = malloc(1 + bytes);
	json_t *device;

	buf[0] = 'd';
	memcpy(buf + 1, body, bytes);
	ck_assert_msg(vmdesc_parse(&d, json, strlen(json), NULL, &err) == 0, "%s", err.text);
	device = devices_json_device(buf, 1 + bytes, &s, d, 77, opts, &err);
	ck_assert_msg(device != NULL, "%s", err.text);
	vmdesc_free(d);
	free(buf);
	return device;
}

static const struct {
	const char *fields, *body;
	size_t bytes;
	const char *state;
} rows[] = {
	{ F("a", "bool", "1") ", " F("b", "bool", "1") ", " F("c", "bool", "1"), "\0\1\7", 3,
	  "{\"a\":false,\"b\":true,\"c\":7}" },
	{ F("a", "int8", "1") ", " F("b", "int16", "2") ", " F("c", "int32 equal", "4") ", " F("d", "int64", "8"),
	  "\x80\xff\xfe\x7f\xff\xff\xff\x80\0\0\0\0\0\0\0", 15,
	  "{\"a\":-128,\"b\":-2,\"c\":2147483647,\"d\":-9223372036854775808}" },
	{ F("a", "uint8", "1") ", " F("b", "uint16", "2") ", " F("c", "uint32", "4"), "\x80\xff\xfe\xff\xff\xff\xff", 7,
	  "{\"a\":128,\"b\":65534,\"c\":4294967295}" },
	{ F("a", "uint64", "8") ", " F("b", "uint64", "8"), "\x7f\xff\xff\xff\xff\xff\xff\xff\x80\0\0\0\0\0\0\x01", 16,
	  "{\"a\":9223372036854775807,\"b\":\"0x8000000000000001\"}" },
	{ F("a", "timer", "8") ", " F("b", "timer", "8"), "\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0\0\0\1\0", 16,
	  "{\"a\":null,\"b\":256}" },
	{ F("a", "buffer", "3") ", " F("b", "CPU_Double_U", "8"),
	  "\1\2\xab"
	  "12345678",
	  11, "{\"a\":\"0102ab\",\"b\":\"3132333435363738\"}" },
	{ F("a", "unused_buffer", "2") ", " F("b", "unused_buffer", "2"), "\0\0\0\1", 4,
	  "{\"a\":{\"unused\":2},\"b\":{\"unused\":2,\"hex\":\"0001\"}}" },
	{ F("a", "virtio", "2") ", " F("q", "qtailq", "1"), "\xca\xfe\0", 3,
	  "{\"a\":{\"type\":\"virtio\",\"bytes\":2,\"hex\":\"cafe\"},\"q\":{\"type\":\"qtailq\",\"bytes\":1,\"hex\":"
	  "\"00\"}}" },
	{ A("a", "3", "uint8", "1") ", " A("n", "0", "uint8", "1") ", " A("e", "2", "buffer", "1"), "\1\2\3\4\5", 5,
	  "{\"a\":[1,2,3],\"n\":[],\"e\":[\"04\",\"05\"]}" },
	/* Equal names: one entry per element, or runs of them. */
	{ F("a", "uint8", "1") ", " F("b", "uint8", "1") ", " F("a", "uint8", "1") ", " F("a", "uint8", "1"),
	  "\1\2\3\4", 4, "{\"a\":[1,3,4],\"b\":2}" },
	{ A("a", "2", "uint8", "1") ", " F("a", "nullptr", "1") ", " A("a", "2", "uint8", "1"), "\1\2\x30\3\4", 5,
	  "{\"a\":[1,2,\"30\",3,4]}" },
	{ F("a", "uint8", "1") ", " A("a", "2", "uint8", "1"), "\1\2\3", 3, "{\"a\":[1,2,3]}" },
	{ S("s", DESC("in", F("x", "uint8", "1") ", " F("y", "uint16", "2")), "3") ", " F("z", "uint8", "1"),
	  "\1\0\2\3", 4, "{\"s\":{\"x\":1,\"y\":2},\"z\":3}" },
	{ "{\"name\": \"t\", \"type\": \"tmp\", " DESC("in", F("x", "uint8", "1")) ", \"size\": 1}", "\5", 1,
	  "{\"t\":{\"x\":5}}" },
	{ "{\"name\": \"s\", \"array_len\": 2, \"type\": \"struct\", \"struct\": {" DESC(
	          "in", F("x", "uint8", "1")) ", \"subsections\": [{" DESC("in/y",
	                                                                   F("y", "uint8", "1")) "}]}, \"size\": 12}",
	  "\1\5\4in/y\0\0\0\1\2\3\5\4in/y\0\0\0\1\4", 24,
	  "{\"s\":[{\"x\":1,\"subsections\":{\"in/y\":{\"y\":2}}},{\"x\":3,\"subsections\":{\"in/y\":{\"y\":4}}}]}" },
	{ "{\"name\": \"s\", \"type\": \"struct\", \"struct\": {" DESC("in", "") ", \"subsections\": [{" DESC(
	          "in/y", F("y", "uint8", "1")) "}, {" DESC("in/z", F("z", "uint8", "1")) "}]}, \"size\": 22}",
	  "\5\4in/y\0\0\0\1\2\5\4in/z\0\0\0\1\3", 22,
	  "{\"s\":{\"subsections\":{\"in/y\":{\"y\":2},\"in/z\":{\"z\":3}}}}" },
	{ F("", "uint8", "1") ", " F("\\u00e4\\n", "uint8", "1"), "\1\2", 2, "{\"\":1,\"\xc3\xa4\\n\":2}" },
	{ "", "", 0, "{}" },
};

TEST_CASE("devices_json", 60);

TEST_ROWS(test_devices_json_shows_each_type, rows)
{
	static const struct devices_json_opts opts = { 0 };
	char json[2000];
	json_t *device;
	char *text;

	snprintf(json, sizeof(json),
	         "{\"devices\": [{\"name\": \"d\", \"instance_id\": 0, \"vmsd_name\": \"d\", \"version\": 1, "
	         "\"fields\": [%s]}]}",
	         rows[_i].fields);
	device = decode(json, rows[_i].body, rows[_i].bytes, &opts);
	text = json_dumps(json_object_get(device, "state"), JSON_COMPACT);
	ck_assert_str_eq(text, rows[_i].state);
	free(text);
	json_decref(device);
}

TEST(test_devices_json_members_of_a_device)
{
	static const struct devices_json_opts opts = { 0 };
	json_t *device = decode(DEVICE(DESC("d", F("a", "uint8", "1"))), "\7", 1, &opts);
	char *text = json_dumps(device, JSON_COMPACT);

	ck_assert_str_eq(text, "{\"name\":\"d\",\"instance_id\":0,\"version_id\":0,\"offset\":77,\"bytes\":1,\"split\":"
	                       "\"description\","
	                       "\"state\":{\"a\":7}}");
	free(text);
	json_decref(device);
}

TEST(test_devices_json_cuts_long_hex)
{
	static const struct devices_json_opts opts = { .hex_bytes_max = 2 };
	json_t *device =
	        decode(DEVICE(DESC("d", F("a", "buffer", "3") ", " F("b", "buffer", "2") ", " F("c", "virtio", "3"))),
	               "\1\2\3\4\5\6\7\x8", 8, &opts);
	char *text = json_dumps(json_object_get(device, "state"), JSON_COMPACT);

	ck_assert_str_eq(text, "{\"a\":{\"bytes\":3,\"hex\":\"0102\",\"cut\":true},\"b\":\"0405\","
	                       "\"c\":{\"type\":\"virtio\",\"bytes\":3,\"hex\":\"0607\",\"cut\":true}}");
	free(text);
	json_decref(device);
}

TEST(test_devices_json_without_end_is_shown_as_hex)
{
	static const struct devices_json_opts opts = { 0 };
	json_t *device =
	        decode(DEVICE(DESC("d", F("a", "uint8",
	                                  "1") ", {\"name\": \"s\", \"array_len\": 4611686018427387904, "
	                                       "\"type\": \"struct\", \"struct\": {" DESC("s", "") "}, \"size\": 0}")),
	               "\7", 1, &opts);

	ck_assert_ptr_null(json_object_get(device, "state"));
	ck_assert_str_eq(json_string_value(json_object_get(device, "note")), "too many values for so few bytes");
	ck_assert_str_eq(json_string_value(json_object_get(device, "hex")), "07");
	json_decref(device);
}

TEST(test_devices_json_refuses_a_section_of_another_buffer)
{
	static const struct split_section sections[] = {
		{ .name_bytes = 1, .body_off = 3, .body_bytes = 2 },
		{ .name_bytes = 1, .body_off = 5, .body_bytes = 0 },
		{ .name_bytes = 1, .body_off = 1, .body_bytes = SIZE_MAX },
		{ .name_bytes = 5, .body_off = 1, .body_bytes = 1 },
	};
	static const struct devices_json_opts opts = { 0 };

	for (size_t i = 0; i < 4; i++) {
		struct err err = ERR_NONE;

		ck_assert_ptr_null(devices_json_device((const uint8_t *)"abcd", 4, &sections[i], NULL, 0, &opts, &err));
		ck_assert_int_eq(err.code, -EINVAL);
	}
}

/* ---- real ones ---- */

static json_t *find(const json_t *doc, const char *name)
{
	size_t i;
	json_t *device;

	json_array_foreach(json_object_get(doc, "devices"), i, device)
	{
		if (!strcmp(json_string_value(json_object_get(device, "name")), name))
			return device;
	}
	return NULL;
}

static void check_tail(struct tail *t)
{
	static const struct devices_json_opts opts = { 0 };
	struct split_result r = tail_split(t);
	json_t *doc = shown(&r, t->buf, t->bytes, 1000, &opts), *again, *device;
	json_error_t json_err;
	char *text;
	size_t i;

	ck_assert_str_eq(json_string_value(json_object_get(doc, "split")), "description");
	ck_assert_uint_eq(json_array_size(json_object_get(doc, "devices")), r.section_count);
	json_array_foreach(json_object_get(doc, "devices"), i, device)
	{
		ck_assert(json_is_object(json_object_get(device, "state")));
		ck_assert_int_eq(json_integer_value(json_object_get(device, "offset")),
		                 (json_int_t)r.sections[i].off + 1000);
	}
	device = find(doc, "globalstate");
	device = json_object_get(json_object_get(device, "state"), "size");
	ck_assert_int_eq(json_integer_value(device), 10); /* "prelaunch" */
	device = json_object_get(json_object_get(find(doc, "cpu"), "state"), "env.regs");
	ck_assert_uint_eq(json_array_size(device), 16);
	/* What is written can be read back and is the same. */
	text = json_dumps(doc, 0);
	again = json_loads(text, JSON_REJECT_DUPLICATES, &json_err);
	ck_assert_msg(again && json_equal(doc, again), "%s", json_err.text);
	json_decref(again);
	free(text);
	json_decref(doc);
	split_result_fini(&r);
}

TEST(test_devices_json_of_real_sources)
{
	for_each_tail(".tail", check_tail);
}

static void check_package(struct tail *t)
{
	static const struct devices_json_opts opts = { .hex_bytes_max = 16 };
	struct split_result r = SPLIT_RESULT_NONE;
	struct err err = ERR_NONE;
	json_t *doc, *device;

	ck_assert_int_eq(split_by_footers(&r, t->buf, t->bytes, SPLIT_PACKAGE, &t->opts, &err), 0);
	doc = shown(&r, t->buf, t->bytes, 0, &opts);
	ck_assert_str_eq(json_string_value(json_object_get(doc, "split")), "footers");
	device = find(doc, "globalstate");
	ck_assert_str_eq(json_string_value(json_object_get(device, "split")), "footers");
	ck_assert_str_eq(json_string_value(json_object_get(json_object_get(device, "hex"), "hex")),
	                 "0000000a7072656c61756e6368000000");
	json_decref(doc);
	split_result_fini(&r);
}

TEST(test_devices_json_of_packages_is_hex)
{
	for_each_tail(".package", check_package);
}
