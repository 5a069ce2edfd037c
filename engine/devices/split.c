#include "engine/devices/split.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/be.h"
#include "base/text.h"
#include "coroutine/turn.h"
#include "engine/devices/split_parts.h"
#include "engine/devices/vmdesc.h"

#define QUOTED(buf, s) TEXT_QUOTE((buf) + (s)->name_off, (s)->name_bytes)

void split_result_fini(struct split_result *r)
{
	if (!r)
		return;
	free(r->sections);
	free(r->commands);
	vmdesc_free(r->desc);
	*r = SPLIT_RESULT_NONE;
}

const char *split_name(char ret_name[static 256], const uint8_t *buf, const struct split_section *s)
{
	memcpy(ret_name, buf + s->name_off, s->name_bytes);
	ret_name[s->name_bytes] = '\0';
	return ret_name;
}

const struct split_section *split_find(const struct split_result *r, const uint8_t *buf, const char *name,
                                       uint32_t instance_id)
{
	size_t name_bytes = strlen(name);

	for (size_t i = 0; i < r->section_count; i++) {
		const struct split_section *s = &r->sections[i];

		if (s->instance_id == instance_id && s->name_bytes == name_bytes &&
		    !memcmp(buf + s->name_off, name, name_bytes))
			return s;
	}
	return NULL;
}

/* ---- shared with split_footers.c ---- */

int split_head(struct split_section *ret, const uint8_t *buf, size_t bytes, size_t off)
{
	struct section_head head;
	int n = element_section(&head, buf + off, bytes - off);

	if (n > 0)
		*ret = (struct split_section){
			.off = off,
			.name_off = (size_t)(head.name - (const char *)buf),
			.name_bytes = head.name_bytes,
			.body_off = off + (size_t)n,
			.section_id = head.section_id,
			.instance_id = head.instance_id,
			.version_id = head.version_id,
			.device = -1,
		};
	return n;
}

static int grow(void **array, size_t *room, size_t count, size_t max, size_t element_bytes, struct err *err)
{
	size_t want = *room ? 2 * *room : 16;
	void *bigger;

	if (count < *room)
		return 0;
	if (count >= max)
		return err_set(err, -E2BIG, "more than %zu sections or commands", max);
	bigger = reallocarray(*array, want, element_bytes);
	if (!bigger)
		return err_set(err, -ENOMEM, "no memory for %zu sections", want);
	*array = bigger;
	*room = want;
	return 0;
}

int split_push_section(struct split_build *b, const struct split_section *s, struct err *err)
{
	void *array = b->r.sections;
	int r = grow(&array, &b->section_room, b->r.section_count, SPLIT_SECTIONS_MAX, sizeof(*s), err);

	b->r.sections = array;
	if (r == 0)
		b->r.sections[b->r.section_count++] = *s;
	return r;
}

int split_push_command(struct split_build *b, const struct split_command *c, struct err *err)
{
	void *array = b->r.commands;
	int r = grow(&array, &b->command_room, b->r.command_count, SPLIT_COMMANDS_MAX, sizeof(*c), err);

	b->r.commands = array;
	if (r == 0)
		b->r.commands[b->r.command_count++] = *c;
	return r;
}

/* One who has a name and an id: a live handler, an early section, a section. */
struct party {
	const char *name;
	size_t name_bytes;
	uint32_t instance_id, section_id;
	enum { PARTY_LIVE, PARTY_EARLY, PARTY_SECTION } kind;
};

static int party_compare_name(const void *a, const void *b, void *sched)
{
	const struct party *x = a, *y = b;
	int r;

	turn_spend_pending(sched, TURN_STEP); /* a cancel waits for the end of the sort */
	if (x->name_bytes != y->name_bytes)
		return x->name_bytes < y->name_bytes ? -1 : 1;
	r = memcmp(x->name, y->name, x->name_bytes);
	return r ? r : (x->instance_id > y->instance_id) - (x->instance_id < y->instance_id);
}

static int party_compare_id(const void *a, const void *b, void *sched)
{
	const struct party *x = a, *y = b;

	turn_spend_pending(sched, TURN_STEP);
	if (x->section_id != y->section_id)
		return x->section_id < y->section_id ? -1 : 1;
	return (x->kind > y->kind) - (x->kind < y->kind);
}

static size_t parties_fill(struct party *out, const struct split_handler *h, size_t count, int kind)
{
	for (size_t i = 0; i < count; i++)
		out[i] = (struct party){ h[i].name, strlen(h[i].name), h[i].instance_id, h[i].section_id, kind };
	return count;
}

/* Live handlers were checked when they STARTed, and one of them may have a FULL too: only the others count. */
static int check_names(struct party *all, size_t count, struct sched *sched, struct err *err)
{
	const struct party *last = NULL;

	qsort_r(all, count, sizeof(*all), party_compare_name, sched);
	for (size_t i = 0; i < count; i++) {
		if (all[i].kind == PARTY_LIVE)
			continue;
		if (last && !party_compare_name(last, &all[i], sched))
			return err_set(err, -EPROTO, "device '%s' instance %u occurs twice",
			               TEXT_QUOTE(last->name, last->name_bytes), last->instance_id);
		last = &all[i];
	}
	return 0;
}

static int check_ids(struct party *all, size_t count, struct sched *sched, struct err *err)
{
	qsort_r(all, count, sizeof(*all), party_compare_id, sched);
	for (size_t i = 1; i < count; i++) {
		const struct party *x = &all[i - 1], *y = &all[i];

		if (x->section_id != y->section_id || y->kind != PARTY_SECTION)
			continue;
		/* The final state of a handler with a live part comes under the same id (doc/wire/stream.md 1.4). */
		if (x->kind == PARTY_LIVE && !party_compare_name(x, y, sched))
			continue;
		return err_set(err, -EPROTO, "device '%s' has section id %u, which '%s' has",
		               TEXT_QUOTE(y->name, y->name_bytes), y->section_id, TEXT_QUOTE(x->name, x->name_bytes));
	}
	return 0;
}

int split_check_unique(const struct split_result *r, const uint8_t *buf, const struct split_opts *opts, struct err *err)
{
	size_t count = 0;
	size_t room = opts->live_count + opts->early_count + r->section_count + 1;
	struct party *all = reallocarray(NULL, room, sizeof(*all));
	int ret;

	if (!all)
		return err_set(err, -ENOMEM, "no memory for %zu sections", r->section_count);
	count += parties_fill(all, opts->live, opts->live_count, PARTY_LIVE);
	count += parties_fill(all + count, opts->early, opts->early_count, PARTY_EARLY);
	for (size_t i = 0; i < r->section_count; i++) {
		const struct split_section *s = &r->sections[i];

		all[count++] = (struct party){ (const char *)buf + s->name_off, s->name_bytes, s->instance_id,
			                       s->section_id, PARTY_SECTION };
	}
	ret = check_names(all, count, opts->sched, err);
	if (ret == 0)
		ret = check_ids(all, count, opts->sched, err);
	free(all);
	return ret;
}

/* ---- with the description: sections ---- */

static int wrong_element(const uint8_t *buf, size_t bytes, size_t off, const char *want, struct err *err)
{
	struct command_head head;

	if (buf[off] == WIRE_COMMAND && element_command(&head, buf + off, bytes - off) > 0)
		return err_set(err, -EPROTO, "command %u at 0x%zx, where %s was expected", head.id, off, want);
	return err_set(err, -EPROTO, "element 0x%02x (%s) at 0x%zx, where %s was expected", buf[off],
	               wire_element_name(buf[off]), off, want);
}

/*
 * Arrays of pointers, of which some are NULL, are described by their first element (doc/wire/stream.md 7.3 item 1): all
 * of s390's machines have one in their channel subsystem.
 */
static bool size_may_be_wrong(const struct vmdesc_desc *desc)
{
	for (const struct vmdesc_field *f = desc->fields; f; f = f->next)
		if (f->elements > 1 && strcmp(f->type, "struct") == 0)
			return true;
	return false;
}

/* The longest body that is looked through for its end: that of a channel subsystem has some ten KiB. */
#define WRONG_SIZE_BYTES_MAX ((size_t)1 << 20)

/* Is what the description has after device @k at @off: the header of the next one, or EOF as the last byte? */
static bool next_is_at(const struct vmdesc *d, size_t k, const uint8_t *buf, size_t bytes, size_t off)
{
	const struct vmdesc_device *next;
	struct split_section head;

	if (off >= bytes)
		return false;
	if (k + 1 == vmdesc_device_count(d))
		return buf[off] == WIRE_EOF && off + 1 == bytes;
	next = vmdesc_device(d, k + 1);
	return buf[off] == WIRE_SECTION_FULL && split_head(&head, buf, bytes, off) > 0 &&
	       head.name_bytes == next->name_bytes && !memcmp(buf + head.name_off, next->name, next->name_bytes) &&
	       head.instance_id == next->instance_id;
}

/* The end of such a body is the first footer of its own after which comes what the description says. */
static bool find_end(struct split_section *s, size_t *ret_next, const struct vmdesc *d, size_t k, const uint8_t *buf,
                     size_t bytes, const struct split_opts *opts)
{
	uint8_t footer[FOOTER_BYTES];
	const uint8_t *at = buf + s->body_off, *end = buf + bytes;

	if (!opts->footers || !size_may_be_wrong(vmdesc_device(d, k)->desc))
		return false;
	if ((size_t)(end - at) > WRONG_SIZE_BYTES_MAX)
		end = at + WRONG_SIZE_BYTES_MAX;
	element_put_footer(footer, s->section_id);
	turn_spend_pending(opts->sched, (size_t)(end - at));
	for (; (at = memmem(at, (size_t)(end - at), footer, FOOTER_BYTES)); at++) {
		size_t off = (size_t)(at - buf);

		if (!next_is_at(d, k, buf, bytes, off + FOOTER_BYTES))
			continue;
		s->body_bytes = off - s->body_off;
		s->device = -1; /* its fields are not where the description has them */
		*ret_next = off + FOOTER_BYTES;
		return true;
	}
	return false;
}

/* The section at @off is device @k, and is whole with its footer: @ret, and where the next element begins. */
static int match_section(struct split_section *ret, size_t *ret_next, const struct vmdesc *d, size_t k,
                         const uint8_t *buf, size_t bytes, size_t off, const struct split_opts *opts, struct err *err)
{
	const struct vmdesc_device *device = vmdesc_device(d, k);
	uint64_t body = device->desc->body_bytes;
	uint32_t footer_id;
	size_t left;
	int r;

	if (off == bytes)
		return err_set(err, -EPROTO, "the data ends at 0x%zx", off);
	if (buf[off] != WIRE_SECTION_FULL)
		return wrong_element(buf, bytes, off, "a section", err);
	r = split_head(ret, buf, bytes, off);
	if (r <= 0)
		return err_set(err, -EPROTO, "section header at 0x%zx %s", off, r ? "without a name" : "is cut off");
	if (ret->name_bytes != device->name_bytes || memcmp(buf + ret->name_off, device->name, device->name_bytes) ||
	    ret->instance_id != device->instance_id)
		return err_set(err, -EPROTO, "section at 0x%zx is '%s' instance %u", off, QUOTED(buf, ret),
		               ret->instance_id);
	left = bytes - ret->body_off;
	if (body > left && find_end(ret, ret_next, d, k, buf, bytes, opts))
		return 0;
	if (body > left)
		return err_set(err, -EPROTO, "body of %llu bytes at 0x%zx, %zu are there", (unsigned long long)body,
		               ret->body_off, left);
	ret->body_bytes = (size_t)body;
	ret->device = (int32_t)k;
	*ret_next = ret->body_off + ret->body_bytes;
	if (!opts->footers)
		return 0;
	if (element_footer(&footer_id, buf + *ret_next, left - ret->body_bytes) <= 0 || footer_id != ret->section_id) {
		if (find_end(ret, ret_next, d, k, buf, bytes, opts))
			return 0;
		return err_set(err, -EPROTO, "no footer of section id %u at 0x%zx", ret->section_id, *ret_next);
	}
	*ret_next += FOOTER_BYTES;
	return 0;
}

/* The set-up phase's sections, which the description lists first: matched and passed over. */
static int match_early(const struct vmdesc *d, const struct split_opts *opts, struct err *err)
{
	for (size_t k = 0; k < opts->early_count; k++) {
		const struct split_handler *early = &opts->early[k];
		const struct vmdesc_device *device;

		if (k == vmdesc_device_count(d))
			return err_set(err, -EPROTO, "early section '%s' is not in the description",
			               TEXT_QUOTE(early->name, strlen(early->name)));
		device = vmdesc_device(d, k);
		if (strcmp(device->name, early->name) || device->instance_id != early->instance_id)
			return err_set(err, -EPROTO,
			               "early section '%s' instance %u: the description has '%s' instance %u",
			               TEXT_QUOTE(early->name, strlen(early->name)), early->instance_id,
			               TEXT_QUOTE(device->name, device->name_bytes), device->instance_id);
		if (device->desc->body_bytes != early->body_bytes)
			return err_set(err, -EPROTO, "early section '%s' had %zu bytes, the description says %llu",
			               TEXT_QUOTE(early->name, strlen(early->name)), early->body_bytes,
			               (unsigned long long)device->desc->body_bytes);
	}
	return 0;
}

/* Headers, sizes and footers only: fails at once where the description is of something else. */
static int walk_sections(struct split_build *b, const struct vmdesc *d, const uint8_t *buf, size_t bytes,
                         const struct split_opts *opts, struct err *err)
{
	size_t off = 0;
	int r = match_early(d, opts, err);

	for (size_t k = opts->early_count; r == 0 && k < vmdesc_device_count(d); k++) {
		const struct vmdesc_device *device = vmdesc_device(d, k);
		struct split_section s;

		r = turn_spend_pending(opts->sched, TURN_STEP);
		if (r < 0)
			return r;
		r = match_section(&s, &off, d, k, buf, bytes, off, opts, err);
		if (r == 0)
			r = split_push_section(b, &s, err);
		if (r < 0)
			return err_up(err, r, "device %zu '%s' instance %u", k,
			              TEXT_QUOTE(device->name, device->name_bytes), device->instance_id);
	}
	if (r < 0)
		return r;
	if (off == bytes)
		return err_set(err, -EPROTO, "no EOF after the last section at 0x%zx", off);
	if (buf[off] != WIRE_EOF)
		return wrong_element(buf, bytes, off, "EOF", err);
	if (off + 1 != bytes)
		return err_set(err, -EPROTO, "EOF at 0x%zx, %zu bytes before the description", off, bytes - off - 1);
	b->r.eof_off = off;
	return 0;
}

/* ---- with the description: bodies ---- */

/*
 * Only subsection headers say anything about themselves; that structures have their field's size is by (2) of vmdesc.h.
 * @off is within the body, which is as long as the description says, so no access here leaves it. By (3) of vmdesc.h
 * each step passes at least one header of seven bytes.
 */
static int walk_desc(const struct vmdesc_desc *desc, const uint8_t *buf, size_t off, struct sched *sched,
                     struct err *err)
{
	size_t at;
	int r = turn_spend_pending(sched, TURN_STEP);

	if (r < 0)
		return r;

	for (const struct vmdesc_field *f = desc->fields_deep; f; f = f->next_deep) {
		for (uint64_t i = 0; i < f->elements; i++) {
			r = walk_desc(f->desc, buf, off + f->off + i * f->bytes, sched, err);
			if (r < 0)
				return err_up(err, r, "%s", TEXT_QUOTE(f->name, strlen(f->name)));
		}
	}
	at = off + desc->fields_bytes;
	for (const struct vmdesc_desc *s = desc->subsections; s; s = s->next) {
		size_t n = s->name_bytes;

		if (buf[at] != WIRE_SUBSECTION || buf[at + 1] != n || memcmp(buf + at + 2, s->name, n) ||
		    be32_load(buf + at + 2 + n) != s->version)
			return err_set(err, -EPROTO, "subsection '%s' version %u is not at 0x%zx",
			               TEXT_QUOTE(s->name, n), s->version, at);
		at += 2 + n + 4;
		if (s->deep) {
			r = walk_desc(s, buf, at, sched, err);
			if (r < 0)
				return err_up(err, r, "%s", TEXT_QUOTE(s->name, n));
		}
		at += s->body_bytes;
	}
	return 0;
}

static int walk_bodies(const struct split_result *res, const struct vmdesc *d, const uint8_t *buf, struct sched *sched,
                       struct err *err)
{
	for (size_t i = 0; i < res->section_count; i++) {
		const struct split_section *s = &res->sections[i];
		const struct vmdesc_desc *desc;
		int r = 0;

		if (s->device < 0)
			continue;
		desc = vmdesc_device(d, (size_t)s->device)->desc;
		if (!vmdesc_device(d, (size_t)s->device)->old_style && desc->version != s->version_id)
			r = err_set(err, -EPROTO, "version %u, the description says %u", s->version_id, desc->version);
		if (r == 0 && desc->deep)
			r = walk_desc(desc, buf, s->body_off, sched, err);
		if (r < 0)
			return err_up(err, r, "device '%s' instance %u", QUOTED(buf, s), s->instance_id);
	}
	return 0;
}

int split_by_description(struct split_result *ret, const struct vmdesc *d, const uint8_t *buf, size_t bytes,
                         const struct split_opts *opts, struct err *err)
{
	struct split_build b = { .r.way = SPLIT_BY_DESCRIPTION };
	int r = walk_sections(&b, d, buf, bytes, opts, err);

	if (r == 0)
		r = walk_bodies(&b.r, d, buf, opts->sched, err);
	if (r == 0)
		r = split_check_unique(&b.r, buf, opts, err);
	if (r < 0) {
		split_result_fini(&b.r);
		return r;
	}
	*ret = b.r;
	return 0;
}

/* ---- is it complete? ---- */

static int check_first(const uint8_t *buf, size_t bytes, struct err *err)
{
	struct split_section s;

	if (bytes == 0 || buf[0] == WIRE_EOF)
		return 0;
	if (buf[0] != WIRE_SECTION_FULL)
		return wrong_element(buf, bytes, 0, "a section or EOF", err);
	if (split_head(&s, buf, bytes, 0) < 0)
		return err_set(err, -EPROTO, "the first section has no name");
	return 0;
}

/* Is a description announced at @off, and are there as many bytes as that? */
static bool announces(const uint8_t *buf, size_t bytes, size_t off, size_t *ret_json_bytes)
{
	return element_description(ret_json_bytes, buf + off, bytes - off) > 0 &&
	       *ret_json_bytes <= bytes - off - DESCRIPTION_HEAD_BYTES;
}

/*
 * The description announced at @eof_off.
 * Return: 1 agrees, 0 not a description or of something else (@miss), negative an error that no further byte can mend.
 */
static int try_at(struct split_result *ret, const uint8_t *buf, size_t eof_off, size_t json_bytes,
                  const struct split_opts *opts, struct err *miss, struct err *err)
{
	struct split_build b = { .r.way = SPLIT_BY_DESCRIPTION };
	struct vmdesc *d = NULL;
	int r;

	b.r.json_off = eof_off + DESCRIPTION_HEAD_BYTES;
	b.r.json_bytes = json_bytes;
	r = vmdesc_parse(&d, buf + b.r.json_off, json_bytes, opts->sched, miss);
	if (r == 0)
		r = walk_sections(&b, d, buf, eof_off + 1, opts, miss);
	b.r.desc = d;
	if (r < 0) {
		split_result_fini(&b.r);
		if (r == -ECANCELED)
			return r;
		return r == -ENOMEM ? err_set(err, r, "no memory for the description") : 0;
	}
	/*
	 * From here on it is not taken for a chance any more: sizes, names and footers of all sections agree. To wait
	 * for a better one would let a peer make us walk the same bodies again and again, and most likely for ever.
	 */
	r = walk_bodies(&b.r, d, buf, opts->sched, err);
	if (r == 0)
		r = split_check_unique(&b.r, buf, opts, err);
	if (r < 0) {
		split_result_fini(&b.r);
		return r;
	}
	*ret = b.r;
	return 1;
}

static void look_for_zero(struct split_tail *tail, const uint8_t *buf, size_t bytes)
{
	const uint8_t *zero = memrchr(buf + tail->scanned, 0, bytes - tail->scanned);

	if (zero)
		tail->zero_off = (size_t)(zero - buf) + 1;
	tail->scanned = bytes;
}

/*
 * JSON has no zero byte, and the header before it has: so the header is where the last zero byte of the buffer is. That
 * leaves five places, and one pass over all bytes finds them; searching backwards on every call would be a square.
 */
int split_try_tail(struct split_tail *tail, struct split_result *ret, const uint8_t *buf, size_t bytes,
                   const struct split_opts *opts, struct err *err)
{
	int r = check_first(buf, bytes, err);

	if (r < 0 || bytes == 0)
		return r;
	look_for_zero(tail, buf, bytes);
	if (tail->zero_off == 0 || buf[bytes - 1] != '}')
		return 0;
	for (size_t back = 0; back < DESCRIPTION_HEAD_BYTES && back < tail->zero_off; back++) {
		size_t off = tail->zero_off - 1 - back, json_bytes;

		if (!announces(buf, bytes, off, &json_bytes) || off + DESCRIPTION_HEAD_BYTES + json_bytes != bytes)
			continue;
		r = try_at(ret, buf, off, json_bytes, opts, &tail->miss, err);
		if (r != 0)
			return r;
	}
	return 0;
}

/* What memchr looks through between two looks at the clock: some 20 us. */
#define SEEK_BYTES ((size_t)512 << 10)

const uint8_t *split_seek(const struct split_opts *opts, const uint8_t *at, const uint8_t *end, uint8_t byte)
{
	const uint8_t *found;
	size_t n;

	for (; at < end; at += n) {
		n = (size_t)(end - at) < SEEK_BYTES ? (size_t)(end - at) : SEEK_BYTES;
		found = memchr(at, byte, n);
		if (found)
			return found;
		if (turn_spend_pending(opts->sched, n / 8) < 0)
			return NULL;
	}
	return NULL;
}

/* Headers, sizes and footers only. Return: 1 agrees, 0 does not, -ENOMEM, -ECANCELED. */
static int agrees_at(const uint8_t *buf, size_t eof_off, size_t json_bytes, const struct split_opts *opts)
{
	struct split_build b = { .r.way = SPLIT_BY_DESCRIPTION };
	struct err ignored = ERR_NONE;
	struct vmdesc *d = NULL;
	int r = vmdesc_parse(&d, buf + eof_off + DESCRIPTION_HEAD_BYTES, json_bytes, opts->sched, &ignored);

	if (r == 0)
		r = walk_sections(&b, d, buf, eof_off + 1, opts, &ignored);
	b.r.desc = d;
	split_result_fini(&b.r);
	if (r == -ENOMEM || r == -ECANCELED)
		return r;
	return r == 0;
}

/*
 * The bodies are walked once, for the last one that agrees so far. As texts cannot overlap (no zero byte in JSON), this
 * is linear.
 */
int split_find_tail(struct split_result *ret, const uint8_t *buf, size_t bytes, const struct split_opts *opts,
                    struct err *err)
{
	const uint8_t *end = buf + bytes, *zero = split_seek(opts, buf, end, 0);
	size_t json_bytes, last_off = 0, last_bytes = 0;
	struct err miss = ERR_NONE;
	int r;

	for (; zero; zero = split_seek(opts, zero + 1, end, 0)) {
		size_t off = (size_t)(zero - buf);

		if (turn_spend_pending(opts->sched, TURN_STEP) < 0)
			return -ECANCELED;
		if (!announces(buf, bytes, off, &json_bytes))
			continue;
		turn_spend_pending(opts->sched, TURN_SYSCALL);
		r = agrees_at(buf, off, json_bytes, opts);
		if (r < 0)
			return r == -ENOMEM ? err_set(err, r, "no memory for the description") : r;
		if (r > 0) {
			last_off = off;
			last_bytes = json_bytes;
		}
	}
	return last_bytes ? try_at(ret, buf, last_off, last_bytes, opts, &miss, err) : 0;
}

/* A description that agrees but is not the end. */
static bool data_behind(const uint8_t *buf, size_t bytes, const struct split_opts *opts, size_t *ret_end)
{
	struct split_result res = SPLIT_RESULT_NONE;
	struct err ignored = ERR_NONE;

	if (split_find_tail(&res, buf, bytes, opts, &ignored) <= 0)
		return false;
	*ret_end = res.json_off + res.json_bytes;
	split_result_fini(&res);
	return *ret_end < bytes;
}

int split_tail_end(const struct split_tail *tail, const uint8_t *buf, size_t bytes, const struct split_opts *opts,
                   struct err *err)
{
	size_t end;

	if (data_behind(buf, bytes, opts, &end))
		return err_set(err, -EPROTO, "%zu bytes of data after the description", bytes - end);
	if (turn_spend_pending(opts->sched, 0) < 0)
		return -ECANCELED;
	if (tail->miss.code) {
		*err = tail->miss;
		return err_up(err, -EPROTO, "the description does not agree with the sections");
	}
	return err_set(err, -EPROTO, "the stream ends after %zu bytes of device state, without a description", bytes);
}

/* ---- globalstate ---- */

/* be32 size, 100 bytes of which two have got a second meaning */
#define GLOBALSTATE_BYTES 104u
#define GLOBALSTATE_NAME_BYTES 100u
#define GLOBALSTATE_FLAG_OFF 32u

static bool flag_of(const uint8_t *name, size_t name_bytes, size_t off)
{
	return name_bytes < off && name[off] != 0;
}

int split_globalstate(struct split_globalstate *ret, const uint8_t *body, size_t bytes, struct err *err)
{
	const uint8_t *name = body + 4;
	struct split_globalstate g = { 0 };
	uint32_t size;
	size_t n;

	if (bytes != GLOBALSTATE_BYTES)
		return err_set(err, -EPROTO, "globalstate of %zu bytes, %u expected", bytes, GLOBALSTATE_BYTES);
	size = be32_load(body);
	n = strnlen((const char *)name, GLOBALSTATE_NAME_BYTES);
	if (n == 0 || n == GLOBALSTATE_NAME_BYTES || size != n + 1)
		return err_set(err, -EPROTO, "globalstate: run state of %zu bytes, announced with %u", n, size);
	for (size_t i = 0; i < n; i++) {
		if (name[i] < 0x21 || name[i] > 0x7e)
			return err_set(err, -EPROTO, "globalstate: run state '%s'", TEXT_QUOTE(name, n));
	}
	memcpy(g.run_state, name, n);
	g.has_vm_was_suspended = flag_of(name, n, GLOBALSTATE_FLAG_OFF);
	g.vm_was_suspended = flag_of(name, n, GLOBALSTATE_FLAG_OFF + 1);
	*ret = g;
	return 0;
}
