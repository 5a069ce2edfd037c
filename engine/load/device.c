#include "engine/load/device.h"

#include "base/err.h"
#include "base/text.h"
#include "coroutine/turn.h"
#include "engine/devices/split.h"
#include "engine/devices/vmdesc.h"
#include "engine/load/load.h"
#include "engine/stream/globalstate.h"
#include "engine/stream/trace.h"
#include "inmigrate.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* The run state decides whether the guest may run here; a section that cannot be read must not decide by accident. */
static int note_run_state(struct load *l, const struct inm_device *device, struct err *err)
{
	int e;

	if (strcmp(device->name, "globalstate") != 0)
		return 0;
	e = globalstate_parse(l->run_state, device->data, device->bytes, err);
	l->has_run_state = e == 0;
	return e;
}

static may_park int deliver(struct load *l, const struct inm_device *device, struct err *err)
{
	int e;

	TRACE(l->trace, device->stream_offset, 0, "device '%s' instance %" PRIu32 " version %" PRIu32 ": %zu bytes",
	      TEXT_QUOTE(device->name, strlen(device->name)), device->instance_id, device->version_id, device->bytes);
	e = note_run_state(l, device, err);
	if (e == 0 && l->ops->device)
		e = l->ops->device(l->ops_opaque, device, err);
	if (e < 0)
		return err_up(err, e, "device '%s' instance %" PRIu32 " at 0x%" PRIx64,
		              TEXT_QUOTE(device->name, strlen(device->name)), device->instance_id,
		              device->stream_offset);
	l->devices++;
	return turn_spend(l->reader.sched, TURN_SYSCALL);
}

/* A copy with a NUL after it: the description's own text has none between devices. */
static char *device_text(const struct split_result *split, int32_t device)
{
	const char *text;
	size_t bytes;
	char *copy;

	if (!split->desc || device < 0)
		return NULL;
	text = vmdesc_device_text(split->desc, (size_t)device, &bytes);
	copy = malloc(bytes + 1);
	if (!copy)
		return NULL;
	memcpy(copy, text, bytes);
	copy[bytes] = '\0';
	return copy;
}

int device_deliver(struct load *l, const uint8_t *buf, uint64_t off, const struct split_result *split, size_t k,
                   struct err *err)
{
	const struct split_section *sec = &split->sections[k];
	char name[256], *text = device_text(split, sec->device);
	struct inm_device device = {
		.name = split_name(name, buf, sec),
		.instance_id = sec->instance_id,
		.version_id = sec->version_id,
		.data = buf + sec->body_off,
		.bytes = sec->body_bytes,
		.stream_offset = off + sec->body_off,
		.description = text,
		.split = sec->device >= 0 ? INM_SPLIT_DESCRIPTION : INM_SPLIT_FOOTERS,
	};
	int e = deliver(l, &device, err);

	free(text);
	return e;
}

static struct inm_device early_device(const struct section *sec)
{
	return (struct inm_device){
		.name = sec->name,
		.instance_id = sec->instance_id,
		.version_id = sec->version_id,
		.bytes = sec->body_bytes,
		.stream_offset = sec->body_off,
	};
}

int device_deliver_early(struct load *l, const struct section *sec, const uint8_t *data, struct err *err)
{
	struct inm_device device = early_device(sec);

	device.data = data;
	device.split = INM_SPLIT_FOOTERS;
	return deliver(l, &device, err);
}

/* The description has them first, in the order in which they came: match_early() of devices/ has seen to it. */
int device_describe_early(struct load *l, const struct split_result *split, struct err *err)
{
	int32_t k = 0;
	int e = 0;

	for (size_t i = 0; e == 0 && split->desc && l->ops->early_described && i < l->sections.count; i++) {
		struct inm_device device = early_device(l->sections.list[i]);
		char *text;

		if (l->sections.list[i]->kind != SECTION_EARLY_DEVICE)
			continue;
		text = device_text(split, k++);
		if (!text)
			return err_set(err, -ENOMEM, "no memory for a description");
		device.description = text;
		device.split = INM_SPLIT_DESCRIPTION;
		e = l->ops->early_described(l->ops_opaque, &device, err);
		free(text);
	}
	return e;
}
