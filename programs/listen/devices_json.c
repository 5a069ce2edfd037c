#include "programs/listen/devices_json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/text.h"
#include "engine/devices/vmdesc.h"

/* What jansson takes for each, with what malloc adds, and what its text has beside the value (measured: 2.14). */
#define OBJECT_COST 320u
#define ARRAY_COST 160u
#define MEMBER_COST 128u /* and the name */
#define ELEMENT_COST 16u
#define STRING_COST 64u /* and the text */
#define NUMBER_COST 32u
/* The six members that each device has, and its note. */
#define FRAME_COST (OBJECT_COST + 6 * 200 + MEMBER_COST + STRING_COST)
/* The rest of a document's bytes is for the frames and the hex of those that cannot be shown in full. */
#define STATES_BYTES_MAX (DEVICES_JSON_BYTES_MAX / 4 * 3)

struct decoder {
	const uint8_t *buf;
	const struct devices_json_opts *opts;
	struct devices_json_budget *budget;
	uint64_t limit_bytes; /* of budget->spent_bytes, for what is being shown now */
	unsigned depth;
	bool too_much; /* tells "above the limit" from "no memory", both of which end as NULL */
};

/* Before it is made: so what is held never exceeds what is spent. */
static bool spend(struct decoder *dec, uint64_t bytes)
{
	bytes += 2 * dec->depth; /* the indentation of its line */
	if (dec->too_much || dec->budget->spent_bytes > dec->limit_bytes ||
	    bytes > dec->limit_bytes - dec->budget->spent_bytes)
		dec->too_much = true;
	else
		dec->budget->spent_bytes += bytes;
	return !dec->too_much;
}

/* Members of a device's frame, which is paid for as a whole. @value is taken over, NULL included. */
static bool put(json_t *object, const char *name, json_t *value)
{
	return value && json_object_set_new(object, name, value) == 0;
}

/* @value is taken over, NULL included. Return: false when it was NULL, and when there is no memory or nothing left. */
static bool add(struct decoder *dec, json_t *object, const char *name, json_t *value)
{
	if (value && spend(dec, MEMBER_COST + strlen(name)))
		return put(object, name, value);
	json_decref(value);
	return false;
}

static json_t *new_object(struct decoder *dec)
{
	return spend(dec, OBJECT_COST) ? json_object() : NULL;
}

static json_t *new_array(struct decoder *dec)
{
	return spend(dec, ARRAY_COST) ? json_array() : NULL;
}

static json_t *new_number(struct decoder *dec, json_int_t v)
{
	return spend(dec, NUMBER_COST) ? json_integer(v) : NULL;
}

static json_t *new_string(struct decoder *dec, const char *text)
{
	return spend(dec, STRING_COST + strlen(text)) ? json_string(text) : NULL;
}

/* ---- one value ---- */

static json_t *hex_string(struct decoder *dec, const uint8_t *p, size_t bytes)
{
	static const char digits[] = "0123456789abcdef";
	char *text;
	json_t *value;

	/* Twice: the text is made, and copied. */
	if (bytes > SIZE_MAX / 8 || !spend(dec, STRING_COST + 4 * (uint64_t)bytes))
		return NULL;
	text = malloc(2 * bytes + 1);
	if (!text)
		return NULL;
	for (size_t i = 0; i < bytes; i++) {
		text[2 * i] = digits[p[i] >> 4];
		text[2 * i + 1] = digits[p[i] & 15];
	}
	value = json_stringn_nocheck(text, 2 * bytes);
	free(text);
	return value;
}

/* The object for bytes that are not shown as a plain string; NULL without memory. */
static json_t *hex_object(struct decoder *dec, const char *type, const uint8_t *p, size_t bytes)
{
	size_t max = dec->opts->hex_bytes_max;
	bool cut = max && bytes > max;
	json_t *object = new_object(dec);
	bool ok = object != NULL;

	if (type)
		ok = ok && add(dec, object, "type", new_string(dec, type));
	ok = ok && add(dec, object, "bytes", new_number(dec, (json_int_t)bytes));
	ok = ok && add(dec, object, "hex", hex_string(dec, p, cut ? max : bytes));
	if (cut)
		ok = ok && add(dec, object, "cut", json_true());
	if (ok)
		return object;
	json_decref(object);
	return NULL;
}

static json_t *hex_plain(struct decoder *dec, const uint8_t *p, size_t bytes)
{
	size_t max = dec->opts->hex_bytes_max;

	return max && bytes > max ? hex_object(dec, NULL, p, bytes) : hex_string(dec, p, bytes);
}

static json_t *unused(struct decoder *dec, const uint8_t *p, size_t bytes)
{
	json_t *object = new_object(dec);
	bool zero = true, ok = object && add(dec, object, "unused", new_number(dec, (json_int_t)bytes));

	for (size_t i = 0; zero && i < bytes; i++)
		zero = p[i] == 0;
	if (ok && !zero)
		ok = add(dec, object, "hex", hex_plain(dec, p, bytes));
	if (ok)
		return object;
	json_decref(object);
	return NULL;
}

static uint64_t load(const uint8_t *p, uint64_t bytes)
{
	uint64_t v = 0;

	for (uint64_t i = 0; i < bytes; i++)
		v = v << 8 | p[i];
	return v;
}

static json_t *unsigned_value(struct decoder *dec, uint64_t v)
{
	char text[2 + 16 + 1];

	if (v <= INT64_MAX)
		return new_number(dec, (json_int_t)v);
	snprintf(text, sizeof(text), "0x%016" PRIx64, v);
	return new_string(dec, text);
}

static json_t *signed_value(struct decoder *dec, uint64_t v, uint64_t bytes)
{
	unsigned shift = (unsigned)(64 - 8 * bytes);

	return new_number(dec, (json_int_t)(v << shift) >> shift);
}

/* Types that are bytes by nature; others without a meaning here are shown with their type. */
static bool is_plain(const char *type)
{
	static const char *const plain[] = { "buffer", "bitmap", "CPU_Double_U", "nullptr" };

	for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++) {
		if (!strcmp(type, plain[i]))
			return true;
	}
	return false;
}

static json_t *decode_desc(struct decoder *dec, const struct vmdesc_desc *desc, const uint8_t *p);

/* One element of @f, whose f->bytes bytes are at @p. */
static json_t *decode_value(struct decoder *dec, const struct vmdesc_field *f, const uint8_t *p)
{
	switch (f->kind) {
	case VMDESC_BOOL:
		return *p > 1 ? new_number(dec, *p) : json_boolean(*p);
	case VMDESC_INT:
		return signed_value(dec, load(p, f->bytes), f->bytes);
	case VMDESC_UINT:
		return unsigned_value(dec, load(p, f->bytes));
	case VMDESC_TIMER:
		return load(p, 8) == UINT64_MAX ? json_null() : unsigned_value(dec, load(p, 8));
	case VMDESC_UNUSED:
		return unused(dec, p, f->bytes);
	case VMDESC_STRUCT:
		return decode_desc(dec, f->desc, p);
	case VMDESC_OPAQUE:
		break;
	}
	return is_plain(f->type) ? hex_plain(dec, p, f->bytes) : hex_object(dec, f->type, p, f->bytes);
}

/* ---- structures ---- */

/*
 * Equal names are the elements of an array that the source did not compress, or its runs (doc/wire/stream.md 7.2): they
 * become one list. A field's own value is never an array, so an array that is there already is such a list.
 */
static bool add_or_append(struct decoder *dec, json_t *object, const char *name, json_t *value)
{
	json_t *old = json_object_get(object, name), *list;
	bool ok;

	if (!value || !old)
		return add(dec, object, name, value);
	if (!spend(dec, ARRAY_COST + ELEMENT_COST * (1 + json_array_size(value)))) {
		json_decref(value);
		return false;
	}
	if (json_is_array(old)) {
		ok = (json_is_array(value) ? json_array_extend(old, value) : json_array_append(old, value)) == 0;
		json_decref(value);
		return ok;
	}
	list = json_array();
	ok = list && json_array_append(list, old) == 0 &&
	     (json_is_array(value) ? json_array_extend(list, value) : json_array_append(list, value)) == 0;
	json_decref(value);
	if (ok)
		return put(object, name, list);
	json_decref(list);
	return false;
}

static json_t *decode_field(struct decoder *dec, const struct vmdesc_field *f, const uint8_t *p)
{
	json_t *list;

	if (f->elements == 1)
		return decode_value(dec, f, p);
	list = new_array(dec);
	dec->depth++;
	for (uint64_t i = 0; list && i < f->elements; i++) {
		json_t *value = spend(dec, ELEMENT_COST) ? decode_value(dec, f, p + i * f->bytes) : NULL;

		if (!value || json_array_append_new(list, value) < 0) {
			json_decref(list);
			list = NULL;
		}
	}
	dec->depth--;
	return list;
}

static json_t *decode_subsections(struct decoder *dec, const struct vmdesc_desc *desc, const uint8_t *p)
{
	json_t *object = new_object(dec);

	dec->depth++;
	for (const struct vmdesc_desc *s = desc->subsections; object && s; s = s->next) {
		p += 2 + s->name_bytes + 4;
		if (!add_or_append(dec, object, s->name, decode_desc(dec, s, p))) {
			json_decref(object);
			object = NULL;
		}
		p += s->body_bytes;
	}
	dec->depth--;
	return object;
}

/* Depth is that of the description, by JSON_PULL_DEPTH_MAX. All bytes read are within desc->body_bytes from @p. */
static json_t *decode_desc(struct decoder *dec, const struct vmdesc_desc *desc, const uint8_t *p)
{
	json_t *object = new_object(dec);
	bool ok = object != NULL;

	dec->depth++;
	for (const struct vmdesc_field *f = desc->fields; ok && f; f = f->next)
		ok = add_or_append(dec, object, f->name, decode_field(dec, f, p + f->off));
	if (ok && desc->subsections)
		ok = add_or_append(dec, object, "subsections", decode_subsections(dec, desc, p + desc->fields_bytes));
	dec->depth--;
	if (ok)
		return object;
	json_decref(object);
	return NULL;
}

/* ---- devices ---- */

static json_t *name_value(const uint8_t *buf, const struct split_section *s)
{
	json_t *value = json_stringn((const char *)buf + s->name_off, s->name_bytes);

	/* Not UTF-8: only possible without a description, whose strings are. */
	return value ? value : json_string(TEXT_QUOTE(buf + s->name_off, s->name_bytes));
}

static bool section_fits(const struct split_section *s, size_t bytes)
{
	return s->body_off <= bytes && s->body_bytes <= bytes - s->body_off && s->name_off <= bytes &&
	       s->name_bytes <= bytes - s->name_off;
}

/* What a state takes as hex, at most: kept back while it is tried to show it in full. */
static uint64_t hex_cost(const struct devices_json_opts *opts, size_t bytes)
{
	size_t shown = opts->hex_bytes_max && bytes > opts->hex_bytes_max ? opts->hex_bytes_max : bytes;

	return OBJECT_COST + 4 * (MEMBER_COST + STRING_COST) + 4 * (uint64_t)shown;
}

/* "state", or "hex" with the reason where that cannot be; the reason alone where not even hex can. */
static bool put_state(json_t *object, struct decoder *dec, const struct split_section *s,
                      const struct vmdesc_desc *desc)
{
	const uint8_t *body = dec->buf + s->body_off;
	uint64_t hex_bytes = hex_cost(dec->opts, s->body_bytes), limit_bytes = dec->limit_bytes;
	const char *note = NULL;
	json_t *value = NULL;

	if (desc) {
		dec->limit_bytes = limit_bytes > hex_bytes ? limit_bytes - hex_bytes : 0;
		if (dec->limit_bytes > STATES_BYTES_MAX)
			dec->limit_bytes = STATES_BYTES_MAX;
		value = decode_desc(dec, desc, body);
		dec->limit_bytes = limit_bytes;
		if (value)
			return put(object, "state", value);
		if (!dec->too_much)
			return false;
		dec->too_much = false;
		note = "too many values for so few bytes";
	}
	value = hex_plain(dec, body, s->body_bytes);
	if (!value && !dec->too_much)
		return false;
	if (!value)
		note = "too long to be shown";
	return (!note || put(object, "note", json_string(note))) && (!value || put(object, "hex", value));
}

/* What this device adds to what may be shown. */
static void earn(struct devices_json_budget *budget, const struct split_section *s, const struct vmdesc *d)
{
	size_t bytes = 0;

	if (d && s->device >= 0)
		vmdesc_device_text(d, (size_t)s->device, &bytes);
	/* Kept far from where it could wrap. */
	if (budget->earned_bytes < DEVICES_JSON_BYTES_MAX)
		budget->earned_bytes += DEVICES_JSON_MULTIPLE * (20 + (uint64_t)s->name_bytes + s->body_bytes + bytes);
}

/* Parks: no. The section is of the buffer, and of the description. */
static json_t *show_device(struct decoder *dec, const struct split_section *section, const struct vmdesc_desc *desc,
                           uint64_t offset, struct err *err)
{
	json_t *object = NULL;

	if (!spend(dec, FRAME_COST + 6 * (uint64_t)section->name_bytes)) {
		err_set(err, -E2BIG, "more than %u bytes of JSON", DEVICES_JSON_BYTES_MAX);
		return NULL;
	}
	dec->depth = 3;
	object = json_object();
	if (object && put(object, "name", name_value(dec->buf, section)) &&
	    put(object, "instance_id", json_integer(section->instance_id)) &&
	    put(object, "version_id", json_integer(section->version_id)) &&
	    put(object, "offset", json_integer((json_int_t)offset)) &&
	    put(object, "bytes", json_integer((json_int_t)section->body_bytes)) &&
	    put(object, "split", json_string(desc ? "description" : "footers")) &&
	    put_state(object, dec, section, desc))
		return object;
	json_decref(object);
	err_set(err, -ENOMEM, "no memory for the JSON of a device with %zu bytes", section->body_bytes);
	return NULL;
}

json_t *devices_json_device(const uint8_t *buf, size_t bytes, const struct split_section *section,
                            const struct vmdesc *d, uint64_t offset, const struct devices_json_opts *opts,
                            struct err *err)
{
	struct devices_json_budget own = { 0 };
	struct decoder dec = { .buf = buf, .opts = opts, .budget = opts->budget ? opts->budget : &own };
	const struct vmdesc_desc *desc = NULL;

	if (d && section->device >= 0 && (size_t)section->device < vmdesc_device_count(d))
		desc = vmdesc_device(d, (size_t)section->device)->desc;
	if (!section_fits(section, bytes) || (desc && desc->body_bytes != section->body_bytes)) {
		err_set(err, -EINVAL, "section at 0x%zx is not of this buffer or description", section->off);
		return NULL;
	}
	earn(dec.budget, section, desc ? d : NULL);
	dec.limit_bytes =
	        dec.budget->earned_bytes < DEVICES_JSON_BYTES_MAX ? dec.budget->earned_bytes : DEVICES_JSON_BYTES_MAX;
	return show_device(&dec, section, desc, offset, err);
}

json_t *devices_json_new(enum split_way way)
{
	json_t *doc = json_object();

	if (doc && put(doc, "split", json_string(way == SPLIT_BY_DESCRIPTION ? "description" : "footers")) &&
	    put(doc, "devices", json_array()))
		return doc;
	json_decref(doc);
	return NULL;
}

int devices_json_skip(json_t *doc)
{
	json_int_t count = json_integer_value(json_object_get(doc, "not_shown"));

	return put(doc, "not_shown", json_integer(count + 1)) ? 0 : -ENOMEM;
}
