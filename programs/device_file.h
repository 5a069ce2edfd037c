/*
 * device_file.h - the device state of a landed guest as a JSON file
 */
#ifndef PROGRAMS_DEVICE_FILE_H
#define PROGRAMS_DEVICE_FILE_H

#include "engine/load/devices_json.h"
#include "inmigrate.h"

#include <stddef.h>

struct device_file {
	void *document; /* json_t, owned */
	struct devices_json_budget budget;
	size_t failed;  /* devices that could not be decoded; they are in the file as hex */
};

/** device_file_add - answers inm_ops.device */
int device_file_add(struct device_file *f, const struct inm_device *device);

/** device_file_write - Return: 0, or a negative errno after saying why. */
int device_file_write(const struct device_file *f, const char *path);
void device_file_fini(struct device_file *f);

#endif
