#include "engine/load/vmdesc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/text.h"
#include "engine/load/pull.h"

struct device_entry {
	struct vmdesc_device device;
	size_t text_off, text_bytes;
};

struct vmdesc {
	char *text;
	struct pull_chunk *chunks;
	struct device_entry *devices;
	size_t device_count, device_room;
	uint64_t tpage_bytes;
};

/* ---- the schema of spec/stream.md 7.2 ---- */

enum member {
	M_NAME,
	M_TYPE,
	M_SIZE,
	M_ARRAY_LEN,
	M_STRUCT,
	M_INSTANCE,
	M_VMSD_NAME,
	M_VERSION,
	M_FIELDS,
	M_SUBSECTIONS,
};

/* A desc while its members, which may come in any order and among others, are read. */
struct desc_build {
	struct vmdesc_desc *desc;
	unsigned seen; /* bits of enum member */
	bool twice;
};

static int parse_fields(struct pull *p, struct vmdesc_desc *desc);
static int parse_subsections(struct pull *p, struct vmdesc_desc *desc);

static bool is(const struct pull_str *s, const char *word)
{
	return !strcmp(s->s, word);
}

static bool mark(unsigned *seen, enum member m)
{
	bool twice = *seen >> m & 1;

	*seen |= 1u << m;
	return twice;
}

static int desc_name(struct pull *p, struct vmdesc_desc *desc)
{
	struct pull_str s;
	int r = pull_string(p, &s);

	if (r < 0)
		return r;
	if (s.bytes > 255)
		return PULL_FAIL(p, "vmsd_name of %zu bytes, 255 are possible", s.bytes);
	desc->name = s.s;
	desc->name_bytes = (uint8_t)s.bytes;
	return 0;
}

static int desc_version(struct pull *p, struct vmdesc_desc *desc)
{
	uint64_t v = 0;
	int r = pull_number(p, UINT32_MAX, &v);

	if (r == 0)
		desc->version = (uint32_t)v;
	return r;
}

/* Return: 1 it was a member of desc and has been read, 0 it was not. */
static int desc_member(struct pull *p, struct desc_build *b, const struct pull_str *k)
{
	static const struct {
		const char *word;
		enum member m;
		int (*parse)(struct pull *p, struct vmdesc_desc *desc);
	} members[] = {
		{ "vmsd_name", M_VMSD_NAME, desc_name },
		{ "version", M_VERSION, desc_version },
		{ "fields", M_FIELDS, parse_fields },
		{ "subsections", M_SUBSECTIONS, parse_subsections },
	};

	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
		int r;

		if (!is(k, members[i].word))
			continue;
		if (!b->desc) {
			b->desc = pull_take(p, sizeof(*b->desc));
			if (!b->desc)
				return pull_no_memory(p);
			b->desc->name = "";
		}
		if (mark(&b->seen, members[i].m)) {
			/* Only lists may say it twice, and what they say is not used. Keep the first. */
			b->twice = true;
			r = pull_skip(p);
		} else {
			r = members[i].parse(p, b->desc);
		}
		return r < 0 ? r : 1;
	}
	return 0;
}

static int add(struct pull *p, uint64_t *sum, uint64_t v)
{
	/* Kept below 2^63 so that a few of them still add up without wrapping. */
	if (__builtin_add_overflow(*sum, v, sum) || *sum > INT64_MAX)
		return PULL_FAIL(p, "sizes that do not fit in 63 bits");
	return 0;
}

/* All members are there: the sums. Subsections are summed where they were read. */
static int desc_finish(struct pull *p, const struct desc_build *b)
{
	const unsigned need = 1u << M_VMSD_NAME | 1u << M_VERSION | 1u << M_FIELDS;

	if (b->twice)
		return PULL_FAIL(p, "the same key twice in '%s'", TEXT_QUOTE(b->desc->name, strlen(b->desc->name)));
	if ((b->seen & need) != need)
		return PULL_FAIL(p, "vmsd_name, version or fields missing");
	return add(p, &b->desc->body_bytes, b->desc->fields_bytes);
}

static int parse_desc(struct pull *p, struct vmdesc_desc **ret)
{
	struct desc_build b = { 0 };
	bool first = true;
	struct pull_str k;
	int r = pull_enter(p, '{');

	while (r == 0 && (r = pull_more(p, &first, '}')) > 0) {
		r = pull_key(p, &k);
		if (r == 0)
			r = desc_member(p, &b, &k);
		if (r == 0)
			r = pull_skip(p);
		r = r < 0 ? r : 0;
	}
	if (r < 0)
		return r;
	if (!b.desc)
		return PULL_FAIL(p, "an empty description");
	r = desc_finish(p, &b);
	if (r == 0)
		*ret = b.desc;
	return r;
}

static int parse_subsections(struct pull *p, struct vmdesc_desc *desc)
{
	const struct vmdesc_desc **link = &desc->subsections;
	bool first = true;
	int r = pull_enter(p, '[');

	while (r == 0 && (r = pull_more(p, &first, ']')) > 0) {
		struct vmdesc_desc *sub = NULL;

		r = parse_desc(p, &sub);
		if (r == 0 && sub->name_bytes == 0)
			r = PULL_FAIL(p, "a subsection without a name");
		if (r == 0)
			r = add(p, &desc->body_bytes, sub->body_bytes);
		if (r == 0)
			r = add(p, &desc->body_bytes, 2u + sub->name_bytes + 4u);
		if (r < 0)
			return r;
		*link = sub;
		link = &sub->next;
		desc->deep = true;
	}
	return r;
}

/* "uint32", "int64 equal", "int32 le": the width stands in the name. */
static bool integer_type(const char *type, uint64_t bytes, enum vmdesc_kind *ret)
{
	const char *at = type + (*type == 'u');
	static const char *const widths[] = { "8", "16", "32", "64" };

	if (strncmp(at, "int", 3))
		return false;
	at += 3;
	for (unsigned i = 0; i < 4; i++) {
		size_t n = strlen(widths[i]);

		if (strncmp(at, widths[i], n) || bytes != 1u << i)
			continue;
		if (at[n] && strcmp(at + n, " equal") && strcmp(at + n, " le"))
			continue;
		*ret = *type == 'u' ? VMDESC_UINT : VMDESC_INT;
		return true;
	}
	return false;
}

static enum vmdesc_kind kind_of(const char *type, uint64_t bytes)
{
	enum vmdesc_kind kind;

	if (!strcmp(type, "struct") || !strcmp(type, "vstruct") || !strcmp(type, "tmp"))
		return VMDESC_STRUCT;
	if (!strcmp(type, "bool") && bytes == 1)
		return VMDESC_BOOL;
	if (!strcmp(type, "timer") && bytes == 8)
		return VMDESC_TIMER;
	if (!strcmp(type, "unused_buffer"))
		return VMDESC_UNUSED;
	return integer_type(type, bytes, &kind) ? kind : VMDESC_OPAQUE;
}

static bool is_list(const char *type)
{
	return !strcmp(type, "qtailq") || !strcmp(type, "qlist") || !strcmp(type, "gtree");
}

struct field_build {
	struct vmdesc_field *f;
	struct desc_build inside; /* vstruct and tmp: members of the field's own object */
	struct vmdesc_desc *nested;
	unsigned seen;
};

static int field_string(struct pull *p, struct field_build *b, enum member m, const char **ret)
{
	struct pull_str s;
	int r;

	if (mark(&b->seen, m))
		return PULL_FAIL(p, "the same key twice in a field");
	r = pull_string(p, &s);
	if (r == 0)
		*ret = s.s;
	return r;
}

static int field_number(struct pull *p, struct field_build *b, enum member m, uint64_t *ret)
{
	if (mark(&b->seen, m))
		return PULL_FAIL(p, "the same key twice in a field");
	return pull_number(p, INT64_MAX, ret);
}

static int field_member(struct pull *p, struct field_build *b, const struct pull_str *k)
{
	int r;

	if (is(k, "name"))
		return field_string(p, b, M_NAME, &b->f->name);
	if (is(k, "type"))
		return field_string(p, b, M_TYPE, &b->f->type);
	if (is(k, "size"))
		return field_number(p, b, M_SIZE, &b->f->bytes);
	if (is(k, "array_len"))
		return field_number(p, b, M_ARRAY_LEN, &b->f->elements);
	if (is(k, "struct")) {
		if (mark(&b->seen, M_STRUCT))
			return PULL_FAIL(p, "the same key twice in a field");
		return parse_desc(p, &b->nested);
	}
	/* "index" is one of the unknown: it is wrong or missing in real streams (spec/stream.md 7.2). */
	r = desc_member(p, &b->inside, k);
	if (r == 0)
		r = pull_skip(p);
	return r < 0 ? r : 0;
}

static int field_nested(struct pull *p, struct field_build *b)
{
	struct vmdesc_field *f = b->f;
	struct vmdesc_desc *desc = b->nested;
	int r;

	if (is_list(f->type))
		return 0;
	if (b->inside.desc) {
		r = desc_finish(p, &b->inside);
		if (r < 0)
			return r;
		if (strcmp(f->type, "struct"))
			desc = b->inside.desc;
	}
	if (f->kind != VMDESC_STRUCT)
		return 0;
	if (!desc) {
		f->kind = VMDESC_OPAQUE;
		return 0;
	}
	if (desc->body_bytes != f->bytes)
		return PULL_FAIL(p, "field '%s' has size %llu, its structure adds up to %llu",
		                 TEXT_QUOTE(f->name, strlen(f->name)), (unsigned long long)f->bytes,
		                 (unsigned long long)desc->body_bytes);
	f->desc = desc;
	f->deep = desc->deep && f->elements > 0;
	return 0;
}

static int parse_field(struct pull *p, struct vmdesc_field **ret)
{
	const unsigned need = 1u << M_NAME | 1u << M_TYPE | 1u << M_SIZE;
	struct field_build b = { .f = pull_take(p, sizeof(*b.f)) };
	bool first = true;
	struct pull_str k;
	int r;

	if (!b.f)
		return pull_no_memory(p);
	b.f->elements = 1;
	r = pull_enter(p, '{');
	while (r == 0 && (r = pull_more(p, &first, '}')) > 0) {
		r = pull_key(p, &k);
		if (r == 0)
			r = field_member(p, &b, &k);
	}
	if (r < 0)
		return r;
	if ((b.seen & need) != need)
		return PULL_FAIL(p, "a field without name, type or size");
	b.f->kind = kind_of(b.f->type, b.f->bytes);
	r = field_nested(p, &b);
	if (r == 0)
		*ret = b.f;
	return r;
}

static int parse_fields(struct pull *p, struct vmdesc_desc *desc)
{
	const struct vmdesc_field **link = &desc->fields, **link_deep = &desc->fields_deep;
	bool first = true;
	int r = pull_enter(p, '[');

	while (r == 0 && (r = pull_more(p, &first, ']')) > 0) {
		struct vmdesc_field *f = NULL;
		uint64_t all;

		r = parse_field(p, &f);
		if (r < 0)
			return r;
		f->off = desc->fields_bytes;
		if (__builtin_mul_overflow(f->bytes, f->elements, &all))
			return PULL_FAIL(p, "field '%s': %llu elements of %llu bytes do not fit in 64 bits",
			                 TEXT_QUOTE(f->name, strlen(f->name)), (unsigned long long)f->elements,
			                 (unsigned long long)f->bytes);
		r = add(p, &desc->fields_bytes, all);
		*link = f;
		link = &f->next;
		if (f->deep) {
			*link_deep = f;
			link_deep = &f->next_deep;
			desc->deep = true;
		}
	}
	return r;
}

/* ---- devices ---- */

struct device_build {
	struct vmdesc_device device;
	struct desc_build inside;
	unsigned seen;
	uint64_t bytes; /* old style */
};

static int device_name(struct pull *p, struct vmdesc_device *device)
{
	struct pull_str s;
	int r = pull_string(p, &s);

	if (r < 0)
		return r;
	if (s.bytes < 1 || s.bytes > 255)
		return PULL_FAIL(p, "a device name of %zu bytes, 1 to 255 are possible", s.bytes);
	device->name = s.s;
	device->name_bytes = (uint8_t)s.bytes;
	return 0;
}

static int device_member(struct pull *p, struct device_build *b, const struct pull_str *k)
{
	uint64_t v = 0;
	int r;

	if (is(k, "name")) {
		if (mark(&b->seen, M_NAME))
			return PULL_FAIL(p, "the same key twice in a device");
		return device_name(p, &b->device);
	}
	if (is(k, "instance_id")) {
		if (mark(&b->seen, M_INSTANCE))
			return PULL_FAIL(p, "the same key twice in a device");
		r = pull_number(p, UINT32_MAX, &v);
		if (r == 0)
			b->device.instance_id = (uint32_t)v;
		return r;
	}
	if (is(k, "size")) {
		if (mark(&b->seen, M_SIZE))
			return PULL_FAIL(p, "the same key twice in a device");
		return pull_number(p, INT64_MAX, &b->bytes);
	}
	r = desc_member(p, &b->inside, k);
	if (r == 0)
		r = pull_skip(p);
	return r < 0 ? r : 0;
}

static int device_finish(struct pull *p, struct device_build *b)
{
	const unsigned need = 1u << M_NAME | 1u << M_INSTANCE;
	const struct vmdesc_desc *desc = b->inside.desc;
	int r;

	if ((b->seen & need) != need || !desc)
		return PULL_FAIL(p, "a device without name, instance_id or fields");
	/* Old style is a list of fields without a name and version of their own. */
	b->device.old_style = !(b->inside.seen & 1u << M_VMSD_NAME);
	if (b->device.old_style)
		b->inside.seen |= 1u << M_VMSD_NAME | 1u << M_VERSION;
	r = desc_finish(p, &b->inside);
	if (r < 0)
		return r;
	if ((b->seen & 1u << M_SIZE) && b->bytes != desc->body_bytes)
		return PULL_FAIL(p, "device '%s' has size %llu, its fields add up to %llu",
		                 TEXT_QUOTE(b->device.name, b->device.name_bytes), (unsigned long long)b->bytes,
		                 (unsigned long long)desc->body_bytes);
	b->device.desc = desc;
	return 0;
}

static int device_push(struct pull *p, struct vmdesc *d, const struct vmdesc_device *device, size_t text_off)
{
	if (d->device_count == VMDESC_DEVICES_MAX)
		return err_set(p->err, -E2BIG, "description: more than %d devices", VMDESC_DEVICES_MAX);
	if (d->device_count == d->device_room) {
		size_t room = d->device_room ? 2 * d->device_room : 64;
		struct device_entry *devices = reallocarray(d->devices, room, sizeof(*devices));

		if (!devices)
			return pull_no_memory(p);
		d->devices = devices;
		d->device_room = room;
	}
	d->devices[d->device_count++] = (struct device_entry){ *device, text_off, p->at - text_off };
	return 0;
}

static int parse_device(struct pull *p, struct vmdesc *d)
{
	struct device_build b = { 0 };
	bool first = true;
	size_t text_off;
	struct pull_str k;
	int r;

	pull_peek(p);
	text_off = p->at;
	r = pull_enter(p, '{');
	while (r == 0 && (r = pull_more(p, &first, '}')) > 0) {
		r = pull_key(p, &k);
		if (r == 0)
			r = device_member(p, &b, &k);
	}
	if (r == 0)
		r = device_finish(p, &b);
	return r < 0 ? r : device_push(p, d, &b.device, text_off);
}

static int parse_devices(struct pull *p, struct vmdesc *d)
{
	bool first = true;
	int r = pull_enter(p, '[');

	while (r == 0 && (r = pull_more(p, &first, ']')) > 0) {
		r = parse_device(p, d);
		if (r < 0)
			return err_up(p->err, r, "device %zu", d->device_count);
	}
	return r;
}

static int device_compare(const void *a, const void *b)
{
	const struct vmdesc_device *x = *(const struct vmdesc_device *const *)a;
	const struct vmdesc_device *y = *(const struct vmdesc_device *const *)b;
	int r = strcmp(x->name, y->name);

	return r ? r : (x->instance_id > y->instance_id) - (x->instance_id < y->instance_id);
}

/* By (4) of the header. */
static int check_devices_differ(struct pull *p, struct vmdesc *d)
{
	size_t count = d->device_count;
	const struct vmdesc_device **sorted = reallocarray(NULL, count + 1, sizeof(void *));
	int r = 0;

	if (!sorted)
		return pull_no_memory(p);
	for (size_t i = 0; i < count; i++)
		sorted[i] = &d->devices[i].device;
	qsort(sorted, count, sizeof(void *), device_compare);
	for (size_t i = 1; r == 0 && i < count; i++) {
		if (!device_compare(&sorted[i - 1], &sorted[i]))
			r = err_set(p->err, -EPROTO, "description: device '%s' instance %u occurs twice",
			            TEXT_QUOTE(sorted[i]->name, sorted[i]->name_bytes), sorted[i]->instance_id);
	}
	free(sorted);
	return r;
}

static int parse_top(struct pull *p, struct vmdesc *d)
{
	bool first = true, page_seen = false, devices_seen = false;
	struct pull_str k;
	int r = pull_enter(p, '{');

	while (r == 0 && (r = pull_more(p, &first, '}')) > 0) {
		bool *seen;

		r = pull_key(p, &k);
		if (r < 0)
			return r;
		seen = is(&k, "page_size") ? &page_seen : is(&k, "devices") ? &devices_seen : NULL;
		if (seen && *seen)
			return PULL_FAIL(p, "the key '%s' twice", k.s);
		if (seen)
			*seen = true;
		/* "configuration" is not a device and has no section: it is only skipped. */
		if (!seen)
			r = pull_skip(p);
		else if (seen == &page_seen)
			r = pull_number(p, UINT32_MAX, &d->tpage_bytes);
		else
			r = parse_devices(p, d);
	}
	if (r < 0)
		return r;
	if (!devices_seen)
		return PULL_FAIL(p, "no \"devices\"");
	if (pull_peek(p) != -1)
		return PULL_FAIL(p, "data behind the closing brace");
	return check_devices_differ(p, d);
}

static char *memdup(const void *p, size_t bytes)
{
	char *copy = malloc(bytes);

	return copy ? memcpy(copy, p, bytes) : NULL;
}

int vmdesc_parse(struct vmdesc **ret_desc, const void *json, size_t bytes, struct err *err)
{
	struct pull p = { .text = json, .bytes = bytes, .err = err };
	struct vmdesc *d;
	int r;

	if (bytes > VMDESC_BYTES_MAX)
		return err_set(err, -E2BIG, "description of %zu bytes, the limit is %u", bytes, VMDESC_BYTES_MAX);
	d = calloc(1, sizeof(*d));
	if (!d)
		return pull_no_memory(&p);
	r = parse_top(&p, d);
	d->chunks = p.chunks;
	/* Copied only now: split_tail_end tries many places, and most fail at once. */
	if (r == 0 && !(d->text = memdup(json, bytes)))
		r = pull_no_memory(&p);
	if (r < 0)
		vmdesc_free(d);
	else
		*ret_desc = d;
	return r;
}

void vmdesc_free(struct vmdesc *d)
{
	if (!d)
		return;
	pull_free(d->chunks);
	free(d->devices);
	free(d->text);
	free(d);
}

uint64_t vmdesc_tpage_bytes(const struct vmdesc *d)
{
	return d->tpage_bytes;
}

size_t vmdesc_device_count(const struct vmdesc *d)
{
	return d->device_count;
}

const struct vmdesc_device *vmdesc_device(const struct vmdesc *d, size_t k)
{
	return &d->devices[k].device;
}

const char *vmdesc_device_text(const struct vmdesc *d, size_t k, size_t *ret_bytes)
{
	*ret_bytes = d->devices[k].text_bytes;
	return d->text + d->devices[k].text_off;
}
