#include "engine/ram/block_list.h"

#include "base/err.h"
#include "base/log.h"
#include "base/text.h"
#include "coroutine/turn.h"
#include "engine/options/options.h"
#include "engine/ram/ram.h"
#include "engine/stream/reader.h"
#include "engine/stream/trace.h"
#include "inmigrate.h"
#include "memory/forget.h"
#include "memory/views.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One entry of the list, as the wire has it. */
struct entry {
	uint64_t off; /* in the stream */
	char name[256];
	size_t name_bytes;
	uint64_t bytes;
	uint64_t page_bytes; /* 0: not said */
	uint64_t gpa;
};

/*
 * Whether a page size follows is not marked in the stream. After an ADVISE it may; it is then at least 4096, while
 * what else can follow is a name's length byte, which is not 0, or a record below 4096 (doc/wire/stream.md 4.1).
 */
static int read_page_bytes(struct ram_loader *l, struct reader *r, struct entry *entry, struct err *err)
{
	uint64_t value;
	int e;

	if (!l->advised)
		return 0;
	e = reader_need(r, 8, err);
	if (e < 0)
		return e;
	value = be64_load(reader_data(r));
	if (*reader_data(r) != 0 || value < 4096)
		return 0;
	reader_skip(r, 8);
	if (value & (value - 1))
		return err_set(err, -EPROTO, "its page size of 0x%" PRIx64 " bytes is no power of two", value);
	entry->page_bytes = value;
	return 0;
}

static int read_entry(struct ram_loader *l, struct reader *r, struct entry *entry, struct err *err)
{
	int e = reader_str8(r, entry->name, &entry->name_bytes, err);

	if (e == 0)
		e = reader_be64(r, &entry->bytes, err);
	if (e < 0)
		return e;
	if (entry->name_bytes == 0)
		return err_set(err, -EPROTO, "a block without a name");
	if (memchr(entry->name, '\0', entry->name_bytes))
		return err_set(err, -EPROTO, "its name has a zero byte");
	e = read_page_bytes(l, r, entry, err);
	if (e == 0 && l->lists_gpa)
		e = reader_be64(r, &entry->gpa, err);
	return e;
}

static int check_entry(const struct ram_loader *l, const struct entry *entry, uint64_t left_bytes, struct err *err)
{
	if (entry->bytes == 0 || entry->bytes % ram_tpage_bytes(l->ram))
		return err_set(err, -EPROTO, "its length of 0x%" PRIx64 " bytes is not a number of pages",
		               entry->bytes);
	if (entry->bytes > left_bytes)
		return err_set(err, -EPROTO,
		               "its length of 0x%" PRIx64 " bytes is more than the 0x%" PRIx64 " left of the total",
		               entry->bytes, left_bytes);
	return 0;
}

/* All of a list. It grows with what has come, and not with what was announced. */
struct entries {
	struct entry *at; /* owned */
	size_t count, room;
};

static int make_room(struct entries *list, struct err *err)
{
	size_t room = list->room ? 2 * list->room : 16;
	struct entry *at;

	if (list->count < list->room)
		return 0;
	if (list->count == RAM_BLOCKS_MAX)
		return err_set(err, -EPROTO, "more than %d blocks", RAM_BLOCKS_MAX);
	at = realloc(list->at, room * sizeof(*at));
	if (!at)
		return err_set(err, -ENOMEM, "no memory for a list of %zu blocks", room);
	list->at = at;
	list->room = room;
	return 0;
}

/* The answer of the embedder against what the source says. */
static int check_answer(const struct entry *entry, const struct inm_ram_block *answer, struct err *err)
{
	if (answer->bytes_max == 0)
		return 0;
	if (entry->bytes > answer->bytes_max || (entry->bytes < answer->bytes_max && !answer->resizable))
		return err_set(err, -EINVAL, "it has 0x%" PRIx64 " bytes at the source and 0x%" PRIx64 " here",
		               entry->bytes, answer->bytes_max);
	return 0;
}

static int add_block(struct ram_loader *l, struct sched *s, const struct entry *entry,
                     const struct inm_ram_block *answer, struct err *err)
{
	struct block_source source = {
		.fd = answer->fd,
		.fd_off = answer->fd_offset,
		.addr = answer->addr,
		.dirty = answer->dirty,
		.unplugged = answer->unplugged,
		.ignored = answer->ignored,
	};
	struct block *block;
	int e = source.ignored && !options_has(l->opts, CAP_X_IGNORE_SHARED) ? -EINVAL : 0;

	if (e < 0)
		return err_set(err, e, "ignored here, but capability x-ignore-shared is off");
	e = ram_add(l->ram, entry->name, entry->name_bytes, entry->bytes, &source, &block);

	if (e < 0)
		return err_set(err, e, "the memory given for it cannot be used: %s", strerror(-e));
	if (!source.ignored && entry->page_bytes && entry->page_bytes != block->hpage_bytes && !l->opts->looking)
		return err_set(err, -EINVAL, "it has pages of 0x%" PRIx64 " bytes at the source and of 0x%zx here",
		               entry->page_bytes, block->hpage_bytes);
	/* A page must be able to be missing (ADVISE: doc/wire/stream.md 2). */
	if (l->advised && block->dirty && block->kind != BLOCK_IGNORED) {
		e = forget_all(s, block);
		if (e == -ECANCELED)
			return e;
		if (e < 0)
			return err_set(err, e, "emptying it: %s", strerror(-e));
	}
	return 0;
}

static int offer(struct ram_loader *l, struct sched *s, const struct entry *entry, struct err *err)
{
	struct inm_ram_block answer = {
		.name = entry->name,
		.bytes = entry->bytes,
		.page_bytes = entry->page_bytes,
		.gpa = entry->gpa,
		.fd = -1,
	};
	int e = l->provide(l->provide_opaque, &answer, err);

	if (e == -ENOENT)
		return err_set(err, e, "there is no such block here");
	if (e < 0)
		return e;
	e = check_answer(entry, &answer, err);
	return e < 0 ? e : add_block(l, s, entry, &answer, err);
}

static int blame(const struct entry *entry, int result, struct err *err)
{
	return err_up(err, result, "block '%s' at 0x%" PRIx64, TEXT_QUOTE(entry->name, entry->name_bytes), entry->off);
}

static int read_one(struct ram_loader *l, struct reader *r, struct entries *list, uint64_t *left_bytes, struct err *err)
{
	struct entry *entry;
	int e = make_room(list, err);

	if (e < 0)
		return e;
	entry = &list->at[list->count];
	*entry = (struct entry){ .off = reader_off(r) };
	e = read_entry(l, r, entry, err);
	if (e == 0) {
		TRACE(l->trace, entry->off, 1, "block '%s': 0x%" PRIx64 " bytes",
		      TEXT_QUOTE(entry->name, entry->name_bytes), entry->bytes);
		e = check_entry(l, entry, *left_bytes, err);
	}
	if (e < 0)
		return blame(entry, e, err);
	*left_bytes -= entry->bytes;
	list->count++;
	return 0;
}

static may_park int offer_all(struct ram_loader *l, struct sched *s, const struct entries *list, struct err *err)
{
	int e = 0;

	for (size_t i = 0; e == 0 && i < list->count; i++) {
		const struct entry *entry = &list->at[i];

		if (ram_find(l->ram, entry->name, entry->name_bytes))
			e = err_set(err, -EPROTO, "it is listed twice");
		else
			e = offer(l, s, entry, err);
		if (e < 0)
			return blame(entry, e, err);
		/* A callback and its mappings. */
		e = turn_spend(s, TURN_LOOK);
	}
	return e;
}

/* What lands in one view must show in the other: before a page comes, while the source has its guest. */
static may_park int compare_views(const struct ram_loader *l, struct sched *s, struct err *err)
{
	struct view_fault fault;
	int e = views_compare(l->ram, l->advised, s, &fault);

	if (e == 0 || e == -ECANCELED)
		return e;
	if (e == -EINVAL)
		return err_set(err, e,
		               "block '%s': the memory given for it cannot be used: at 0x%" PRIx64
		               " of its address, %s",
		               fault.block->label, fault.off, fault.what);
	log_warn(l->log, "addresses given for RAM blocks are not compared with their descriptors: /proc/self/maps: %s",
	         strerror(-e));
	return 0;
}

int block_list_read(struct ram_loader *l, struct reader *r, uint64_t total_bytes, struct err *err)
{
	struct entries list = { .at = NULL };
	uint64_t left_bytes = total_bytes;
	int e = 0;

	if (total_bytes == 0)
		return err_set(err, -EPROTO, "a list of no blocks");
	if (total_bytes > l->opts->ram_limit_bytes)
		return err_set(err, -EPROTO, "0x%" PRIx64 " bytes of RAM; parameter ram-limit allows 0x%" PRIx64,
		               total_bytes, l->opts->ram_limit_bytes);
	while (e == 0 && left_bytes > 0)
		e = read_one(l, r, &list, &left_bytes, err);
	if (e == 0)
		e = offer_all(l, r->sched, &list, err);
	if (e == 0)
		e = compare_views(l, r->sched, err);
	free(list.at);
	if (e == 0)
		l->listed = true;
	return e;
}
