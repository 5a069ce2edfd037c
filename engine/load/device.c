#include "engine/load/device.h"

#include "base/err.h"
#include "base/text.h"
#include "coroutine/turn.h"
#include "engine/devices/split.h"
#include "engine/load/load.h"
#include "engine/stream/trace.h"
#include "inmigrate.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* The run state decides whether the guest may run here; a section that cannot be read must not decide by accident. */
static int note_run_state(struct load *l, const struct inm_device *device, struct err *err)
{
	struct split_globalstate state;
	int e;

	if (strcmp(device->name, "globalstate") != 0)
		return 0;
	e = split_globalstate(&state, device->data, device->bytes, err);
	if (e < 0)
		return e;
	memcpy(l->run_state, state.run_state, sizeof(l->run_state));
	l->has_run_state = true;
	return 0;
}

int device_deliver(struct load *l, const struct inm_device *device, struct err *err)
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
