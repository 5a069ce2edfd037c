#include "engine/load/load.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/text.h"
#include "engine/load/command.h"
#include "engine/load/early.h"
#include "engine/load/live.h"
#include "engine/load/tail.h"
#include "engine/options/options.h"
#include "engine/options/options_table.h"
#include "engine/ram/bitmaps.h"
#include "engine/stream/element.h"
#include "engine/stream/trace.h"
#include "postcopy/postcopy.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static int provide_block(void *opaque, struct inm_ram_block *block, struct err *err)
{
	struct load *l = opaque;

	return l->ops->ram_block(l->ops_opaque, block, err);
}

int load_init(struct load *l, struct sched *s, struct chan *ch, const void *first, size_t bytes)
{
	reply_init(&l->reply, s, ch);
	l->ram_loader.ram = l->ram;
	l->ram_loader.opts = l->opts;
	l->ram_loader.trace = l->trace;
	l->ram_loader.log = l->log;
	l->ram_loader.provide = provide_block;
	l->ram_loader.provide_opaque = l;
	l->ram_loader.sync = l->ops->sync;
	l->ram_loader.sync_opaque = l->ops_opaque;
	package_init(&l->package, s);
	return reader_init(&l->reader, s, ch, first, bytes);
}

void load_fini(struct load *l)
{
	package_fini(&l->package);
	sections_fini(&l->sections);
	ram_loader_fini(&l->ram_loader);
	reader_fini(&l->reader);
}

void load_disconnect(struct load *l)
{
	package_cut(&l->package);
	reply_detach(&l->reply);
	reader_fini(&l->reader);
}

int load_reconnect(struct load *l, struct chan *ch, const void *first, size_t bytes, struct err *err)
{
	size_t chunk_bytes = l->reader.chunk_bytes;
	int e;

	reply_attach(&l->reply, ch);
	e = reply_open(&l->reply, err);
	if (e < 0)
		return e;
	e = reader_init(&l->reader, l->reader.sched, ch, first, bytes);
	if (e < 0)
		return err_set(err, e, "no memory for the stream's buffer");
	l->reader.chunk_bytes = chunk_bytes;
	l->ram_loader.last = NULL;
	sections_reopen(&l->sections);
	return 0;
}

/* A live handler's body, by its kind. */
static int read_body(struct load *l, struct section *sec, int type, struct err *err)
{
	if (sec->kind == SECTION_RAM)
		return ram_load_body(&l->ram_loader, &l->reader, type == WIRE_SECTION_START, err);
	if (sec->kind == SECTION_DIRTY_BITMAP)
		return bitmaps_read_body(&l->reader, l->trace, &sec->owes_end, err);
	/* Its guest runs here, and has what was sent before. */
	if (l->phase >= LOAD_LISTENING)
		return err_set(err, -EPROTO, "state of the machine after the switch to postcopy");
	return live_read_body(l, sec, type, err);
}

static int read_footer(struct load *l, uint32_t section_id, struct err *err)
{
	uint64_t off = reader_off(&l->reader);
	int e = l->opts->send_section_footer ? element_read_footer(&l->reader, section_id, err) : 0;

	return e < 0 ? err_up(err, e, "footer at 0x%" PRIx64, off) : 0;
}

static bool ends_with(const char *name, const char *end)
{
	size_t bytes = strlen(name), end_bytes = strlen(end);

	return bytes >= end_bytes && strcmp(name + bytes - end_bytes, end) == 0;
}

/* Nothing tells where the body of an unknown section ends (doc/wire/stream.md 7.4.3). */
static int refuse_live(const char *name, struct err *err)
{
	if (strcmp(name, "dirty-bitmap") == 0)
		return err_set(err, -EPROTO, "the source has capability dirty-bitmaps on; it is off here");
	if (strcmp(name, "block") == 0)
		return err_set(err, -ENOTSUP, "the source has capability block on: %s",
		               options_cap_row(CAP_BLOCK)->note);
	if (ends_with(name, "/vfio"))
		return err_set(err, -ENOTSUP,
		               "a device of the host's (VFIO), whose state is not taken here; unplug it "
		               "before the migration");
	return err_set(err, -EPROTO, "a live section that is not known here, and cannot be skipped");
}

/* Live handlers we can read. */
static int kind_of(const struct load *l, const char *name, uint32_t instance_id, uint32_t version_id,
                   enum section_kind *ret, struct err *err)
{
	if (strcmp(name, "ram") == 0 && instance_id == 0) {
		*ret = SECTION_RAM;
		if (version_id != WIRE_RAM_VERSION)
			return err_set(err, -EPROTO, "version %" PRIu32 " is unknown; version 4 is expected",
			               version_id);
		return 0;
	}
	if (strcmp(name, "dirty-bitmap") == 0 && options_has(l->opts, CAP_DIRTY_BITMAPS)) {
		*ret = SECTION_DIRTY_BITMAP;
		if (version_id != 1)
			return err_set(err, -EPROTO, "version %" PRIu32 " is unknown; version 1 is expected",
			               version_id);
		return 0;
	}
	*ret = live_kind(name);
	return *ret == SECTION_NONE ? refuse_live(name, err) : live_check_start(l, *ret, version_id, err);
}

static int read_start_header(struct load *l, struct section **ret, struct err *err)
{
	uint64_t off = reader_off(&l->reader);
	enum section_kind kind = SECTION_RAM;
	struct section_head head;
	char name[256];
	int e = element_read_section(&head, name, &l->reader, err);

	if (e < 0)
		return e;
	TRACE(l->trace, off, 0, "section START %" PRIu32 " '%s' instance %" PRIu32 " version %" PRIu32, head.section_id,
	      TEXT_QUOTE(name, head.name_bytes), head.instance_id, head.version_id);
	e = kind_of(l, name, head.instance_id, head.version_id, &kind, err);
	if (e == 0) {
		e = sections_add(&l->sections, kind, name, head.instance_id, head.section_id, ret);
		if (e == -EEXIST)
			e = err_set(err, -EPROTO, "its id %" PRIu32 " or its name was used before", head.section_id);
		else if (e < 0)
			err_set(err, e, "too many sections");
	}
	if (e == 0) {
		(*ret)->version_id = head.version_id;
		(*ret)->owes_end = kind != SECTION_DIRTY_BITMAP;
	}
	return e < 0 ? err_up(err, e, "section '%s'", TEXT_QUOTE(name, head.name_bytes)) : 0;
}

/*
 * Whether it can be done is known before anything of the guest is lost. What ADVISE said of all blocks together; the
 * list says it only of those with larger pages (doc/wire/stream.md 2, 4.1).
 */
static int check_postcopy(const struct load *l, struct err *err)
{
	uint64_t ours = 0;

	for (size_t i = 0; i < l->ram->count; i++)
		if (l->ram->blocks[i]->kind != BLOCK_IGNORED)
			ours |= l->ram->blocks[i]->hpage_bytes;
	if (ours != l->advised_page_sizes)
		return err_set(err, -EINVAL, "the source's blocks have page sizes 0x%" PRIx64 ", those here 0x%" PRIx64,
		               l->advised_page_sizes, ours);
	for (size_t i = 0; i < l->ram->count; i++) {
		const struct block *b = l->ram->blocks[i];

		/* What is copied there appears at once, and must be all of a page (userfaultfd(2)). */
		if (b->kind == BLOCK_ANONYMOUS && b->tpage_shift < b->unit_shift)
			return err_set(err, -ENOTSUP,
			               "block '%s' is anonymous memory, of pages that are larger than "
			               "the target's: for postcopy it must be a memory file",
			               TEXT_QUOTE(b->name, b->name_bytes));
	}
	return postcopy_check(l->postcopy, err);
}

#define SECTION_NAME(sec) TEXT_QUOTE((sec)->name, strlen((sec)->name))

/* The list is complete. Any reason to refuse the guest must come up now, while the source can keep it. */
static int end_of_list(struct load *l, struct err *err)
{
	int e = l->ram_loader.advised && !l->opts->looking ? check_postcopy(l, err) : 0;

	return e == 0 && l->ops->ram_listed ? l->ops->ram_listed(l->ops_opaque, err) : e;
}

/*
 * With x-ignore-shared the source sends nothing of a block that both sides share, and does not say which those are. A
 * block of which nothing has come is one of them, and zeros are not its content.
 */
static int check_shared(const struct load *l, struct err *err)
{
	if (!options_has(l->opts, CAP_X_IGNORE_SHARED) || l->opts->looking)
		return 0;
	for (size_t i = 0; i < l->ram->count; i++) {
		const struct block *b = l->ram->blocks[i];

		if (b->kind != BLOCK_IGNORED && !b->dirty && b->received_tpages == 0)
			return err_set(err, -EINVAL,
			               "block '%s': the source shares this memory (x-ignore-shared) and "
			               "has sent nothing of it, and the memory here is not that memory",
			               TEXT_QUOTE(b->name, strlen(b->name)));
	}
	return 0;
}

static int read_start(struct load *l, uint64_t off, struct err *err)
{
	struct section *sec;
	int e = read_start_header(l, &sec, err);

	if (e < 0)
		return err_up(err, e, "START at 0x%" PRIx64, off);
	e = read_body(l, sec, WIRE_SECTION_START, err);
	if (e == 0 && sec->kind == SECTION_RAM)
		e = end_of_list(l, err);
	if (e == 0)
		e = read_footer(l, sec->section_id, err);
	return e < 0 ? err_up(err, e, "section '%s' START at 0x%" PRIx64, SECTION_NAME(sec), off) : 0;
}

static int read_part_or_end(struct load *l, uint64_t off, bool end, struct err *err)
{
	const char *word = end ? "END" : "PART";
	struct section *sec;
	uint32_t id;
	int e;

	reader_skip(&l->reader, 1);
	e = reader_be32(&l->reader, &id, err);
	if (e < 0)
		return err_up(err, e, "%s at 0x%" PRIx64, word, off);
	sec = sections_find(&l->sections, id);
	if (!sec)
		return err_set(err, -EPROTO, "%s at 0x%" PRIx64 ": no section has id %" PRIu32, word, off, id);
	TRACE(l->trace, off, 0, "section %s %" PRIu32 " '%s'", word, id, SECTION_NAME(sec));
	/* In postcopy of bitmaps alone RAM ends before the switch and again at the end (doc/wire/stream.md 1.5). */
	if (sec->ended && !(end && sec->kind == SECTION_RAM && l->phase >= LOAD_LISTENING))
		return err_set(err, -EPROTO, "%s at 0x%" PRIx64 ": section '%s' has ended before", word, off,
		               SECTION_NAME(sec));
	l->rounds_begun = true;
	e = read_body(l, sec, end ? WIRE_SECTION_END : WIRE_SECTION_PART, err);
	if (e == 0 && end && sec->kind == SECTION_RAM)
		e = check_shared(l, err);
	if (e == 0)
		e = read_footer(l, id, err);
	if (e < 0)
		return err_up(err, e, "section '%s' %s at 0x%" PRIx64, SECTION_NAME(sec), word, off);
	sec->ended = end;
	sec->ended_late = end && l->phase >= LOAD_LISTENING;
	return 0;
}

/* What comes at @off ends the live sections, and one of them has not had its END. */
static int refuse_unended(const struct load *l, const char *what, uint64_t off, struct err *err)
{
	const struct section *open = sections_first_open(&l->sections);

	if (open && open->kind != SECTION_RAM)
		return err_set(err, -EPROTO, "%s at 0x%" PRIx64 " before section '%s' has ended", what, off,
		               open->name);
	return err_set(err, -EPROTO, "%s at 0x%" PRIx64 " before RAM has ended", what, off);
}

static int read_early_full(struct load *l, uint64_t off, struct err *err)
{
	const struct section *open = sections_first_open(&l->sections);
	uint32_t id = 0;
	int e;

	if (l->rounds_begun) {
		e = refuse_unended(l, "device state", off, err);
		/* Only a snapshot's RAM has no END (doc/wire/stream.md 1.5). */
		if (open && open->kind == SECTION_RAM)
			err_set(err, e,
			        "device state at 0x%" PRIx64 " before RAM has ended: a background snapshot, "
			        "which is of a guest that runs on at the source",
			        off);
		return e;
	}
	e = early_read(l, &id, err);
	if (e == 0)
		e = read_footer(l, id, err);
	return e < 0 ? err_up(err, e, "FULL at 0x%" PRIx64, off) : 0;
}

/* All RAM is here: what may come next is the tail. */
static bool tail_may_begin(const struct load *l, uint8_t type)
{
	if (type != WIRE_EOF && (type != WIRE_SECTION_FULL || l->phase >= LOAD_LISTENING))
		return false;
	return l->ram_loader.listed && sections_all_ended(&l->sections);
}

/* Return: 1 the tail is next (its first byte is still in the reader), 0 go on, negative an error. */
static int read_element(struct load *l, struct err *err)
{
	uint64_t off = reader_off(&l->reader);
	uint8_t type;
	int e = reader_need(&l->reader, 1, err);

	if (e < 0)
		return e;
	type = *reader_data(&l->reader);
	/* What was discarded has not come: this is no end, although precopy ends so. */
	if (l->phase == LOAD_DISCARDING && (type == WIRE_EOF || type == WIRE_SECTION_FULL))
		return err_set(err, -EPROTO, "0x%02x at 0x%" PRIx64 ": pages were discarded, and no package has come",
		               type, off);
	if (tail_may_begin(l, type))
		return 1;
	if (l->phase >= LOAD_LISTENING && type == WIRE_SECTION_FULL)
		return err_set(err, -EPROTO, "device state at 0x%" PRIx64 " outside the package", off);
	switch (type) {
	case WIRE_SECTION_START:
		if (l->rounds_begun)
			return err_set(err, -EPROTO, "START at 0x%" PRIx64 " after the set-up phase", off);
		return read_start(l, off, err);
	case WIRE_SECTION_PART:
		return read_part_or_end(l, off, false, err);
	case WIRE_SECTION_END:
		return read_part_or_end(l, off, true, err);
	case WIRE_SECTION_FULL:
		return read_early_full(l, off, err);
	case WIRE_COMMAND:
		return command_read(l, err);
	case WIRE_EOF:
		return refuse_unended(l, "end of stream", off, err);
	default:
		return err_set(err, -EPROTO, "unknown element 0x%02x at 0x%" PRIx64, type, off);
	}
}

/*
 * Nothing follows the end of a postcopy stream (doc/wire/stream.md 5.7): the source waits to be told that all is here.
 */
static int end_of_postcopy(struct load *l, struct err *err)
{
	uint64_t off = reader_off(&l->reader);
	int e;

	reader_skip(&l->reader, 1);
	TRACE(l->trace, off, 0, "end of stream");
	if (reader_buffered(&l->reader) > 0)
		return err_set(err, -EPROTO, "data after the end of the stream, at 0x%" PRIx64, off + 1);
	/* First the pages: a device may wait for one that nobody has sent. */
	e = l->ops->await_pages(l->ops_opaque, err);
	/* No deadline: a device takes the time it takes, and a failure there ends this wait, too. */
	return e < 0 ? e : event_wait(&l->package.done, DEADLINE_NEVER);
}

static int read_elements(struct load *l, struct err *err)
{
	int e;

	do
		e = read_element(l, err);
	while (e == 0);
	if (e < 0)
		return e;
	return l->phase >= LOAD_LISTENING ? end_of_postcopy(l, err) : tail_read(l, err);
}

int load_stream(struct load *l, struct err *err)
{
	int e = configuration_read(&l->config, &l->reader, l->opts, l->trace, err);

	if (e < 0)
		return e;
	/* The page size is known now, and no block before. */
	ram_init(l->ram, l->config.tpage_bits);
	/* All machine types with a version in their names have pages of 4096 bytes, or say what others they have. */
	l->ram_loader.tpage_assumed = l->config.tpage_assumed && configuration_machine_version(l->config.machine) == 0;
	/* Without a configuration section only our own capability tells. */
	l->ram_loader.lists_gpa = l->config.ignore_shared || options_has(l->opts, CAP_X_IGNORE_SHARED);
	return read_elements(l, err);
}

int load_recover(struct load *l, uint64_t patience_ns, struct err *err)
{
	uint64_t off;
	int e = 0;

	l->phase = LOAD_RECOVERING;
	while (e == 0 && l->phase == LOAD_RECOVERING) {
		l->reader.deadline_ns = deadline_after_ns(patience_ns);
		off = reader_off(&l->reader);
		e = reader_need(&l->reader, 1, err);
		if (e == 0 && *reader_data(&l->reader) != WIRE_COMMAND)
			e = err_set(err, -EPROTO,
			            "element 0x%02x at 0x%" PRIx64 " where a recovery's commands are "
			            "expected",
			            *reader_data(&l->reader), off);
		if (e == 0)
			e = command_read(l, err);
	}
	l->reader.deadline_ns = DEADLINE_NEVER;
	return e < 0 ? e : read_elements(l, err);
}
