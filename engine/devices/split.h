/*
 * split.h - where one device's state ends and the next begins
 *
 * Device state is a run of FULL sections whose bodies carry no length (doc/wire/stream.md 7.1). There are two ways to
 * divide it without knowing the devices: the description after it (exact, precopy only: doc/wire/stream.md 7.3, 7.4.1)
 * and the footers (doc/wire/stream.md 7.4.2; a guess that must tile exactly, which a guest that controls bytes of a
 * body can forge). These are pure functions over bytes in memory: the caller receives, and decides when to ask.
 *
 * Results are offsets into the caller's buffer, which may therefore move; nothing of the buffer is kept.
 *
 * Invariants of a struct split_result:
 * (1) Sections are in stream order, do not overlap, and lie within the buffer.
 * (2) No (name, instance) occurs twice, also not one of opts->early; no section_id occurs twice, and one of opts->live
 *     or opts->early occurs only with the name and instance of that handler (live) or not at all (early).
 * (3) Memory is in proportion to sections and what looks like their ends, both bounded: SPLIT_BYTES_MAX, beside the
 *     description (vmdesc.h).
 * (4) The work of every call is linear in its bytes (times a logarithm for the footers), also over hostile bytes.
 *
 * Parks: all that divides does, where opts->sched is set (split_by_*, split_try_tail, split_tail_end, split_early_end).
 * Nobody may touch the buffer meanwhile. They return -ECANCELED for a cancel, which stays pending: see
 * turn_spend_pending.
 */
#ifndef ENGINE_DEVICES_SPLIT_H
#define ENGINE_DEVICES_SPLIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct sched;
struct vmdesc;

#define SPLIT_SECTIONS_MAX 65536
/* Sources count from 0: where nothing tells a section's end, a larger id is none. */
#define SPLIT_ID_MAX 0xffffffu
/* Places that look like the end of a section: each section has one, and hardly any are elsewhere but in a trap. */
#define SPLIT_FEET_MAX (4 * SPLIT_SECTIONS_MAX)
/* What dividing takes beside the bytes that are divided, at most (test_held_split). */
#define SPLIT_BYTES_MAX (32u << 20)
#define SPLIT_COMMANDS_MAX 64

/* A handler the caller has met earlier in this stream. */
struct split_handler {
	const char *name; /* NUL-terminated */
	uint32_t instance_id;
	uint32_t section_id;
	size_t body_bytes; /* of an early section, header and footer not counted; unused for live ones */
};

struct split_opts {
	bool footers; /* each body is followed by 7e be32(section_id) */
	/* Handlers that had a START: one of them may also have a FULL, with the same id (doc/wire/stream.md 1.4). */
	const struct split_handler *live;
	size_t live_count;
	/* FULL sections of the set-up phase (doc/wire/stream.md 1.5): first in the description, not in the buffer. */
	const struct split_handler *early;
	size_t early_count;
	/* Whose turns the work is (turn.h); NULL: nobody else waits. */
	struct sched *sched;
};

struct split_section {
	size_t off; /* of the type byte */
	size_t name_off;
	size_t body_off;
	size_t body_bytes;
	uint32_t section_id;
	uint32_t instance_id;
	uint32_t version_id;
	int32_t device; /* index in the description; -1 without one, or where it does not fit (split_description.c) */
	uint8_t name_bytes;
};

/* A command between sections: packages only. */
struct split_command {
	size_t off; /* of the type byte */
	size_t payload_off;
	size_t section; /* index of the section it stands in front of; the count when it is after all */
	uint16_t command;
	uint16_t payload_bytes;
};

enum split_way { SPLIT_BY_DESCRIPTION, SPLIT_BY_FOOTERS };

struct split_result {
	struct split_section *sections; /* owned */
	size_t section_count;
	struct split_command *commands; /* owned, NULL when there are none */
	size_t command_count;
	enum split_way way;
	size_t eof_off;  /* the EOF byte; in a package, which has none, its length */
	size_t json_off; /* the description's text; only from split_try_tail */
	size_t json_bytes;
	struct vmdesc *desc; /* owned; only from split_try_tail, else NULL */
};

#define SPLIT_RESULT_NONE ((struct split_result){ 0 })

void split_result_fini(struct split_result *r);

/** split_name - the section's name as a C string. Return: @ret_name. */
const char *split_name(char ret_name[static 256], const uint8_t *buf, const struct split_section *s);

/**
 * split_by_description - divide a tail with its description
 * @buf:   from the type byte of the first FULL section after the live ENDs
 * @bytes: up to and with the EOF byte
 * Checks header, size, every subsection header inside the body, and footer of each device in the description's order.
 * Only FULL sections may stand here; a command is an error that is named.
 * Return: 0, -EPROTO with section and offset, -E2BIG too many sections, -ENOMEM.
 * Source: doc/wire/stream.md 7.3, 1.5
 */
int split_by_description(struct split_result *ret, const struct vmdesc *d, const uint8_t *buf, size_t bytes,
                         const struct split_opts *opts, struct err *err);

/* What split_try_tail remembers from call to call; starts as zeros. Nothing to free. */
struct split_tail {
	size_t scanned;  /* bytes seen by earlier calls */
	size_t zero_off; /* 1 + offset of the last zero byte among them, 0 when there was none */
	struct err miss; /* a complete description was there but did not agree; code 0 when that never happened */
};

/**
 * split_try_tail - is the device state complete?
 * @buf:   everything since the type byte of the first FULL section; may have moved since the last call
 * @bytes: not less than in the last call with this @tail
 * Cheap to call after each receive: it looks at each byte once, and parses only where an announced length ends at the
 * last byte received. Ask when nothing more is readable: bytes that arrive after a 1 are "data after the description",
 * which is for the caller to report.
 * A description that does not agree with the sections is no error here, since bytes under the guest's control can look
 * like one; the reason stays in tail->miss and is the story of split_tail_end.
 * Return: 1 complete (@ret is written), 0 more bytes are needed, -EPROTO no section can begin like this, -ENOMEM.
 * Source: doc/wire/stream.md 7.4.1
 */
int split_try_tail(struct split_tail *tail, struct split_result *ret, const uint8_t *buf, size_t bytes,
                   const struct split_opts *opts, struct err *err);

/**
 * split_find_tail - the description may not be the last thing in @buf
 * For a stream that lies on something longer, and has nobody who could say where it ends. Of all descriptions that
 * agree with the sections before them the last one counts: a guest that has made one in the state of its own device
 * could hide those after it otherwise.
 * Return: 1, and what follows begins at ret->json_off + ret->json_bytes; 0 there is none; -EPROTO the last one does not
 * agree with the bodies; -ENOMEM; -ECANCELED.
 */
int split_find_tail(struct split_result *ret, const uint8_t *buf, size_t bytes, const struct split_opts *opts,
                    struct err *err);

/**
 * split_tail_end - the stream has ended (or the caller will not wait longer) and the last answer was 0: why?
 * Return: -ECANCELED, or always -EPROTO, with the best story: data after the description, a description that
 * disagrees, none at all.
 */
int split_tail_end(const struct split_tail *tail, const uint8_t *buf, size_t bytes, const struct split_opts *opts,
                   struct err *err);

/** split_ends_with_description - is the last byte that of a description, whatever it says? */
bool split_ends_with_description(const uint8_t *buf, size_t bytes);

enum split_mode {
	SPLIT_TAIL,    /* FULL sections, then EOF as the last byte: a stream that ends without a description */
	SPLIT_PACKAGE, /* LISTEN, FULL sections, PINGs between and after them, RUN (doc/wire/stream.md 2, 5.4) */
};

/**
 * split_by_footers - divide without a description
 * Each body ends at the first footer from which the rest still tiles exactly. Needs opts->footers.
 * By (2) of the heading: the answer is a guess where a guest controls bytes of a body.
 * Return: 0, -EPROTO nothing tiles, -EINVAL without footers, -E2BIG, -ENOMEM.
 * Source: doc/wire/stream.md 7.4.2
 */
int split_by_footers(struct split_result *ret, const uint8_t *buf, size_t bytes, enum split_mode mode,
                     const struct split_opts *opts, struct err *err);

/* Longest body that split_early_end looks through: virtio-mem's early state is some hundred bytes. */
#define SPLIT_EARLY_BYTES_MAX (1u << 20)

/**
 * split_early_end - the first plausible end of an early-setup section's body
 * @body: from the first byte of the body; may have moved since the last call
 * @scan_off: 0 before the first call, then kept for the caller between calls with more bytes
 * @section_id: of the section
 * Plausible: its footer, and after it the beginning of an element that may stand in the set-up phase (START, FULL,
 * PART or END of a handler in opts->live, a command of its right length). The header after must have arrived whole
 * to be judged. The description confirms the size later (opts->early).
 * Return: 1 and @ret_body_bytes, 0 more bytes are needed, -EPROTO none within SPLIT_EARLY_BYTES_MAX.
 * Source: doc/wire/stream.md 7.4.2, 1.5
 */
int split_early_end(size_t *ret_body_bytes, size_t *scan_off, const uint8_t *body, size_t bytes, uint32_t section_id,
                    const struct split_opts *opts, struct err *err);

#endif
