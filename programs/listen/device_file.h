/*
 * device_file.h - the device state of a landed guest as a JSON file
 */
#ifndef PROGRAMS_LISTEN_DEVICE_FILE_H
#define PROGRAMS_LISTEN_DEVICE_FILE_H

#include "inmigrate.h"
#include "programs/cli/out_file.h"
#include "programs/listen/devices_json.h"

#include <stddef.h>

struct early_state;

struct device_file {
	void *document; /* json_t, owned */
	struct devices_json_budget budget;
	void *live;                /* json_t, owned: the array of live sections; NULL: none */
	struct early_state *early; /* owned: states whose description may follow */
	size_t early_bytes;        /* held by them */
	size_t failed;             /* devices that could not be decoded; they are in the file as hex */
};

/** device_file_add - answers inm_ops.device */
int device_file_add(struct device_file *f, const struct inm_device *device);

/** device_file_describe - answers inm_ops.early_described: what was hex has fields now */
int device_file_describe(struct device_file *f, const struct inm_device *device);

/** device_file_live - answers inm_ops.live_state: counted, not kept */
int device_file_live(struct device_file *f, const struct inm_live_state *piece);

/** device_file_write - Return: 0, or a negative errno after saying why. */
int device_file_write(const struct device_file *f, struct out_file *file);
void device_file_fini(struct device_file *f);

#endif
