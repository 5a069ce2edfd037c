/*
 * Splitting by footers: doc/wire/stream.md 7.4.2.
 *
 * What can follow a footer does not depend on how one came there. So all footers that something plausible follows are
 * found first, in one pass, and sorted by section id; what remains is a search for a chain of them through the buffer.
 * A footer from which the chain could not be completed is never tried again (struct foot), which makes the search
 * linear in the number of footers where plain backtracking would be exponential. The price: whether a section id is
 * used already does depend on the way, so a chain may be missed that only a buffer made to confuse can have.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/be.h"
#include "base/text.h"
#include "coroutine/turn.h"
#include "engine/devices/split.h"
#include "engine/devices/split_parts.h"

/* Between two sections of a package: PING 3, PING 0x42, RUN are real (doc/wire/stream.md 5.4). */
#define COMMANDS_IN_GAP_MAX 8

/* Twelve bytes, because there may be one for each twenty of the buffer. */
struct foot {
	uint32_t off;
	uint32_t section_id : 31;
	uint32_t on_way : 1; /* of the first of its group: a section with this id is being tried */
	/* Of the first of its group (equal ids): all of the group from this index on lead nowhere. */
	uint32_t fail_from;
};

#define FEET_MAX UINT32_MAX

/* So many feet are searched as they are. Where there are more, a table says where each few of the ids begin. */
#define FEET_WITHOUT_TABLE 1024u
#define TABLE_BITS 16
#define TABLE_ENTRIES ((1u << TABLE_BITS) + 2)

/* A section whose end is being looked for. */
struct frame {
	struct split_section section;
	size_t group; /* index of the first footer with its id */
	size_t first; /* index of the first one tried */
	size_t at;    /* the one being tried */
	size_t stop;
};

struct search {
	const uint8_t *buf;
	size_t bytes;
	enum split_mode mode;
	const struct split_opts *opts;
	struct err *err;
	struct foot *feet;
	size_t foot_count, foot_room;
	uint32_t *table; /* of first_foot, by id >> table_shift; NULL while there are few */
	unsigned table_shift;
	uint32_t all_ids; /* or'ed together */
	struct frame *frames;
	size_t frame_count, frame_room;
	size_t reached; /* the furthest footer of a chain, for the story */
};

/* ---- what is plausible ---- */

static bool printable(const uint8_t *s, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++) {
		if (s[i] < 0x20 || s[i] > 0x7e)
			return false;
	}
	return true;
}

static const struct split_handler *find_live(const struct split_opts *opts, uint32_t section_id)
{
	for (size_t i = 0; i < opts->live_count; i++) {
		if (opts->live[i].section_id == section_id)
			return &opts->live[i];
	}
	return NULL;
}

/* Return: 1, 0 too few bytes to say, -1 not the header of a section. */
static int plausible_head(struct split_section *ret, const uint8_t *buf, size_t bytes, size_t off)
{
	size_t left = bytes - off;
	int r;

	/* Judge what is there first: half a header can be wrong already. */
	if (left >= 2 && buf[off + 1] != 0)
		return -1;
	if (left >= 6 && buf[off + 5] == 0)
		return -1;
	if (left >= 6 && !printable(buf + off + 6, buf[off + 5] < left - 6 ? buf[off + 5] : left - 6))
		return -1;
	r = split_head(ret, buf, bytes, off);
	if (r <= 0)
		return r;
	/* Versions are signed at the source, and some are dates: QEMU's eeprom has 20061113. */
	return ret->section_id <= SPLIT_ID_MAX && ret->version_id <= INT32_MAX ? 1 : -1;
}

/* ---- gaps: what stands between a footer and the next section ---- */

enum gap { GAP_BAD, GAP_SECTION, GAP_END };

static bool package_command_ok(const struct search *s, size_t off, uint16_t command, size_t next, bool at_start)
{
	switch (command) {
	case WIRE_CMD_POSTCOPY_LISTEN:
		return at_start && off == 0;
	case WIRE_CMD_PING:
		return off != 0;
	case WIRE_CMD_POSTCOPY_RUN:
		return off != 0 && next == s->bytes;
	default:
		return false;
	}
}

/*
 * Reads the commands at @off (packages only) and says what they lead to: a section (@ret_head), or the end. With @b the
 * commands are recorded too.
 */
static enum gap gap_at(const struct search *s, size_t off, struct split_section *ret_head, struct split_build *b)
{
	for (unsigned i = 0; off < s->bytes && s->buf[off] == WIRE_COMMAND && i < COMMANDS_IN_GAP_MAX; i++) {
		struct split_command c = { .off = off, .payload_off = off + COMMAND_HEAD_BYTES };
		struct command_head head;
		size_t next;

		if (s->mode != SPLIT_PACKAGE || element_command(&head, s->buf + off, s->bytes - off) == 0)
			return GAP_BAD;
		if (head.payload_bytes > s->bytes - c.payload_off || !wire_command_fits(head.id, head.payload_bytes))
			return GAP_BAD;
		c.command = head.id;
		c.payload_bytes = head.payload_bytes;
		next = c.payload_off + c.payload_bytes;
		if (!package_command_ok(s, off, c.command, next, i == 0))
			return GAP_BAD;
		if (b) {
			c.section = b->r.section_count;
			if (split_push_command(b, &c, s->err) < 0)
				return GAP_BAD;
		}
		if (c.command == WIRE_CMD_POSTCOPY_RUN)
			return GAP_END;
		off = next;
	}
	if (off >= s->bytes)
		return GAP_BAD;
	if (s->mode == SPLIT_TAIL && s->buf[off] == WIRE_EOF && off + 1 == s->bytes)
		return GAP_END;
	if (s->buf[off] != WIRE_SECTION_FULL || plausible_head(ret_head, s->buf, s->bytes, off) <= 0)
		return GAP_BAD;
	return GAP_SECTION;
}

/* ---- footers, found and sorted ---- */

static int add_foot(struct search *s, size_t off)
{
	if (s->foot_count == SPLIT_FEET_MAX)
		return err_set(s->err, -E2BIG, "more than %d places look like the end of a section", SPLIT_FEET_MAX);
	if (s->foot_count == s->foot_room) {
		size_t room = s->foot_room ? 2 * s->foot_room : 256;
		struct foot *feet = reallocarray(s->feet, room, sizeof(*feet));

		if (!feet)
			return err_set(s->err, -ENOMEM, "no memory for %zu footers", room);
		s->feet = feet;
		s->foot_room = room;
	}
	s->feet[s->foot_count++] = (struct foot){ .off = (uint32_t)off,
		                                  .section_id = be32_load(s->buf + off + 1),
		                                  .fail_from = UINT32_MAX };
	return 0;
}

/* So many are moved between two looks at the clock. */
#define SORT_FEET 4096u

/* One pass of a radix sort: stable, by eight bits of the id. Return: 0 or -ECANCELED. */
static int sort_pass(const struct search *s, struct foot *to, unsigned shift)
{
	size_t start[257] = { 0 };
	int r = 0;

	for (size_t i = 0; r == 0 && i < s->foot_count; i++) {
		start[(s->feet[i].section_id >> shift & 255) + 1]++;
		if (i % SORT_FEET == 0)
			r = turn_spend_pending(s->opts->sched, TURN_LOOK / 2);
	}
	for (unsigned k = 0; k < 256; k++)
		start[k + 1] += start[k];
	for (size_t i = 0; r == 0 && i < s->foot_count; i++) {
		to[start[s->feet[i].section_id >> shift & 255]++] = s->feet[i];
		if (i % SORT_FEET == 0)
			r = turn_spend_pending(s->opts->sched, TURN_LOOK);
	}
	return r;
}

/* They were found by offset, and stay so within an id. Ids have 24 bits; most streams use eight of them. */
static int sort_feet(struct search *s)
{
	struct foot *other = reallocarray(NULL, s->foot_count + 1, sizeof(*other)), *was;
	int r = 0;

	if (!other)
		return err_set(s->err, -ENOMEM, "no memory for %zu footers", s->foot_count);
	for (size_t i = 0; i < s->foot_count; i++) {
		s->all_ids |= s->feet[i].section_id;
		if (i % SORT_FEET == 0)
			turn_spend_pending(s->opts->sched, TURN_LOOK / 4);
	}
	for (unsigned shift = 0; r == 0 && shift < 24; shift += 8) {
		if (!(s->all_ids >> shift & 255))
			continue;
		r = sort_pass(s, other, shift);
		was = s->feet;
		s->feet = other;
		other = was;
	}
	turn_free(s->opts->sched, other, s->foot_count * sizeof(*other));
	return r;
}

static int make_table(struct search *s)
{
	size_t at = 0;

	if (s->foot_count <= FEET_WITHOUT_TABLE)
		return 0;
	s->table = reallocarray(NULL, TABLE_ENTRIES, sizeof(*s->table));
	if (!s->table)
		return err_set(s->err, -ENOMEM, "no memory for %zu footers", s->foot_count);
	while (s->all_ids >> s->table_shift >> TABLE_BITS)
		s->table_shift++;
	for (uint32_t k = 0; k < TABLE_ENTRIES; k++) {
		while (at < s->foot_count && (uint32_t)s->feet[at].section_id >> s->table_shift < k) {
			if (at++ % SORT_FEET == 0)
				turn_spend_pending(s->opts->sched, TURN_LOOK / 4);
		}
		s->table[k] = (uint32_t)at;
	}
	return 0;
}

static int find_feet(struct search *s)
{
	const uint8_t *end = s->buf + s->bytes, *at = s->buf;
	int r = 0;

	while (r == 0 && (at = split_seek(s->opts, at, end, WIRE_SECTION_FOOTER))) {
		size_t off = (size_t)(at - s->buf);
		struct split_section head;

		at++;
		r = turn_spend_pending(s->opts->sched, TURN_STEP / 2);
		if (s->bytes - off < FOOTER_BYTES || s->buf[off + 1] != 0)
			continue; /* above SPLIT_ID_MAX */
		if (r == 0 && gap_at(s, off + FOOTER_BYTES, &head, NULL) != GAP_BAD)
			r = add_foot(s, off);
	}
	if (r == 0)
		r = turn_spend_pending(s->opts->sched, 0);
	if (r == 0)
		r = sort_feet(s);
	return r < 0 ? r : make_table(s);
}

/* Is the foot before this id and offset? */
static bool foot_is_before(const struct foot *f, uint32_t section_id, size_t off)
{
	return f->section_id != section_id ? f->section_id < section_id : f->off < off;
}

/* Index of the first footer of @section_id at or after @off. */
static size_t first_foot(const struct search *s, uint32_t section_id, size_t off)
{
	size_t k = section_id >> s->table_shift, low = 0, high = s->foot_count;

	/* One more than the last id of all may be asked for, and what no foot has. */
	if (s->table && k < TABLE_ENTRIES - 1) {
		low = s->table[k];
		high = s->table[k + 1];
	} else if (s->table) {
		low = high;
	}

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (foot_is_before(&s->feet[mid], section_id, off))
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* ---- the chain ---- */

static int push_frame(struct search *s, const struct split_section *head)
{
	size_t group = first_foot(s, head->section_id, 0);
	struct frame f = { .section = *head, .group = group };
	struct foot *g = s->foot_count ? &s->feet[group] : NULL;

	/* No footer at all, or the id is used by a section before: a way that leads nowhere. */
	if (group == s->foot_count || g->section_id != head->section_id || g->on_way)
		return 0;
	f.first = f.at = first_foot(s, head->section_id, head->body_off);
	f.stop = first_foot(s, head->section_id + 1, 0);
	if (g->fail_from < f.stop)
		f.stop = g->fail_from;
	if (s->frame_count == SPLIT_SECTIONS_MAX)
		return 0;
	if (s->frame_count == s->frame_room) {
		size_t room = s->frame_room ? 2 * s->frame_room : 64;
		struct frame *frames = reallocarray(s->frames, room, sizeof(*frames));

		if (!frames)
			return err_set(s->err, -ENOMEM, "no memory for %zu sections", room);
		s->frames = frames;
		s->frame_room = room;
	}
	g->on_way = true;
	s->frames[s->frame_count++] = f;
	return 0;
}

static void pop_frame(struct search *s)
{
	struct frame *f = &s->frames[--s->frame_count];
	struct foot *g = &s->feet[f->group];

	g->on_way = false;
	if (f->first < g->fail_from)
		g->fail_from = (uint32_t)f->first;
}

/*
 * From the section @head on, find a chain of footers to the end: s->frames then holds it.
 * Return: 1, 0 there is none, -ENOMEM, -ECANCELED.
 */
static int find_chain(struct search *s, const struct split_section *head)
{
	int r = push_frame(s, head);

	while (r == 0 && s->frame_count > 0) {
		struct frame *f = &s->frames[s->frame_count - 1];
		struct split_section next;
		size_t count = s->frame_count, off;

		r = turn_spend_pending(s->opts->sched, 4 * TURN_STEP);
		if (r < 0)
			break;
		if (f->at >= f->stop) {
			pop_frame(s);
			if (s->frame_count > 0)
				s->frames[s->frame_count - 1].at++;
			continue;
		}
		off = s->feet[f->at].off;
		if (off > s->reached)
			s->reached = off;
		f->section.body_bytes = off - f->section.body_off;
		if (gap_at(s, off + FOOTER_BYTES, &next, NULL) == GAP_END)
			return 1;
		r = push_frame(s, &next);
		if (r == 0 && s->frame_count == count)
			s->frames[count - 1].at++; /* that section leads nowhere */
	}
	return r;
}

static int record_chain(struct search *s, struct split_build *b)
{
	struct split_section head;
	size_t off = 0;
	int r;

	for (size_t i = 0; i <= s->frame_count; i++) {
		r = turn_spend_pending(s->opts->sched, 2 * TURN_STEP);
		if (r < 0)
			return r;
		/* It was good when the chain was found: only recording it can have failed, with its own story. */
		if (gap_at(s, off, &head, b) == GAP_BAD)
			return s->err->code;
		if (i == s->frame_count)
			break;
		r = split_push_section(b, &s->frames[i].section, s->err);
		if (r < 0)
			return r;
		off = s->feet[s->frames[i].at].off + FOOTER_BYTES;
	}
	b->r.eof_off = s->mode == SPLIT_TAIL ? s->bytes - 1 : s->bytes;
	return 0;
}

static bool begins_with_listen(const struct search *s)
{
	struct command_head head;

	return element_command(&head, s->buf, s->bytes) > 0 && s->buf[0] == WIRE_COMMAND &&
	       head.id == WIRE_CMD_POSTCOPY_LISTEN;
}

static int check_start(const struct search *s, enum gap gap)
{
	if (s->mode == SPLIT_PACKAGE && !begins_with_listen(s))
		return err_set(s->err, -EPROTO, "the package does not begin with LISTEN");
	if (gap == GAP_BAD)
		return err_set(s->err, -EPROTO, "no section begins %s",
		               s->mode == SPLIT_PACKAGE ? "after LISTEN" : "at 0x0");
	return 0;
}

static int run_search(struct search *s, struct split_build *b)
{
	struct split_section head;
	enum gap gap = gap_at(s, 0, &head, NULL);
	int r = check_start(s, gap);

	if (r < 0)
		return r;
	if (gap == GAP_SECTION) {
		r = find_feet(s);
		if (r == 0)
			r = find_chain(s, &head);
		if (r < 0)
			return r;
		if (r == 0)
			return err_set(s->err, -EPROTO,
			               "the sections do not add up to the end; the last footer that fits is at 0x%zx",
			               s->reached);
	}
	r = record_chain(s, b);
	return r < 0 ? r : split_check_unique(&b->r, s->buf, s->opts, s->err);
}

int split_by_footers(struct split_result *ret, const uint8_t *buf, size_t bytes, enum split_mode mode,
                     const struct split_opts *opts, struct err *err)
{
	struct search s = { .buf = buf, .bytes = bytes, .mode = mode, .opts = opts, .err = err };
	struct split_build b = { .r.way = SPLIT_BY_FOOTERS };
	int r;

	if (!opts->footers)
		return err_set(err, -EINVAL, "a stream without section footers cannot be split by them");
	if (bytes > FEET_MAX)
		return err_set(err, -E2BIG, "%zu bytes of device state", bytes);
	r = run_search(&s, &b);
	turn_free(opts->sched, s.feet, s.foot_count * sizeof(*s.feet));
	free(s.frames);
	free(s.table);
	if (r < 0) {
		split_result_fini(&b.r);
		return r;
	}
	*ret = b.r;
	return 0;
}

/* ---- early sections ---- */

/* May this stand after an early section? Return: 1, 0 too few bytes to say, -1. */
static int plausible_setup(const uint8_t *buf, size_t bytes, size_t off, uint32_t section_id,
                           const struct split_opts *opts)
{
	struct split_section head;
	struct command_head command;
	size_t left = bytes - off;
	int r;

	if (left == 0)
		return 0;
	switch (buf[off]) {
	case WIRE_SECTION_START:
	case WIRE_SECTION_FULL:
		r = plausible_head(&head, buf, bytes, off);
		if (r <= 0)
			return r;
		return head.section_id != section_id && !find_live(opts, head.section_id) ? 1 : -1;
	case WIRE_SECTION_PART:
	case WIRE_SECTION_END:
		if (left < 5)
			return 0;
		return find_live(opts, be32_load(buf + off + 1)) ? 1 : -1;
	case WIRE_COMMAND:
		if (element_command(&command, buf + off, left) == 0)
			return 0;
		return wire_command_fits(command.id, command.payload_bytes) ? 1 : -1;
	default:
		return -1;
	}
}

int split_early_end(size_t *ret_body_bytes, size_t *scan_off, const uint8_t *body, size_t bytes, uint32_t section_id,
                    const struct split_opts *opts, struct err *err)
{
	uint8_t footer[FOOTER_BYTES];

	if (!opts->footers)
		return err_set(err, -EINVAL, "an early section cannot be passed in a stream without section footers");
	element_put_footer(footer, section_id);
	while (*scan_off <= SPLIT_EARLY_BYTES_MAX && bytes - *scan_off >= FOOTER_BYTES) {
		const uint8_t *at = memmem(body + *scan_off, bytes - *scan_off, footer, FOOTER_BYTES);
		int r;

		if (!at) {
			*scan_off = bytes - FOOTER_BYTES + 1;
			break;
		}
		*scan_off = (size_t)(at - body);
		if (turn_spend_pending(opts->sched, TURN_STEP + 8 * opts->live_count) < 0)
			return -ECANCELED;
		r = plausible_setup(body, bytes, *scan_off + FOOTER_BYTES, section_id, opts);
		if (r == 0)
			break;
		if (r > 0 && *scan_off <= SPLIT_EARLY_BYTES_MAX) {
			*ret_body_bytes = *scan_off;
			return 1;
		}
		(*scan_off)++;
	}
	if (*scan_off > SPLIT_EARLY_BYTES_MAX)
		return err_set(err, -EPROTO, "no end of the section in %u bytes", SPLIT_EARLY_BYTES_MAX);
	return 0;
}
