#include "programs/device_file.h"

#include "base/err.h"
#include "engine/load/devices_json.h"
#include "engine/load/vmdesc.h"
#include "programs/program.h"

#include <errno.h>
#include <jansson.h>
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
	vmdesc_parse(&desc, text, (size_t)n, &err);
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
	/* The section is described by offsets into a buffer: its name first, its body behind. */
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

int device_file_add(struct device_file *f, const struct inm_device *device)
{
	enum split_way way = device->split == INM_SPLIT_DESCRIPTION ? SPLIT_BY_DESCRIPTION : SPLIT_BY_FOOTERS;
	struct err err = ERR_NONE;
	json_t *value = decode(f, device, &err);

	if (!f->document)
		f->document = devices_json_new(way, 0);
	if (f->document && !value && err.code == -E2BIG)
		return devices_json_skip(f->document);
	if (!f->document || !value) {
		json_decref(value);
		return -ENOMEM;
	}
	return json_array_append_new(json_object_get(f->document, "devices"), value) < 0 ? -ENOMEM : 0;
}

int device_file_write(const struct device_file *f, const char *path)
{
	json_t *empty = NULL, *document = f->document;
	int r;

	if (!document)
		document = empty = json_pack("{s:[]}", "devices");
	errno = ENOMEM;
	r = document && json_dump_file(document, path, JSON_INDENT(2)) == 0 ? 0 : -errno;
	json_decref(empty);
	if (r < 0)
		fail("%s: %s", path, strerror(-r));
	return r;
}

void device_file_fini(struct device_file *f)
{
	json_decref(f->document);
	f->document = NULL;
}
