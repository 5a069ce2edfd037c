/* How much device state and its description make us hold, besides the bytes themselves. */
#include "tests/support/check_main.h"
#include "tests/support/held.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "engine/devices/vmdesc.h"
#include "engine/stream/json_pull.h"
#include "tests/unit/data/shown.h"
#include "tests/unit/data/tails.h"

/* ---- descriptions ----------------------------------------------------------------------------------------------- */

/* "before", then "piece" as often as it fits, with commas between, then "after". A %u in @piece is its number. */
struct text_plan {
	const char *what, *before, *piece, *after;
};

#define DEVICE "{\"name\":\"d\",\"instance_id\":0,\"vmsd_name\":\"\",\"version\":1,"
#define TOP "{\"devices\":["

static const struct text_plan texts[] = {
	{ "fields", TOP DEVICE "\"fields\":[", "{\"name\":\"\",\"type\":\"\",\"size\":0}", "]}]}" },
	{ "structures", TOP DEVICE "\"fields\":[",
	  "{\"name\":\"\",\"type\":\"struct\",\"size\":0,\"struct\":{\"vmsd_name\":\"\",\"version\":0,\"fields\":[]}}",
	  "]}]}" },
	{ "subsections", TOP DEVICE "\"fields\":[],\"subsections\":[",
	  "{\"vmsd_name\":\"s\",\"version\":0,\"fields\":[]}", "]}]}" },
	{ "unknown keys", TOP DEVICE "\"fields\":[],", "\"\":0", "}]}" },
	{ "unknown strings", TOP DEVICE "\"fields\":[],\"x\":[", "\"\"", "]}]}" },
	{ "devices", TOP, "{\"name\":\"d\",\"instance_id\":%u,\"fields\":[]}", "]}" },
};

static char *make_text(const struct text_plan *plan, size_t bytes_max, size_t *ret_bytes)
{
	char *text = malloc(bytes_max + 1), piece[256];
	size_t at = (size_t)sprintf(text, "%s", plan->before), n;

	ck_assert_ptr_nonnull(text);
	for (unsigned i = 0; i < VMDESC_DEVICES_MAX * (strstr(plan->piece, "%u") ? 1u : 1000u); i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		n = (size_t)snprintf(piece, sizeof(piece), plan->piece, i);
#pragma GCC diagnostic pop
		if (at + n + 1 + strlen(plan->after) > bytes_max)
			break;
		if (i > 0)
			text[at++] = ',';
		memcpy(text + at, piece, n);
		at += n;
	}
	strcpy(text + at, plan->after);
	*ret_bytes = at + strlen(plan->after);
	return text;
}

TEST_CASE("devices", 120);

TEST_ROWS(test_a_description_holds_no_more_than_a_multiple_of_its_text, texts)
{
	const struct text_plan *plan = &texts[_i];
	struct vmdesc *d = NULL;
	struct err err = ERR_NONE;
	struct held held;
	size_t bytes;
	char *text = make_text(plan, VMDESC_BYTES_MAX, &bytes);

	held_begin(&held);
	ck_assert_msg(vmdesc_parse(&d, text, bytes, NULL, &err) == 0, "%s", err.text);
	held_within(&held, (1 + JSON_PULL_MULTIPLE) * bytes + 2 * JSON_PULL_CHUNK_BYTES + (256u << 10), plan->what);
	vmdesc_free(d);
	free(text);
}

/* ---- as JSON ---------------------------------------------------------------------------------------------------- */

#define NAME_200 \
	"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn" \
	"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"

/* Each device of @count has these fields, and a body of @bytes. */
static const struct bomb {
	const char *what, *fields;
	size_t bytes;
	unsigned count;
} bombs[] = {
	{ "elements of no bytes", "{\"name\":\"x\",\"array_len\":1000000,\"type\":\"t\",\"size\":0}", 0, 200 },
	{ "elements of no bytes, more of them",
	  "{\"name\":\"x\",\"array_len\":4611686018427387904,\"type\":\"struct\","
	  "\"size\":0,\"struct\":{\"vmsd_name\":\"\",\"version\":0,\"fields\":[]}}",
	  0, 20000 },
	{ "bytes as numbers", "{\"name\":\"x\",\"array_len\":1048576,\"type\":\"uint8\",\"size\":1}", 1 << 20, 4 },
	{ "long names again and again",
	  "{\"name\":\"x\",\"array_len\":1048576,\"type\":\"struct\",\"size\":1,\"struct\":{\"vmsd_name\":\"\","
	  "\"version\":0,\"fields\":[{\"name\":\"" NAME_200 "\",\"type\":\"uint8\",\"size\":1}]}}",
	  1 << 20, 4 },
	{ "long types again and again", "{\"name\":\"x\",\"array_len\":1048576,\"type\":\"" NAME_200 "\",\"size\":1}",
	  1 << 20, 4 },
	{ "arrays in arrays",
	  "{\"name\":\"x\",\"array_len\":1024,\"type\":\"struct\",\"size\":0,\"struct\":{"
	  "\"vmsd_name\":\"\",\"version\":0,\"fields\":[{\"name\":\"y\",\"array_len\":1024,\"type\":\"struct\","
	  "\"size\":0,\"struct\":{\"vmsd_name\":\"\",\"version\":0,\"fields\":[{\"name\":\"z\",\"array_len\":1024,"
	  "\"type\":\"bool\",\"size\":0}]}}]}}",
	  0, 1000 },
	{ "hex", "{\"name\":\"x\",\"type\":\"buffer\",\"size\":33554432}", 32 << 20, 1 },
	{ "devices, and nothing in them", "", 0, 65536 },
};

struct shown {
	json_t *doc;
	size_t received_bytes, not_shown;
};

/* As the program does it: a device at a time, with its own part of the description. */
static void show(struct shown *sh, const struct bomb *bomb, size_t hex_bytes_max)
{
	struct devices_json_budget budget = { 0 };
	struct devices_json_opts opts = { .hex_bytes_max = hex_bytes_max, .budget = &budget };
	uint8_t *buf = calloc(1, 1 + bomb->bytes);
	char *text = NULL;
	size_t bytes = (size_t)asprintf(&text, "{\"devices\":[%s\"fields\":[%s]}]}", DEVICE, bomb->fields);

	*sh = (struct shown){ .doc = devices_json_new(SPLIT_BY_DESCRIPTION) };
	buf[0] = 'd';
	for (unsigned i = 0; i < bomb->count; i++) {
		struct split_section s = { .name_bytes = 1, .body_off = 1, .body_bytes = bomb->bytes };
		struct err err = ERR_NONE;
		struct vmdesc *d = NULL;
		json_t *device;

		ck_assert_msg(vmdesc_parse(&d, text, bytes, NULL, &err) == 0, "%s", err.text);
		device = devices_json_device(buf, 1 + bomb->bytes, &s, d, 0, &opts, &err);
		ck_assert_msg(device || err.code == -E2BIG, "%s", err.text);
		ck_assert_int_eq(device ? json_array_append_new(json_object_get(sh->doc, "devices"), device) :
		                          devices_json_skip(sh->doc),
		                 0);
		sh->received_bytes += 20 + bomb->bytes + bytes;
		vmdesc_free(d);
	}
	sh->not_shown = (size_t)json_integer_value(json_object_get(sh->doc, "not_shown"));
	free(text);
	free(buf);
}

static int count_bytes(const char *text, size_t bytes, void *sum)
{
	(void)text;
	*(size_t *)sum += bytes;
	return 0;
}

TEST_ROWS(test_devices_as_json_hold_no_more_than_their_budget, bombs)
{
	const struct bomb *bomb = &bombs[_i];
	size_t limit, text_bytes = 0;
	struct held held;
	struct shown sh;

	held_begin(&held);
	show(&sh, bomb, 4096);
	limit = DEVICES_JSON_MULTIPLE * sh.received_bytes;
	if (limit > DEVICES_JSON_BYTES_MAX)
		limit = DEVICES_JSON_BYTES_MAX;
	/* And the body, twice for its hex, and what malloc keeps. */
	held_within(&held, limit + 3 * bomb->bytes + (1u << 20), bomb->what);
	json_dump_callback(sh.doc, count_bytes, &text_bytes, JSON_INDENT(2));
	printf("%zu bytes received, %zu of text; %zu devices of %u are not shown\n", sh.received_bytes, text_bytes,
	       sh.not_shown, bomb->count);
	ck_assert_uint_le(text_bytes, limit);
	ck_assert_uint_eq(json_array_size(json_object_get(sh.doc, "devices")) + sh.not_shown, bomb->count);
	json_decref(sh.doc);
}

/* Real ones take a tenth of what they may. */
static void check_real(struct tail *t)
{
	struct devices_json_budget budget = { 0 };
	struct devices_json_opts opts = { .budget = &budget };
	struct split_result r = tail_split(t);
	size_t before = mallinfo2().uordblks, held_bytes, text_bytes = 0;
	json_t *doc = shown(&r, t->buf, t->bytes, 0, &opts);

	held_bytes = mallinfo2().uordblks - before;
	json_dump_callback(doc, count_bytes, &text_bytes, JSON_INDENT(2));
	printf("%zu bytes: %zu held, %zu of text, %llu spent of %llu\n", t->bytes, held_bytes, text_bytes,
	       (unsigned long long)budget.spent_bytes, (unsigned long long)budget.earned_bytes);
	ck_assert_ptr_null(json_object_get(doc, "not_shown"));
	ck_assert_uint_le(held_bytes, budget.spent_bytes);
	ck_assert_uint_le(text_bytes, budget.spent_bytes);
	ck_assert_uint_le(budget.spent_bytes, budget.earned_bytes / 5);
	json_decref(doc);
	split_result_fini(&r);
}

TEST(test_devices_of_real_sources_stay_far_below_their_budget)
{
	struct held held;

	held_begin(&held); /* where nothing can be measured, nothing is */
	for_each_tail(".tail", check_real);
}
