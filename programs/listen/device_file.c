#include "programs/listen/device_file.h"

#include "base/err.h"
#include "engine/devices/vmdesc.h"
#include "programs/cli/document.h"
#include "programs/listen/devices_json.h"

#include <errno.h>
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A device's own part of the description, made a description again. NULL: there is none, or no memory. */
static struct vmdesc *describe(const struct inm_device *device)
{
	struct vmdesc *desc = NULL;
	struct err err = ERR_NONE;
	char *text;
	int n;

	if (!device->description)
		return NULL;
	n = asprintf(&text, "{\"devices\": [%s]}", device->description);
	if (n < 0)
		return NULL;
	vmdesc_parse(&desc, text, (size_t)n, NULL, &err);
	free(text);
	return desc;
}

static json_t *decode(struct device_file *f, const struct inm_device *device, struct err *err)
{
	struct vmdesc *desc = describe(device);
	struct devices_json_opts opts = { .hex_bytes_max = 4096, .budget = &f->budget };
	struct split_section section = {
		.body_bytes = device->bytes,
		.instance_id = device->instance_id,
		.version_id = device->version_id,
		.device = desc ? 0 : -1,
	};
	/* The section is described by offsets into a buffer: its name first, its body after. */
	size_t name_bytes = strlen(device->name);
	uint8_t *buf = malloc(name_bytes + device->bytes + 1);
	json_t *value = NULL;

	if (buf) {
		memcpy(buf, device->name, name_bytes);
		memcpy(buf + name_bytes, device->data, device->bytes);
		section.name_bytes = (uint8_t)name_bytes;
		section.body_off = name_bytes;
		value = devices_json_device(buf, name_bytes + device->bytes, &section, desc, device->stream_offset,
		                            &opts, err);
	}
	free(buf);
	vmdesc_free(desc);
	return value;
}

/* Of one that came before all others, and is described after them. */
struct early_state {
	struct early_state *next;
	char *name;
	uint32_t instance_id;
	size_t index; /* in the document */
	size_t bytes;
	uint8_t data[];
};

/* Real ones have some hundred bytes. What is beyond stays hex. */
#define EARLY_BYTES_MAX ((size_t)4 << 20)

/* Without memory it stays hex, too. */
static void keep_early(struct device_file *f, const struct inm_device *device, size_t index)
{
	struct early_state *s;

	if (device->description || device->bytes > EARLY_BYTES_MAX - f->early_bytes)
		return;
	s = malloc(sizeof(*s) + device->bytes);
	if (!s)
		return;
	*s = (struct early_state){ .next = f->early,
		                   .name = strdup(device->name),
		                   .instance_id = device->instance_id,
		                   .index = index,
		                   .bytes = device->bytes };
	memcpy(s->data, device->data, device->bytes);
	f->early = s;
	f->early_bytes += device->bytes;
}

int device_file_describe(struct device_file *f, const struct inm_device *device)
{
	struct inm_device whole = *device;
	struct early_state *s = f->early;
	struct err err = ERR_NONE;
	json_t *value;

	while (s && (!s->name || strcmp(s->name, device->name) != 0 || s->instance_id != device->instance_id))
		s = s->next;
	if (!s)
		return 0;
	whole.data = s->data;
	whole.bytes = s->bytes;
	value = decode(f, &whole, &err);
	if (!value && err.code == -E2BIG)
		return 0; /* it stays hex */
	if (!value)
		return err.code;
	return json_array_set_new(json_object_get(f->document, "devices"), s->index, value) < 0 ? -ENOMEM : 0;
}

static json_t *find_live(const struct device_file *f, const struct inm_live_state *piece)
{
	json_t *value;
	size_t i;

	json_array_foreach((json_t *)f->live, i, value)
	{
		if (strcmp(json_string_value(json_object_get(value, "name")), piece->name) == 0 &&
		    json_integer_value(json_object_get(value, "instance_id")) == (json_int_t)piece->instance_id)
			return value;
	}
	return NULL;
}

int device_file_live(struct device_file *f, const struct inm_live_state *piece)
{
	json_t *value;

	if (!f->live)
		f->live = json_array();
	value = find_live(f, piece);
	if (!value) {
		value = json_pack("{s:s, s:I, s:I, s:I, s:I}", "name", piece->name, "instance_id",
		                  (json_int_t)piece->instance_id, "version_id", (json_int_t)piece->version_id, "offset",
		                  (json_int_t)piece->stream_offset, "bytes", (json_int_t)0);
		if (json_array_append_new(f->live, value) < 0)
			return -ENOMEM;
	}
	value = json_object_get(value, "bytes");
	return json_integer_set(value, json_integer_value(value) + (json_int_t)piece->bytes) < 0 ? -ENOMEM : 0;
}

int device_file_add(struct device_file *f, const struct inm_device *device)
{
	enum split_way way = device->split == INM_SPLIT_DESCRIPTION ? SPLIT_BY_DESCRIPTION : SPLIT_BY_FOOTERS;
	struct err err = ERR_NONE;
	json_t *value = decode(f, device, &err);

	if (!f->document)
		f->document = devices_json_new(way);
	if (f->document && !value && err.code == -E2BIG)
		return devices_json_skip(f->document);
	if (!f->document || !value) {
		json_decref(value);
		return -ENOMEM;
	}
	keep_early(f, device, json_array_size(json_object_get(f->document, "devices")));
	return json_array_append_new(json_object_get(f->document, "devices"), value) < 0 ? -ENOMEM : 0;
}

int device_file_write(const struct device_file *f, struct out_file *file)
{
	json_t *document = f->document ? json_incref(f->document) : json_pack("{s:[]}", "devices");
	int r;

	if (document && f->live)
		json_object_set(document, "live", f->live);
	r = document_write(document, file);
	json_decref(document);
	return r;
}

void device_file_fini(struct device_file *f)
{
	struct early_state *s;

	while ((s = f->early)) {
		f->early = s->next;
		free(s->name);
		free(s);
	}
	json_decref(f->live);
	json_decref(f->document);
	*f = (struct device_file){ 0 };
}
