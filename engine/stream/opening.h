/*
 * opening.h - how far a main channel has come with its opening
 *
 * Four bytes of magic are soon said. A connection is a source, as far as anybody can tell without TLS, when it goes on:
 * header, configuration and the commands that follow, up to the first section; in a recovery, one whole command. All
 * of it is small, and a source sends it in one piece. Until then the connection keeps nobody else out.
 *
 * Pure: this looks at bytes that were read and takes none. What they mean is checked when the stream is loaded.
 *
 * Source: doc/wire/stream.md 1.2, 1.3, 2, 5.8
 */
#ifndef ENGINE_STREAM_OPENING_H
#define ENGINE_STREAM_OPENING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct ram;

enum opening {
	OPENING_SHORT,   /* the header or the configuration is not complete */
	OPENING_SETTLED, /* they are; no section has begun. A source may lawfully stay silent here */
	OPENING_DONE,    /* a section has begun */
};

/**
 * opening_look - the first @len bytes of a new migration
 * @configuration: is a configuration section expected?
 * Return: enum opening; -EPROTO no source begins like that, the text says why.
 */
int opening_look(const uint8_t *bytes, size_t len, bool configuration, struct err *err);

/**
 * opening_look_recovery - the first @len bytes of a source that is back
 * @ram: the blocks that it may ask for
 * Return: OPENING_SHORT, OPENING_DONE; -EPROTO.
 */
int opening_look_recovery(const uint8_t *bytes, size_t len, const struct ram *ram, struct err *err);

#endif
