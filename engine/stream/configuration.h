/*
 * configuration.h - how a stream begins: file header and configuration section
 *
 * What the source says of itself before anything else, checked against what the embedder expects.
 */
#ifndef ENGINE_STREAM_CONFIGURATION_H
#define ENGINE_STREAM_CONFIGURATION_H

#include "coroutine/co.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct options;
struct reader;
struct trace;

struct configuration {
	char machine[256]; /* "pc-i440fx-7.2"; "" where the stream has no configuration section */
	unsigned tpage_bits;
	bool tpage_assumed; /* neither the stream nor an option has said it */
	bool ignore_shared; /* the source has capability x-ignore-shared on */
	bool has_uuid;
	uint8_t uuid[16];
};

/**
 * configuration_read - magic, version, and the configuration section where opts->send_configuration says there is one
 * Parks: yes. Return: 0; -EPROTO not a stream, or a configuration that differs from ours, by name; or the reader's.
 * Source: doc/wire/stream.md 1.2, 1.3
 */
may_park int configuration_read(struct configuration *ret, struct reader *r, const struct options *opts,
                                const struct trace *trace, struct err *err);

/**
 * configuration_machine_version - release in a machine type's name: "pc-q35-10.0" is 10.0
 * Return: major * 100 + minor, or 0 for a type without one ("microvm").
 */
unsigned configuration_machine_version(const char *machine);

#endif
