/*
 * tail.h - the end of a precopy stream: device state, EOF, description
 *
 * Device states have no lengths; only the description after them tells where one ends and the next begins
 * (doc/wire/stream.md 7.4.1). So everything from the first FULL section on is kept until it is complete, divided, and
 * delivered in order.
 */
#ifndef ENGINE_LOAD_TAIL_H
#define ENGINE_LOAD_TAIL_H

#include "coroutine/co.h"
#include "engine/devices/split.h"

#include <stddef.h>
#include <stdint.h>

struct err;
struct load;

/* Device state of one guest; with large device memory it is tens of MB. */
#define TAIL_BYTES_MAX (512u << 20)

/**
 * tail_read - from the type byte of the first FULL section, which is next in the reader, to the end of the stream
 * Delivers every device to the embedder. Parks: yes. Return: 0 or the first error.
 */
may_park int tail_read(struct load *l, struct err *err);

/**
 * tail_check_end - nothing may follow the end of the stream, where a source waits to be told
 * If it has closed it has given up, and runs its guest again. So this is asked again right before it is told.
 * Return: 0; -EPROTO more bytes; or why the source is gone.
 * Source: doc/wire/stream.md 1.6.
 */
may_park int tail_check_end(struct load *l, struct err *err);

#endif
