/*
 * Device state from a stranger: the description, both ways of splitting, and the JSON of the result.
 *
 * The first byte chooses the question and its options; the rest is the buffer. Lengths and sums rarely agree by chance,
 * so one choice takes the size of a device from the description.
 */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/be.h"
#include "engine/devices/split.h"
#include "engine/devices/vmdesc.h"
#include "engine/stream/globalstate.h"
#include "tests/unit/data/shown.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct split_handler live[] = { { "ram", 0, 2, 0 }, { "0000:00:02.0/vfio", 0, 3, 0 } };
static const struct split_handler early[] = { { "early", 0, 9, 4 } };

static void check(const struct split_result *r, size_t bytes)
{
	size_t at = 0;

	for (size_t i = 0; i < r->section_count; i++) {
		ASSERT(r->sections[i].off >= at);
		ASSERT(r->sections[i].body_off <= bytes);
		ASSERT(r->sections[i].body_bytes <= bytes - r->sections[i].body_off);
		at = r->sections[i].body_off + r->sections[i].body_bytes;
	}
	ASSERT(r->eof_off <= bytes);
}

static void show(const uint8_t *buf, size_t bytes, struct split_result *r)
{
	static const struct devices_json_opts opts = { .hex_bytes_max = 64 };
	json_t *doc;
	char *text;

	check(r, bytes);
	doc = shown(r, buf, bytes, 0, &opts);
	text = json_dumps(doc, 0);
	ASSERT(text != NULL);
	free(text);
	json_decref(doc);
	split_result_fini(r);
}

static void try_tail(const uint8_t *buf, size_t bytes, const struct split_opts *opts)
{
	struct split_result r = SPLIT_RESULT_NONE;
	struct split_tail tail = { 0 };
	struct err err = ERR_NONE;
	int got = split_try_tail(&tail, &r, buf, bytes / 2, opts, &err);

	if (got == 0)
		got = split_try_tail(&tail, &r, buf, bytes, opts, &err);
	if (got == 0)
		ASSERT(split_tail_end(&tail, buf, bytes, opts, &err) < 0);
	if (got == 1)
		show(buf, bytes, &r);
}

static void by_footers(const uint8_t *buf, size_t bytes, enum split_mode mode, const struct split_opts *opts)
{
	struct split_result r = SPLIT_RESULT_NONE;
	struct err err = ERR_NONE;

	if (split_by_footers(&r, buf, bytes, mode, opts, &err) == 0)
		show(buf, bytes, &r);
}

static void early_end(const uint8_t *buf, size_t bytes, const struct split_opts *opts)
{
	size_t scan = 0, body = 0;
	struct err err = ERR_NONE;
	int got = 0;

	for (size_t n = 0; got == 0 && n <= bytes; n += 3)
		got = split_early_end(&body, &scan, buf, n, 9, opts, &err);
	ASSERT(got <= 0 || body <= bytes);
}

/* One section whose size is that of the description's first device, so that decoding gets its bytes. */
static void one_device(const uint8_t *buf, size_t bytes)
{
	static const struct devices_json_opts opts = { .hex_bytes_max = 64 };
	const char *brace = memchr(buf, '{', bytes);
	size_t json_off = brace ? (size_t)((const uint8_t *)brace - buf) : bytes;
	struct vmdesc *d = NULL;
	struct err err = ERR_NONE;

	if (vmdesc_parse(&d, buf + json_off, bytes - json_off, NULL, &err) < 0)
		return;
	if (vmdesc_device_count(d) > 0 && vmdesc_device(d, 0)->desc->body_bytes <= bytes) {
		struct split_section s = { .body_bytes = (size_t)vmdesc_device(d, 0)->desc->body_bytes };
		json_t *json = devices_json_device(buf, bytes, &s, d, 0, &opts, &err);

		ASSERT(json != NULL);
		json_decref(json);
	}
	vmdesc_free(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct split_opts opts = { .live = live, .live_count = 2 };
	char run_state[GLOBALSTATE_NAME_MAX + 1];
	struct err err = ERR_NONE;

	if (size < 1)
		return 0;
	opts.footers = !(data[0] & 8);
	if (data[0] & 16) {
		opts.early = early;
		opts.early_count = 1;
	}
	switch (data[0] & 7) {
	case 0:
		by_footers(data + 1, size - 1, SPLIT_TAIL, &opts);
		break;
	case 1:
		by_footers(data + 1, size - 1, SPLIT_PACKAGE, &opts);
		break;
	case 2:
		early_end(data + 1, size - 1, &opts);
		break;
	case 3:
		one_device(data + 1, size - 1);
		break;
	case 4:
		globalstate_parse(run_state, data + 1, size - 1, &err);
		break;
	default:
		try_tail(data + 1, size - 1, &opts);
	}
	return 0;
}
