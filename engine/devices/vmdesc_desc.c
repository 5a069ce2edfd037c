/* One description: its fields and subsections, with sizes that add up. Source: doc/wire/stream.md 7.2, 7.3 */
#include "engine/devices/vmdesc_parts.h"

#include "base/err.h"
#include "base/text.h"

static int parse_fields(struct json_pull *p, struct vmdesc_desc *desc);
static int parse_subsections(struct json_pull *p, struct vmdesc_desc *desc);

static int desc_name(struct json_pull *p, struct vmdesc_desc *desc)
{
	struct json_pull_str s;
	int r = json_pull_string(p, &s);

	if (r < 0)
		return r;
	if (s.bytes > 255)
		return JSON_PULL_FAIL(p, "vmsd_name of %zu bytes, 255 are possible", s.bytes);
	desc->name = s.s;
	desc->name_bytes = (uint8_t)s.bytes;
	return 0;
}

static int desc_version(struct json_pull *p, struct vmdesc_desc *desc)
{
	uint64_t v = 0;
	int r = json_pull_number(p, UINT32_MAX, &v);

	if (r == 0)
		desc->version = (uint32_t)v;
	return r;
}

int vmdesc_desc_member(struct json_pull *p, struct vmdesc_build *b, const struct json_pull_str *k)
{
	static const struct {
		const char *word;
		enum vmdesc_member m;
		int (*parse)(struct json_pull *p, struct vmdesc_desc *desc);
	} members[] = {
		{ "vmsd_name", M_VMSD_NAME, desc_name },
		{ "version", M_VERSION, desc_version },
		{ "fields", M_FIELDS, parse_fields },
		{ "subsections", M_SUBSECTIONS, parse_subsections },
	};

	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
		int r;

		if (!vmdesc_is(k, members[i].word))
			continue;
		if (!b->desc) {
			b->desc = json_pull_take(p, sizeof(*b->desc));
			if (!b->desc)
				return json_pull_no_memory(p);
			b->desc->name = "";
		}
		if (vmdesc_mark(&b->seen, members[i].m)) {
			/* Only lists may say it twice, and what they say is not used. Keep the first. */
			b->twice = true;
			r = json_pull_skip(p);
		} else {
			r = members[i].parse(p, b->desc);
		}
		return r < 0 ? r : 1;
	}
	return 0;
}

static int add(struct json_pull *p, uint64_t *sum, uint64_t v)
{
	/* Kept below 2^63 so that a few of them still add up without wrapping. */
	if (__builtin_add_overflow(*sum, v, sum) || *sum > INT64_MAX)
		return JSON_PULL_FAIL(p, "sizes that do not fit in 63 bits");
	return 0;
}

/* Subsections are summed where they were read. */
int vmdesc_desc_finish(struct json_pull *p, const struct vmdesc_build *b)
{
	const unsigned need = 1u << M_VMSD_NAME | 1u << M_VERSION | 1u << M_FIELDS;

	if (b->twice)
		return JSON_PULL_FAIL(p, "the same key twice in '%s'",
		                      TEXT_QUOTE(b->desc->name, strlen(b->desc->name)));
	if ((b->seen & need) != need)
		return JSON_PULL_FAIL(p, "vmsd_name, version or fields missing");
	return add(p, &b->desc->body_bytes, b->desc->fields_bytes);
}

/* @ret stays as it is where there is nothing between the braces. */
static int parse_desc(struct json_pull *p, struct vmdesc_desc **ret)
{
	struct vmdesc_build b = { 0 };
	bool first = true;
	struct json_pull_str k;
	int r = json_pull_enter(p, '{');

	while (r == 0 && (r = json_pull_more(p, &first, '}')) > 0) {
		r = json_pull_key(p, &k);
		if (r == 0)
			r = vmdesc_desc_member(p, &b, &k);
		if (r == 0)
			r = json_pull_skip(p);
		r = r < 0 ? r : 0;
	}
	if (r < 0)
		return r;
	if (!b.desc)
		return 0;
	r = vmdesc_desc_finish(p, &b);
	if (r == 0)
		*ret = b.desc;
	return r;
}

static int parse_subsections(struct json_pull *p, struct vmdesc_desc *desc)
{
	const struct vmdesc_desc **link = &desc->subsections;
	bool first = true;
	int r = json_pull_enter(p, '[');

	while (r == 0 && (r = json_pull_more(p, &first, ']')) > 0) {
		struct vmdesc_desc *sub = NULL;

		r = parse_desc(p, &sub);
		if (r == 0 && !sub)
			r = JSON_PULL_FAIL(p, "an empty description");
		if (r == 0 && sub->name_bytes == 0)
			r = JSON_PULL_FAIL(p, "a subsection without a name");
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
	struct vmdesc_build inside; /* vstruct and tmp: members of the field's own object */
	struct vmdesc_desc *nested;
	unsigned seen;
};

static int field_string(struct json_pull *p, struct field_build *b, enum vmdesc_member m, const char **ret)
{
	struct json_pull_str s;
	int r;

	if (vmdesc_mark(&b->seen, m))
		return JSON_PULL_FAIL(p, "the same key twice in a field");
	r = json_pull_string(p, &s);
	if (r == 0)
		*ret = s.s;
	return r;
}

static int field_number(struct json_pull *p, struct field_build *b, enum vmdesc_member m, uint64_t *ret)
{
	if (vmdesc_mark(&b->seen, m))
		return JSON_PULL_FAIL(p, "the same key twice in a field");
	return json_pull_number(p, INT64_MAX, ret);
}

static int field_member(struct json_pull *p, struct field_build *b, const struct json_pull_str *k)
{
	int r;

	if (vmdesc_is(k, "name"))
		return field_string(p, b, M_NAME, &b->f->name);
	if (vmdesc_is(k, "type"))
		return field_string(p, b, M_TYPE, &b->f->type);
	if (vmdesc_is(k, "size"))
		return field_number(p, b, M_SIZE, &b->f->bytes);
	if (vmdesc_is(k, "array_len"))
		return field_number(p, b, M_ARRAY_LEN, &b->f->elements);
	if (vmdesc_is(k, "struct")) {
		if (vmdesc_mark(&b->seen, M_STRUCT))
			return JSON_PULL_FAIL(p, "the same key twice in a field");
		return parse_desc(p, &b->nested);
	}
	/* "index" is one of the unknown: it is wrong or missing in real streams (doc/wire/stream.md 7.2). */
	r = vmdesc_desc_member(p, &b->inside, k);
	if (r == 0)
		r = json_pull_skip(p);
	return r < 0 ? r : 0;
}

static int field_nested(struct json_pull *p, struct field_build *b)
{
	struct vmdesc_field *f = b->f;
	struct vmdesc_desc *desc = b->nested;
	int r;

	if (is_list(f->type))
		return 0;
	if (b->inside.desc) {
		r = vmdesc_desc_finish(p, &b->inside);
		if (r < 0)
			return r;
		if (strcmp(f->type, "struct"))
			desc = b->inside.desc;
	}
	if (f->kind != VMDESC_STRUCT)
		return 0;
	/* `"struct": {}` is an array of pointers of which each is NULL: a byte each (s390's channel subsystem). */
	if (!desc && b->seen & 1u << M_STRUCT && f->bytes == 0)
		return JSON_PULL_FAIL(p, "an empty description");
	if (!desc) {
		f->kind = VMDESC_OPAQUE;
		return 0;
	}
	if (desc->body_bytes != f->bytes)
		return JSON_PULL_FAIL(p, "field '%s' has size %llu, its structure adds up to %llu",
		                      TEXT_QUOTE(f->name, strlen(f->name)), (unsigned long long)f->bytes,
		                      (unsigned long long)desc->body_bytes);
	f->desc = desc;
	f->deep = desc->deep && f->elements > 0;
	return 0;
}

static int parse_field(struct json_pull *p, struct vmdesc_field **ret)
{
	const unsigned need = 1u << M_NAME | 1u << M_TYPE | 1u << M_SIZE;
	struct field_build b = { .f = json_pull_take(p, sizeof(*b.f)) };
	bool first = true;
	struct json_pull_str k;
	int r;

	if (!b.f)
		return json_pull_no_memory(p);
	b.f->elements = 1;
	r = json_pull_enter(p, '{');
	while (r == 0 && (r = json_pull_more(p, &first, '}')) > 0) {
		r = json_pull_key(p, &k);
		if (r == 0)
			r = field_member(p, &b, &k);
	}
	if (r < 0)
		return r;
	if ((b.seen & need) != need)
		return JSON_PULL_FAIL(p, "a field without name, type or size");
	b.f->kind = kind_of(b.f->type, b.f->bytes);
	r = field_nested(p, &b);
	if (r == 0)
		*ret = b.f;
	return r;
}

static int parse_fields(struct json_pull *p, struct vmdesc_desc *desc)
{
	const struct vmdesc_field **link = &desc->fields, **link_deep = &desc->fields_deep;
	bool first = true;
	int r = json_pull_enter(p, '[');

	while (r == 0 && (r = json_pull_more(p, &first, ']')) > 0) {
		struct vmdesc_field *f = NULL;
		uint64_t all;

		r = parse_field(p, &f);
		if (r < 0)
			return r;
		f->off = desc->fields_bytes;
		if (__builtin_mul_overflow(f->bytes, f->elements, &all))
			return JSON_PULL_FAIL(p, "field '%s': %llu elements of %llu bytes do not fit in 64 bits",
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
