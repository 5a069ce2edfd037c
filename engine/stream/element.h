/*
 * element.h - what elements of the main stream begin and end with: sections, footers, commands, the description
 *
 * Each has one parser, which is pure: bytes in memory to values. What reads from a stream asks that one again whenever
 * more has come. All begin at the type byte, which the caller has looked at.
 *
 * Parsers return how many bytes it takes; 0 when the bytes end before that can be said; -EPROTO, without a story, for
 * what is none. element_read_* return 0; -EPROTO with one; or the reader's error, and park.
 *
 * Source: doc/wire/stream.md 1.4, 1.6, 2
 */
#ifndef ENGINE_STREAM_ELEMENT_H
#define ENGINE_STREAM_ELEMENT_H

#include "base/be.h"
#include "coroutine/co.h"
#include "engine/stream/wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct reader;

/* ---- sections ---- */

/* What a START or FULL section begins with. */
struct section_head {
	const char *name;   /* not NUL-terminated, and within the bytes that were parsed */
	uint8_t name_bytes; /* not 0 */
	uint32_t section_id, instance_id, version_id;
};

int element_section(struct section_head *ret, const uint8_t *at, size_t bytes);

/** element_read_section - the name is at @ret_name, NUL-terminated; one with a zero byte in it is none */
may_park int element_read_section(struct section_head *ret, char ret_name[static 256], struct reader *r,
                                  struct err *err);

#define FOOTER_BYTES 5u

int element_footer(uint32_t *ret_section_id, const uint8_t *at, size_t bytes);

/** element_read_footer - that of section @section_id, and no other */
may_park int element_read_footer(struct reader *r, uint32_t section_id, struct err *err);

static inline void element_put_footer(uint8_t ret[static FOOTER_BYTES], uint32_t section_id)
{
	ret[0] = WIRE_SECTION_FOOTER;
	be32_store(ret + 1, section_id);
}

/* ---- commands ---- */

#define COMMAND_HEAD_BYTES 5u

struct command_head {
	uint16_t id;
	uint16_t payload_bytes; /* announced; see wire_command_fits */
};

int element_command(struct command_head *ret, const uint8_t *at, size_t bytes);
may_park int element_read_command(struct command_head *ret, struct reader *r, struct err *err);

/** element_recv_bitmap - the payload of a RECV_BITMAP, of a length that fits: is it a block's name, and which? */
bool element_recv_bitmap(const char **ret_name, size_t *ret_name_bytes, const uint8_t *payload, size_t bytes);

/* ---- the description ---- */

#define DESCRIPTION_HEAD_BYTES 6u

/** element_description - EOF, the description's header, and how many bytes of JSON it announces; the first is there */
int element_description(size_t *ret_json_bytes, const uint8_t *at, size_t bytes);

#endif
