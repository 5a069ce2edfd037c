#include "engine/load/live.h"

#include "base/be.h"
#include "base/err.h"
#include "coroutine/turn.h"
#include "engine/load/load.h"
#include "engine/stream/reader.h"
#include "engine/stream/trace.h"
#include "engine/stream/wire.h"
#include "inmigrate.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* What the embedder gets at a time, at most. */
#define PIECE_BYTES_MAX (64u << 10)

/* The hash page table: a count that stands for "this guest has none". */
#define HTAB_NONE 0xffffffffu
#define HTAB_ENTRY_BYTES 16u

/* Storage attributes: flags below the address. */
enum attribute_flags { ATTR_EOS = 1, ATTR_MORE = 2, ATTR_ERROR = 4, ATTR_DONE = 8, ATTR_FLAGS = 0xfff };

/* A body under way. */
struct body {
	struct load *l;
	const struct section *sec;
	int type;
};

static int forward(const struct body *b, uint64_t bytes, bool last, struct err *err)
{
	struct reader *r = &b->l->reader;
	struct inm_live_state piece = {
		.name = b->sec->name,
		.instance_id = b->sec->instance_id,
		.version_id = b->sec->version_id,
		.part = b->type == WIRE_SECTION_START ? INM_LIVE_START :
		        b->type == WIRE_SECTION_PART  ? INM_LIVE_PART :
		                                        INM_LIVE_END,
	};
	int e = 0;

	while (e == 0 && bytes > 0) {
		piece.bytes = bytes < PIECE_BYTES_MAX ? (size_t)bytes : PIECE_BYTES_MAX;
		e = reader_need(r, piece.bytes, err);
		if (e < 0)
			return e;
		bytes -= piece.bytes;
		piece.data = reader_data(r);
		piece.stream_offset = reader_off(r);
		piece.last = last && bytes == 0;
		e = b->l->ops->live_state(b->l->ops_opaque, &piece, err);
		if (e < 0)
			return e;
		reader_skip(r, piece.bytes);
		e = turn_spend(r->sched, TURN_STEP + piece.bytes);
	}
	return e;
}

/* ---- spapr/htab: the hash page table of a pseries guest ---- */

/* Return: 1 it was the last, 0 go on, negative an error. */
static int read_entries(const struct body *b, struct err *err)
{
	const uint8_t *head;
	unsigned valid;
	bool last;
	int e = reader_need(&b->l->reader, 8, err);

	if (e < 0)
		return e;
	head = reader_data(&b->l->reader);
	valid = be16_load(head + 4);
	/* An index without entries ends the body only when it is 0, with nothing invalid either. */
	last = be32_load(head) == 0 && valid == 0 && be16_load(head + 6) == 0;
	e = forward(b, 8 + (uint64_t)valid * HTAB_ENTRY_BYTES, last, err);
	return e < 0 ? e : last;
}

static int read_htab(const struct body *b, struct err *err)
{
	uint32_t head;
	bool alone;
	int e = reader_need(&b->l->reader, 4, err);

	if (e < 0)
		return e;
	head = be32_load(reader_data(&b->l->reader));
	/* START says how large the table is; a guest with a radix tree has none, and every body says so. */
	alone = b->type == WIRE_SECTION_START || head == HTAB_NONE;
	if (!alone && head != 0)
		return err_set(err, -EPROTO, "0x%08" PRIx32 " where 0 is expected", head);
	e = forward(b, 4, alone, err);
	while (e == 0 && !alone)
		e = read_entries(b, err);
	return e < 0 ? e : 0;
}

/* ---- s390-storage_attributes: what a guest of s390 says of its pages ---- */

static int read_attributes(const struct body *b, struct err *err)
{
	uint64_t word, count;
	int e;

	for (;;) {
		e = reader_need(&b->l->reader, 8, err);
		if (e < 0)
			return e;
		word = be64_load(reader_data(&b->l->reader));
		switch (word & ATTR_FLAGS) {
		case ATTR_EOS:
			return forward(b, 8, true, err);
		case ATTR_DONE:
			e = forward(b, 8, false, err);
			break;
		case ATTR_MORE:
			e = reader_need(&b->l->reader, 16, err);
			if (e < 0)
				return e;
			count = be64_load(reader_data(&b->l->reader) + 8);
			if (count > UINT64_MAX - 16)
				return err_set(err, -EPROTO, "0x%" PRIx64 " attributes", count);
			e = forward(b, 16 + count, false, err);
			break;
		case ATTR_ERROR:
			return err_set(err, -EPROTO, "the source could not read them: it says so");
		default:
			return err_set(err, -EPROTO, "word 0x%" PRIx64 " has unknown flags", word);
		}
		if (e < 0)
			return e;
	}
}

/* ---- which ---- */

static const struct format {
	enum section_kind kind;
	const char *name;
	uint32_t version_id;
	int (*read)(const struct body *b, struct err *err);
} formats[] = {
	{ SECTION_HTAB, "spapr/htab", 1, read_htab },
	{ SECTION_STORAGE_ATTRIBUTES, "s390-storage_attributes", 0, read_attributes },
};

#define FORMAT_COUNT (sizeof(formats) / sizeof(formats[0]))

enum section_kind live_kind(const char *name)
{
	for (size_t i = 0; i < FORMAT_COUNT; i++)
		if (strcmp(formats[i].name, name) == 0)
			return formats[i].kind;
	return SECTION_NONE;
}

static const struct format *format_of(enum section_kind kind)
{
	for (size_t i = 0; i < FORMAT_COUNT; i++)
		if (formats[i].kind == kind)
			return &formats[i];
	return NULL;
}

int live_check_start(const struct load *l, enum section_kind kind, uint32_t version_id, struct err *err)
{
	const struct format *f = format_of(kind);

	if (version_id != f->version_id)
		return err_set(err, -EPROTO, "version %" PRIu32 " is unknown; version %" PRIu32 " is expected",
		               version_id, f->version_id);
	if (!l->ops->live_state)
		return err_set(err, -ENOTSUP, "the embedder has no callback live_state to take it");
	return 0;
}

int live_read_body(struct load *l, const struct section *sec, int type, struct err *err)
{
	struct body b = { .l = l, .sec = sec, .type = type };
	uint64_t off = reader_off(&l->reader);
	int e = format_of(sec->kind)->read(&b, err);

	if (e == 0)
		TRACE(l->trace, off, 1, "%s: %" PRIu64 " bytes", TEXT_QUOTE(sec->name, strlen(sec->name)),
		      reader_off(&l->reader) - off);
	return e;
}
