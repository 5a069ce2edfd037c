/*
 * devices_json.h - device state as JSON, for people and programs to read
 *
 *   {"split": "description", "devices": [
 *     {"name": "serial", "instance_id": 0, "version_id": 3, "offset": 71234, "bytes": 26, "split": "description",
 *      "state": {"state.divider": 12, ..., "subsections": {"serial/thr_ipending": {...}}}}, ...]}
 *
 * How values look, by the type's name in the description (doc/wire/stream.md 7.2):
 *   bool                  true, false; a byte that is neither 0 nor 1 as its number
 *   integers              a number; an unsigned one above INT64_MAX as the string "0x...", since a JSON number of most
 *                         readers, this library's included, ends there
 *   timer                 nanoseconds, null when inactive
 *   struct, vstruct, tmp  an object
 *   unused_buffer         {"unused": bytes}; with "hex" too if a byte is not zero
 *   everything else       {"type": "...", "bytes": n, "hex": "..."} for opaque types, lists and trees;
 *                         the plain hex string for buffer, CPU_Double_U, bitmap and such of known shape
 *   arrays                a list; equal names in one structure also become one list, in order
 * Hex longer than the limit is {"bytes": n, "hex": the first bytes, "cut": true}.
 * A member called "subsections" in a structure holds its subsections by vmsd_name.
 * A device without a description has "hex" in place of "state".
 *
 * What is shown is never more than a multiple of what was received, with all devices of a document together: arrays of
 * elements that have no bytes, and names that come again with each element, would make gigabytes of some hundred bytes.
 * A device that cannot be shown within that has "hex" and a "note" in place of "state"; one for which not even that is
 * left is counted in the document's "not_shown".
 *
 * Parks: nothing here does.
 */
#ifndef PROGRAMS_LISTEN_DEVICES_JSON_H
#define PROGRAMS_LISTEN_DEVICES_JSON_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/devices/split.h"

struct err;
struct vmdesc;

/* Bytes of JSON, in memory and in the file, for a byte of device state or description: an array of bytes takes 60. */
#define DEVICES_JSON_MULTIPLE 128
/* Of one document, however much was received. Real ones have some MiB. */
#define DEVICES_JSON_BYTES_MAX (128u << 20)

/* Of one document; starts as zeros. What a device has earned and not spent is there for the next ones. */
struct devices_json_budget {
	uint64_t earned_bytes; /* DEVICES_JSON_MULTIPLE of what was received */
	uint64_t spent_bytes;  /* also by what could not be shown in the end: so its work is bounded, too */
};

struct devices_json_opts {
	size_t hex_bytes_max;               /* of one value; 0 means all of it */
	struct devices_json_budget *budget; /* not owned; NULL: each device has one of its own */
};

/**
 * devices_json_device - one device
 * @buf, @bytes: the buffer the section's offsets are into
 * @d: the description, NULL without one (section->device is -1 then)
 * @offset: what to show as "offset": the section's place in the stream, where the caller knows it
 * Return: a new reference, NULL with @err (-ENOMEM; -EINVAL section not within the buffer; -E2BIG nothing of the budget
 * is left: not an error of the device's, see devices_json_skip).
 */
json_t *devices_json_device(const uint8_t *buf, size_t bytes, const struct split_section *section,
                            const struct vmdesc *d, uint64_t offset, const struct devices_json_opts *opts,
                            struct err *err);

/** devices_json_new - the document, without devices. Return: a new reference; NULL: no memory. */
json_t *devices_json_new(enum split_way way);

/** devices_json_skip - count a device that is not shown. Return: 0 or -ENOMEM. */
int devices_json_skip(json_t *doc);

#endif
