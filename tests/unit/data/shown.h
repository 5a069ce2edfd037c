/*
 * shown.h - a divided device state as JSON, a device at a time, as the program does it
 */
#ifndef TESTS_UNIT_DATA_SHOWN_H
#define TESTS_UNIT_DATA_SHOWN_H

#include <errno.h>

#include "base/assert.h"
#include "base/err.h"
#include "programs/listen/devices_json.h"

/* The document: every section of @r in @buf, which begins at @stream_off; with r->desc, where there is one. */
static inline json_t *shown(const struct split_result *r, const uint8_t *buf, size_t bytes, uint64_t stream_off,
                            const struct devices_json_opts *opts)
{
	struct devices_json_budget budget = { 0 };
	struct devices_json_opts all = *opts;
	json_t *doc = devices_json_new(r->way);

	if (!all.budget)
		all.budget = &budget;
	for (size_t i = 0; i < r->section_count; i++) {
		const struct split_section *s = &r->sections[i];
		struct err err = ERR_NONE;
		json_t *device = devices_json_device(buf, bytes, s, r->desc, stream_off + s->off, &all, &err);

		ASSERT(device || err.code == -E2BIG);
		ASSERT((device ? json_array_append_new(json_object_get(doc, "devices"), device) :
		                 devices_json_skip(doc)) == 0);
	}
	return doc;
}

#endif
