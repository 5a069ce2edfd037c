/* Splitting with the description: doc/wire/stream.md 7.3, 1.5. */
#include <errno.h>
#include <string.h>

#include "base/be.h"
#include "base/text.h"
#include "coroutine/turn.h"
#include "engine/devices/split.h"
#include "engine/devices/split_parts.h"
#include "engine/devices/vmdesc.h"

#define QUOTED(buf, s) TEXT_QUOTE((buf) + (s)->name_off, (s)->name_bytes)

/* ---- sections ---- */

int split_wrong_element(const uint8_t *buf, size_t bytes, size_t off, const char *want, struct err *err)
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
		return split_wrong_element(buf, bytes, off, "a section", err);
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

int split_walk_sections(struct split_build *b, const struct vmdesc *d, const uint8_t *buf, size_t bytes,
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
		return split_wrong_element(buf, bytes, off, "EOF", err);
	if (off + 1 != bytes)
		return err_set(err, -EPROTO, "EOF at 0x%zx, %zu bytes before the description", off, bytes - off - 1);
	b->r.eof_off = off;
	return 0;
}

/* ---- bodies ---- */

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

static may_park int walk_bodies(const struct split_result *res, const struct vmdesc *d, const uint8_t *buf,
                                struct sched *sched, struct err *err)
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

int split_finish(struct split_result *ret, struct split_build *b, const struct vmdesc *d, const uint8_t *buf,
                 const struct split_opts *opts, struct err *err)
{
	int r = walk_bodies(&b->r, d, buf, opts->sched, err);

	if (r == 0)
		r = split_check_unique(&b->r, buf, opts, err);
	if (r < 0)
		split_result_fini(&b->r);
	else
		*ret = b->r;
	return r;
}

int split_by_description(struct split_result *ret, const struct vmdesc *d, const uint8_t *buf, size_t bytes,
                         const struct split_opts *opts, struct err *err)
{
	struct split_build b = { .r.way = SPLIT_BY_DESCRIPTION };
	int r = split_walk_sections(&b, d, buf, bytes, opts, err);

	if (r == 0)
		return split_finish(ret, &b, d, buf, opts, err);
	split_result_fini(&b.r);
	return r;
}
