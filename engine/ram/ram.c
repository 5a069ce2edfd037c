#include "engine/ram/ram.h"

#include "base/err.h"
#include "base/text.h"
#include "coroutine/turn.h"
#include "engine/options/options.h"
#include "engine/ram/block_list.h"
#include "engine/ram/inflate.h"
#include "engine/ram/xbzrle.h"
#include "engine/stream/reader.h"
#include "engine/stream/trace.h"
#include "engine/stream/wire.h"
#include "postcopy/place.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void ram_loader_fini(struct ram_loader *l)
{
	inflater_free(l->inflater);
	l->inflater = NULL;
	free(l->scratch);
	l->scratch = NULL;
}

/* A page record's place, and what its word says besides. */
struct record {
	uint64_t word;
	uint64_t addr; /* byte offset in the block */
	struct block *block;
	size_t tpage;
};

static int name_block(struct ram_loader *l, struct reader *r, struct err *err)
{
	char name[256];
	size_t bytes;
	struct block *block;
	int e = reader_str8(r, name, &bytes, err);

	if (e < 0)
		return e;
	block = ram_find(l->ram, name, bytes);
	if (!block)
		return err_set(err, -EPROTO, "unknown block '%s'", TEXT_QUOTE(name, bytes));
	if (block->kind == BLOCK_IGNORED)
		return err_set(err, -EPROTO, "a page for block '%s', which is shared and not sent",
		               TEXT_QUOTE(name, bytes));
	l->last = block;
	return 0;
}

/* Rounds are not marked in most releases' streams. A scan goes through the list upwards; turning back begins one. */
static void count_rounds(struct ram_loader *l, const struct record *rec)
{
	uint64_t position = (uint64_t)rec->block->index << 48 | rec->tpage;

	if (position < l->last_position || l->counts.rounds == 0)
		l->counts.rounds++;
	l->last_position = position;
}

static int locate(struct ram_loader *l, struct reader *r, struct record *rec, struct err *err)
{
	int e;

	if (!(rec->word & WIRE_RAM_CONTINUE)) {
		e = name_block(l, r, err);
		if (e < 0)
			return e;
	}
	rec->block = l->last;
	if (!rec->block)
		return err_set(err, -EPROTO, "the record continues a block, and none has been named");
	/* used_bytes is a multiple of the page and not zero, so nothing here can wrap. */
	if (rec->addr > rec->block->used_bytes - ram_tpage_bytes(l->ram))
		return err_set(err, -EPROTO, "block '%s' has no offset 0x%" PRIx64,
		               TEXT_QUOTE(rec->block->name, rec->block->name_bytes), rec->addr);
	rec->tpage = rec->addr >> rec->block->tpage_shift;
	count_rounds(l, rec);
	return 0;
}

/*
 * Until LISTEN pages are written directly, and from the switch on they are not (memory/gate.h). So there is a time for
 * which no page may come: what the first discard has taken back is not watched before LISTEN.
 */
static int check_phase(const struct ram_loader *l, struct err *err)
{
	if (l->postcopy || gate_is_open(&l->ram->gate))
		return 0;
	return err_set(err, -EPROTO, "a page between the switch to postcopy and POSTCOPY_LISTEN");
}

static int load_zero(struct ram_loader *l, struct reader *r, const struct record *rec, struct err *err)
{
	uint8_t fill;
	int e = reader_u8(r, &fill, err);

	if (e < 0)
		return e;
	/* Sources send 0 only, and newer destinations refuse others (doc/wire/stream.md 4.2). */
	if (fill != 0)
		return err_set(err, -EPROTO, "a page of bytes 0x%02x; only zeros travel like this", fill);
	l->counts.zero++;
	if (l->postcopy)
		return place_zero(l->postcopy, rec->block, rec->tpage, err);
	land_zero(rec->block, rec->tpage);
	return 0;
}

/* The bytes at l->pages go to where they belong. In postcopy a page that is here already is dropped. */
static int land(struct ram_loader *l, const struct record *rec, int count, struct err *err)
{
	int e;

	if (l->postcopy)
		return place_pages(l->postcopy, rec->block, rec->tpage, l->pages, count, err);
	e = land_pages(rec->block, rec->tpage, l->pages, count);
	if (e < 0)
		return err_set(err, e, "writing to block '%s' at 0x%" PRIx64 ": %s",
		               TEXT_QUOTE(rec->block->name, rec->block->name_bytes), rec->addr, strerror(-e));
	return 0;
}

/*
 * A page, and those that follow it in the buffer one after the other: in the first round that is most of them, and one
 * call lands them all.
 */
static int load_pages(struct ram_loader *l, struct reader *r, struct record *rec, struct err *err)
{
	size_t bytes = ram_tpage_bytes(l->ram), last = rec->block->received.nbits - rec->tpage;
	uint64_t next = rec->addr | WIRE_RAM_PAGE | WIRE_RAM_CONTINUE;
	int count = 0, e = reader_need(r, bytes, err);

	if (e < 0)
		return e;
	for (;;) {
		l->pages[count++] = (struct iovec){ (void *)reader_data(r), bytes };
		reader_skip(r, bytes);
		next += bytes;
		if (count == LAND_PAGES_MAX || (size_t)count == last || reader_buffered(r) < 8 + bytes ||
		    be64_load(reader_data(r)) != next)
			break;
		reader_skip(r, 8);
	}
	l->counts.normal += (uint64_t)count;
	l->last_position += (uint64_t)count - 1;
	e = land(l, rec, count, err);
	return e < 0 ? e : turn_spend(r->sched, (size_t)count * bytes);
}

static int load_xbzrle(struct ram_loader *l, struct reader *r, const struct record *rec, struct err *err)
{
	uint8_t encoding;
	uint16_t bytes;
	int e;

	if (l->postcopy)
		return err_set(err, -EPROTO, "an xbzrle page in postcopy");
	if (!options_has(l->opts, CAP_XBZRLE))
		return err_set(err, -EPROTO, "an xbzrle page, but capability xbzrle is off here");
	e = reader_u8(r, &encoding, err);
	if (e == 0)
		e = reader_be16(r, &bytes, err);
	if (e < 0)
		return e;
	if (encoding != 1)
		return err_set(err, -EPROTO, "xbzrle encoding %u is unknown; 1 is expected", encoding);
	if (bytes > ram_tpage_bytes(l->ram))
		return err_set(err, -EPROTO, "an xbzrle delta of %u bytes is larger than a page", bytes);
	e = reader_need(r, bytes, err);
	if (e == 0)
		e = xbzrle_apply(land_at(rec->block, rec->tpage), ram_tpage_bytes(l->ram), reader_data(r), bytes, err);
	if (e < 0)
		return e;
	reader_skip(r, bytes);
	land_done(rec->block, rec->tpage, 1);
	l->counts.xbzrle++;
	return 0;
}

/* In postcopy the guest may see it when it is whole, and not before. Return: NULL: no memory. */
static uint8_t *place_to_inflate(struct ram_loader *l, const struct record *rec)
{
	if (!l->postcopy)
		return land_at(rec->block, rec->tpage);
	if (!l->scratch)
		l->scratch = malloc(ram_tpage_bytes(l->ram));
	return l->scratch;
}

static int load_compressed(struct ram_loader *l, struct reader *r, const struct record *rec, struct err *err)
{
	size_t page_bytes = ram_tpage_bytes(l->ram);
	uint32_t bytes;
	uint8_t *page;
	int e;

	if (!options_has(l->opts, CAP_COMPRESS))
		return err_set(err, -EPROTO, "a compressed page, but capability compress is off here");
	e = reader_be32(r, &bytes, err);
	if (e < 0)
		return e;
	if (bytes == 0 || bytes > inflate_bytes_max(page_bytes))
		return err_set(err, -EPROTO, "a compressed page of %" PRIu32 " bytes; 1 to %zu are possible", bytes,
		               inflate_bytes_max(page_bytes));
	e = inflater_get(&l->inflater, err);
	if (e == 0)
		e = reader_need(r, bytes, err);
	if (e < 0)
		return e;
	page = place_to_inflate(l, rec);
	if (!page)
		return err_set(err, -ENOMEM, "no memory for a page");
	e = inflate_page(l->inflater, page, page_bytes, reader_data(r), bytes, err);
	if (e < 0)
		return e;
	reader_skip(r, bytes);
	l->counts.compressed++;
	if (!l->postcopy) {
		land_done(rec->block, rec->tpage, 1);
		return 0;
	}
	l->pages[0] = (struct iovec){ page, page_bytes };
	return land(l, rec, 1, err);
}

static int refuse_record(uint64_t word, unsigned flags, struct err *err)
{
	if (flags == WIRE_RAM_HOOK)
		return err_set(err, -EPROTO, "an RDMA record");
	return err_set(err, -EPROTO, "record 0x%016" PRIx64 " has flags 0x%x, which no source sends", word, flags);
}

/*
 * The clock is looked at before and after a page that is the first of a region, which may take long (memory/land.h). In
 * a scan through memory that is every 512th, and where a source scatters its pages it is each of them.
 */
static bool enters_region(struct ram_loader *l, const struct record *rec, unsigned kind)
{
	uint64_t region = rec->addr / LAND_REGION_BYTES;

	/* By (3) of memory/block.h. */
	if (kind == WIRE_RAM_ZERO && !rec->block->dirty)
		return false;
	if (l->touched == rec->block && l->touched_region == region)
		return false;
	l->touched = rec->block;
	l->touched_region = region;
	return true;
}

static int load_kind(struct ram_loader *l, struct reader *r, struct record *rec, unsigned kind, struct err *err)
{
	switch (kind) {
	case WIRE_RAM_ZERO:
		return load_zero(l, r, rec, err);
	case WIRE_RAM_PAGE:
		return load_pages(l, r, rec, err);
	case WIRE_RAM_XBZRLE:
		return load_xbzrle(l, r, rec, err);
	default:
		return load_compressed(l, r, rec, err);
	}
}

static int load_page_record(struct ram_loader *l, struct reader *r, struct record *rec, unsigned kind, struct err *err)
{
	int e = locate(l, r, rec, err);

	/* This coroutine carries out the switch, too: the answer holds to the end of the record. */
	if (e == 0)
		e = check_phase(l, err);
	if (e < 0)
		return e;
	if (!enters_region(l, rec, kind))
		return load_kind(l, r, rec, kind, err);
	e = turn_spend(r->sched, TURN_LOOK);
	if (e == 0)
		e = load_kind(l, r, rec, kind, err);
	return e < 0 ? e : turn_spend(r->sched, TURN_LOOK);
}

/* 8.1 sources send FLUSH records even with multifd off (doc/wire/multifd.md 5.2). */
static int sync_channels(struct ram_loader *l, struct err *err)
{
	return l->sync ? l->sync(l->sync_opaque, err) : 0;
}

/*
 * Which records are sync points depends on the source's machine type, and shows in the stream: one that uses FLUSH has
 * one in the START section (doc/wire/multifd.md 5.2). Otherwise every section's EOS is one.
 */
static bool syncs_at_eos(const struct ram_loader *l)
{
	if (l->postcopy || l->closed)
		return false; /* multifd carries nothing any more (doc/wire/stream.md 5.6) */
	if (l->opts->multifd_flush_after_each_section != TRISTATE_AUTO)
		return l->opts->multifd_flush_after_each_section == TRISTATE_ON;
	return !l->flushed;
}

/* Return: 1 at EOS, 0 go on, negative an error. */
static int load_record(struct ram_loader *l, struct reader *r, bool *list_due, struct err *err)
{
	size_t mask = ram_tpage_bytes(l->ram) - 1;
	struct record rec;
	unsigned flags;
	int e = reader_be64(r, &rec.word, err);

	if (e < 0)
		return e;
	rec.addr = rec.word & ~(uint64_t)mask;
	flags = (unsigned)(rec.word & mask);
	if (*list_due) {
		if (flags != WIRE_RAM_MEM_SIZE)
			return err_set(err, -EPROTO, "the section does not begin with the list of blocks");
		*list_due = false;
		return block_list_read(l, r, rec.addr, err);
	}
	if (l->closed && flags != WIRE_RAM_EOS)
		return err_set(err, -EPROTO, "record 0x%016" PRIx64 " after the switch, and RAM was complete before it",
		               rec.word);
	switch (flags) {
	case WIRE_RAM_ZERO:
	case WIRE_RAM_ZERO | WIRE_RAM_CONTINUE:
	case WIRE_RAM_PAGE:
	case WIRE_RAM_PAGE | WIRE_RAM_CONTINUE:
	case WIRE_RAM_XBZRLE:
	case WIRE_RAM_XBZRLE | WIRE_RAM_CONTINUE:
	case WIRE_RAM_COMPRESS_PAGE:
	case WIRE_RAM_COMPRESS_PAGE | WIRE_RAM_CONTINUE:
		return load_page_record(l, r, &rec, flags & ~(unsigned)WIRE_RAM_CONTINUE, err);
	case WIRE_RAM_EOS:
	case WIRE_RAM_MULTIFD_FLUSH:
		if (rec.addr != 0)
			return err_set(err, -EPROTO, "record 0x%016" PRIx64 " has an address and must not", rec.word);
		if (flags == WIRE_RAM_EOS)
			return 1;
		if (l->postcopy)
			return err_set(err, -EPROTO, "a multifd flush in postcopy");
		l->flushed = true;
		return sync_channels(l, err);
	case WIRE_RAM_MEM_SIZE:
		return err_set(err, -EPROTO, "a second list of blocks");
	default:
		return refuse_record(rec.word, flags, err);
	}
}

static void trace_body(const struct ram_loader *l, const struct ram_counts *before, uint64_t off)
{
	const struct ram_counts *now = &l->counts;

	TRACE(l->trace, off, 1,
	      "ram: %" PRIu64 " normal, %" PRIu64 " zero, %" PRIu64 " xbzrle, %" PRIu64 " compressed pages",
	      now->normal - before->normal, now->zero - before->zero, now->xbzrle - before->xbzrle,
	      now->compressed - before->compressed);
}

int ram_load_body(struct ram_loader *l, struct reader *r, bool start, struct err *err)
{
	struct ram_counts before = l->counts;
	uint64_t body_off = reader_off(r), off;
	bool list_due = start;
	int e;

	if (start && l->listed)
		return err_set(err, -EPROTO, "a second list of blocks");
	do {
		off = reader_off(r);
		e = load_record(l, r, &list_due, err);
	} while (e == 0);
	if (e == 1 && syncs_at_eos(l))
		e = sync_channels(l, err);
	if (e == -EPROTO && l->tpage_assumed)
		return err_up(err, e,
		              "record at 0x%" PRIx64 ", with a target page size of %zu, which the stream does "
		              "not say (parameter target-page-bits)",
		              off, ram_tpage_bytes(l->ram));
	if (e < 0)
		return err_up(err, e, "record at 0x%" PRIx64, off);
	trace_body(l, &before, body_off);
	return 0;
}

int ram_load_preempt(struct ram_loader *l, struct reader *r, struct err *err)
{
	bool list_due = false;
	uint64_t off;
	ssize_t n;
	int e;

	do {
		if (reader_buffered(r) == 0) {
			n = reader_fill(r, err);
			if (n <= 0)
				return (int)n;
		}
		off = reader_off(r);
		e = load_record(l, r, &list_due, err);
	} while (e == 0);
	return e < 0 ? err_up(err, e, "record at 0x%" PRIx64 " of the preempt channel", off) : 1;
}
