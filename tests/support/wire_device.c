/* Devices, field by field, and the description that the stream ends with (doc/wire/stream.md 7). */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "tests/support/wire.h"

__attribute__((format(printf, 2, 3))) static void json(struct wire *w, const char *fmt, ...)
{
	char text[1024];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	ASSERT(n >= 0 && (size_t)n < sizeof(text));
	w->json = wire_grow(w->json, &w->json_cap, w->json_len, (size_t)n + 1, 1);
	memcpy(w->json + w->json_len, text, (size_t)n + 1);
	w->json_len += (size_t)n;
}

static size_t vmsd_bytes(const struct wire_vmsd *desc);

static size_t field_bytes(const struct wire_field *f)
{
	switch (f->kind) {
	case WIRE_U8:
		return 1;
	case WIRE_U16:
		return 2;
	case WIRE_U32:
		return 4;
	case WIRE_U64:
		return 8;
	case WIRE_BUFFER:
		return f->bytes;
	case WIRE_STRUCT:
		return vmsd_bytes(f->desc);
	}
	abort();
}

/* 7.3: the formula that a reader of the description uses. */
static size_t vmsd_bytes(const struct wire_vmsd *desc)
{
	size_t bytes = 0;

	for (size_t i = 0; i < desc->field_count; i++)
		bytes += field_bytes(&desc->fields[i]) * (desc->fields[i].array ? desc->fields[i].array : 1);
	for (size_t i = 0; i < desc->subsection_count; i++)
		bytes += 2 + strlen(desc->subsections[i].name) + 4 + vmsd_bytes(&desc->subsections[i]);
	return bytes;
}

static void put_vmsd(struct wire *w, const struct wire_vmsd *desc);

static void put_field(struct wire *w, const struct wire_field *f, uint64_t value)
{
	switch (f->kind) {
	case WIRE_U8:
		wire_u8(w, (uint8_t)value);
		break;
	case WIRE_U16:
		wire_be16(w, (uint16_t)value);
		break;
	case WIRE_U32:
		wire_be32(w, (uint32_t)value);
		break;
	case WIRE_U64:
		wire_be64(w, value);
		break;
	case WIRE_BUFFER:
		if (f->data)
			wire_bytes(w, f->data, f->bytes);
		else
			wire_fill(w, (uint8_t)value, f->bytes);
		break;
	case WIRE_STRUCT:
		put_vmsd(w, f->desc);
		break;
	}
}

static void put_vmsd(struct wire *w, const struct wire_vmsd *desc)
{
	for (size_t i = 0; i < desc->field_count; i++)
		for (uint32_t k = 0; k < (desc->fields[i].array ? desc->fields[i].array : 1); k++)
			put_field(w, &desc->fields[i], desc->fields[i].value + k);
	for (size_t i = 0; i < desc->subsection_count; i++) {
		wire_subsection(w, desc->subsections[i].name, desc->subsections[i].version);
		put_vmsd(w, &desc->subsections[i]);
	}
}

static void json_vmsd(struct wire *w, const struct wire_vmsd *desc);

static void json_field(struct wire *w, const struct wire_field *f)
{
	static const char *const types[] = { "uint8", "uint16", "uint32", "uint64", "buffer", "struct" };

	json(w, "{\"name\": \"%s\", ", f->name);
	if (f->array > 1) /* one element looks like a scalar (doc/wire/stream.md 7.2) */
		json(w, "\"array_len\": %" PRIu32 ", ", f->array);
	json(w, "\"type\": \"%s\", ", types[f->kind]);
	if (f->kind == WIRE_STRUCT) {
		json(w, "\"struct\": {");
		json_vmsd(w, f->desc);
		json(w, "}, ");
	}
	json(w, "\"size\": %zu}", field_bytes(f));
}

/* The members of desc, without the braces: in a device they stand beside its name. */
static void json_vmsd(struct wire *w, const struct wire_vmsd *desc)
{
	json(w, "\"vmsd_name\": \"%s\", \"version\": %" PRIu32 ", \"fields\": [", desc->name, desc->version);
	for (size_t i = 0; i < desc->field_count; i++) {
		json(w, "%s", i ? ", " : "");
		json_field(w, &desc->fields[i]);
	}
	json(w, "]");
	if (!desc->subsection_count)
		return;
	json(w, ", \"subsections\": [");
	for (size_t i = 0; i < desc->subsection_count; i++) {
		json(w, "%s{", i ? ", " : "");
		json_vmsd(w, &desc->subsections[i]);
		json(w, "}");
	}
	json(w, "]");
}

static void json_device(struct wire *w, const struct wire_device *dev)
{
	json(w, "%s{\"name\": \"%s\", \"instance_id\": %" PRIu32 ", ", w->json_len ? ", " : "", dev->name,
	     dev->instance_id);
	if (dev->desc)
		json_vmsd(w, dev->desc);
	else
		json(w, "\"size\": %zu, \"fields\": [{\"name\": \"data\", \"size\": %zu, \"type\": \"buffer\"}]",
		     dev->bytes, dev->bytes);
	json(w, "}");
}

void wire_device(struct wire *w, uint32_t section_id, const struct wire_device *dev)
{
	struct wire_body *body;

	wire_section(w, WIRE_FULL, section_id, dev->name, dev->instance_id, dev->version_id);
	w->bodies = wire_grow(w->bodies, &w->body_cap, w->body_count, 1, sizeof(*w->bodies));
	body = &w->bodies[w->body_count++];
	*body = (struct wire_body){ .instance_id = dev->instance_id, .version_id = dev->version_id, .off = w->len };
	snprintf(body->name, sizeof(body->name), "%s", dev->name);
	wire_mark(w, "body");
	if (dev->desc)
		put_vmsd(w, dev->desc);
	else
		wire_bytes(w, dev->data, dev->bytes);
	body->bytes = w->len - body->off;
	wire_footer(w, section_id);
	json_device(w, dev);
}

void wire_globalstate(struct wire *w, uint32_t section_id, const char *run_state)
{
	uint8_t name[100] = { 0 };
	const struct wire_field fields[] = {
		{ .name = "size", .kind = WIRE_U32, .value = strlen(run_state) + 1 },
		{ .name = "runstate", .kind = WIRE_BUFFER, .bytes = sizeof(name), .data = name },
	};
	const struct wire_vmsd desc = { .name = "globalstate", .version = 1, .fields = fields, .field_count = 2 };

	memcpy(name, run_state, strnlen(run_state, sizeof(name)));
	wire_device(w, section_id, &(struct wire_device){ .name = "globalstate", .version_id = 1, .desc = &desc });
}

void wire_vmdesc_n(struct wire *w, uint32_t len, const void *text, size_t bytes)
{
	wire_mark(w, "vmdesc");
	wire_u8(w, WIRE_VMDESC);
	wire_be32(w, len);
	wire_bytes(w, text, bytes);
}

void wire_vmdesc(struct wire *w)
{
	static const char head[] = "{\"page_size\": 4096, \"devices\": [", tail[] = "]}";

	wire_vmdesc_n(w, (uint32_t)(sizeof(head) - 1 + w->json_len + sizeof(tail) - 1), head, sizeof(head) - 1);
	wire_bytes(w, w->json, w->json_len);
	wire_bytes(w, tail, sizeof(tail) - 1);
}
