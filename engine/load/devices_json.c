#include "engine/load/devices_json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/be.h"
#include "base/err.h"
#include "base/text.h"
#include "engine/load/vmdesc.h"

#define VALUES_MAX_DEFAULT (1u << 20)

struct decoder {
	const uint8_t *buf;
	const struct devices_json_opts *opts;
	size_t values_left;
	bool too_many; /* tells "above the limit" from "no memory", both of which end as NULL */
};

/* @value is taken over, NULL included. Return: false when there was no memory. */
static bool put(json_t *object, const char *name, json_t *value)
{
	return value && json_object_set_new(object, name, value) == 0;
}

/* ---- one value ---- */

static json_t *hex_string(const uint8_t *p, size_t bytes)
{
	static const char digits[] = "0123456789abcdef";
	char *text;
	json_t *value;

	if (bytes > SIZE_MAX / 2)
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
static json_t *hex_object(const struct decoder *dec, const char *type, const uint8_t *p, size_t bytes)
{
	size_t max = dec->opts->hex_bytes_max;
	bool cut = max && bytes > max;
	json_t *object = json_object();
	bool ok = object != NULL;

	if (type)
		ok = ok && put(object, "type", json_string(type));
	ok = ok && put(object, "bytes", json_integer((json_int_t)bytes));
	ok = ok && put(object, "hex", hex_string(p, cut ? max : bytes));
	if (cut)
		ok = ok && put(object, "cut", json_true());
	if (ok)
		return object;
	json_decref(object);
	return NULL;
}

static json_t *hex_plain(const struct decoder *dec, const uint8_t *p, size_t bytes)
{
	size_t max = dec->opts->hex_bytes_max;

	return max && bytes > max ? hex_object(dec, NULL, p, bytes) : hex_string(p, bytes);
}

static json_t *unused(const struct decoder *dec, const uint8_t *p, size_t bytes)
{
	json_t *object = json_object();
	bool zero = true, ok = put(object, "unused", json_integer((json_int_t)bytes));

	for (size_t i = 0; zero && i < bytes; i++)
		zero = p[i] == 0;
	if (ok && !zero)
		ok = put(object, "hex", hex_plain(dec, p, bytes));
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

static json_t *unsigned_value(uint64_t v, const uint8_t *p)
{
	static const char prefix[] = "0x";
	char text[sizeof(prefix) + 16] = "0x";
	json_t *hex;

	if (v <= INT64_MAX)
		return json_integer((json_int_t)v);
	hex = hex_string(p, 8);
	if (!hex)
		return NULL;
	strcat(text, json_string_value(hex));
	json_decref(hex);
	return json_string(text);
}

static json_t *signed_value(uint64_t v, uint64_t bytes)
{
	unsigned shift = (unsigned)(64 - 8 * bytes);

	return json_integer((json_int_t)(v << shift) >> shift);
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

static bool spend(struct decoder *dec)
{
	if (dec->values_left == 0)
		dec->too_many = true;
	else
		dec->values_left--;
	return !dec->too_many;
}

/* One element of @f, whose f->bytes bytes are at @p. */
static json_t *decode_value(struct decoder *dec, const struct vmdesc_field *f, const uint8_t *p)
{
	if (!spend(dec))
		return NULL;
	switch (f->kind) {
	case VMDESC_BOOL:
		return *p > 1 ? json_integer(*p) : json_boolean(*p);
	case VMDESC_INT:
		return signed_value(load(p, f->bytes), f->bytes);
	case VMDESC_UINT:
		return unsigned_value(load(p, f->bytes), p);
	case VMDESC_TIMER:
		return load(p, 8) == UINT64_MAX ? json_null() : unsigned_value(load(p, 8), p);
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
 * Equal names are the elements of an array that the source did not compress, or its runs (spec/stream.md 7.2): they
 * become one list. A field's own value is never an array, so an array that is there already is such a list.
 */
static bool put_or_append(json_t *object, const char *name, json_t *value)
{
	json_t *old = json_object_get(object, name), *list;
	bool ok;

	if (!value || !old)
		return put(object, name, value);
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
	list = spend(dec) ? json_array() : NULL;
	for (uint64_t i = 0; list && i < f->elements; i++) {
		json_t *value = decode_value(dec, f, p + i * f->bytes);

		if (!value || json_array_append_new(list, value) < 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

static json_t *decode_subsections(struct decoder *dec, const struct vmdesc_desc *desc, const uint8_t *p)
{
	json_t *object = spend(dec) ? json_object() : NULL;

	for (const struct vmdesc_desc *s = desc->subsections; object && s; s = s->next) {
		p += 2 + s->name_bytes + 4;
		if (!put_or_append(object, s->name, spend(dec) ? decode_desc(dec, s, p) : NULL)) {
			json_decref(object);
			return NULL;
		}
		p += s->body_bytes;
	}
	return object;
}

/* Depth is that of the description, by PULL_DEPTH_MAX (pull.h). All bytes read are within desc->body_bytes from @p. */
static json_t *decode_desc(struct decoder *dec, const struct vmdesc_desc *desc, const uint8_t *p)
{
	json_t *object = json_object();
	bool ok = object != NULL;

	for (const struct vmdesc_field *f = desc->fields; ok && f; f = f->next)
		ok = put_or_append(object, f->name, decode_field(dec, f, p + f->off));
	if (ok && desc->subsections)
		ok = put_or_append(object, "subsections", decode_subsections(dec, desc, p + desc->fields_bytes));
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

/* "state", or "hex" with the reason where that cannot be. */
static bool put_state(json_t *object, struct decoder *dec, const struct split_section *s,
                      const struct vmdesc_desc *desc)
{
	const uint8_t *body = dec->buf + s->body_off;

	if (desc) {
		json_t *state = decode_desc(dec, desc, body);

		if (state)
			return put(object, "state", state);
		if (!dec->too_many || !put(object, "note", json_string("too many values")))
			return false;
	}
	return put(object, "hex", hex_plain(dec, body, s->body_bytes));
}

json_t *devices_json_device(const uint8_t *buf, size_t bytes, const struct split_section *section,
                            const struct vmdesc *d, uint64_t offset, const struct devices_json_opts *opts,
                            struct err *err)
{
	struct decoder dec = { .buf = buf, .opts = opts, .values_left = opts->values_max };
	const struct vmdesc_desc *desc = NULL;
	json_t *object;

	if (dec.values_left == 0)
		dec.values_left = VALUES_MAX_DEFAULT;
	if (d && section->device >= 0 && (size_t)section->device < vmdesc_device_count(d))
		desc = vmdesc_device(d, (size_t)section->device)->desc;
	if (!section_fits(section, bytes) || (desc && desc->body_bytes != section->body_bytes)) {
		err_set(err, -EINVAL, "section at 0x%zx is not of this buffer or description", section->off);
		return NULL;
	}
	object = json_object();
	if (object && put(object, "name", name_value(buf, section)) &&
	    put(object, "instance_id", json_integer(section->instance_id)) &&
	    put(object, "version_id", json_integer(section->version_id)) &&
	    put(object, "offset", json_integer((json_int_t)offset)) &&
	    put(object, "bytes", json_integer((json_int_t)section->body_bytes)) &&
	    put(object, "split", json_string(desc ? "description" : "footers")) &&
	    put_state(object, &dec, section, desc))
		return object;
	json_decref(object);
	err_set(err, -ENOMEM, "no memory for the JSON of a device with %zu bytes", section->body_bytes);
	return NULL;
}

json_t *devices_json_new(enum split_way way, uint64_t tpage_bytes)
{
	json_t *doc = json_object();

	if (doc && put(doc, "split", json_string(way == SPLIT_BY_DESCRIPTION ? "description" : "footers")) &&
	    (tpage_bytes == 0 || put(doc, "page_size", json_integer((json_int_t)tpage_bytes))) &&
	    put(doc, "devices", json_array()))
		return doc;
	json_decref(doc);
	return NULL;
}

int devices_json_add(json_t *doc, const uint8_t *buf, size_t bytes, const struct split_result *r,
                     const struct vmdesc *d, uint64_t stream_off, const struct devices_json_opts *opts, struct err *err)
{
	json_t *devices = json_object_get(doc, "devices");

	if (!json_is_array(devices))
		return err_set(err, -EINVAL, "a document without a list of devices");
	for (size_t i = 0; i < r->section_count; i++) {
		const struct split_section *s = &r->sections[i];
		json_t *device = devices_json_device(buf, bytes, s, d, stream_off + s->off, opts, err);

		if (!device)
			return err->code;
		if (json_array_append_new(devices, device) < 0)
			return err_set(err, -ENOMEM, "no memory for the JSON of device %zu", i);
	}
	return 0;
}
