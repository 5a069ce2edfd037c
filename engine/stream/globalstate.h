/*
 * globalstate.h - the device section `globalstate`: in what state was the guest?
 *
 * The one device state that this library reads itself: it decides whether the guest may run.
 *
 * Source: doc/wire/stream.md 7.5
 */
#ifndef ENGINE_STREAM_GLOBALSTATE_H
#define ENGINE_STREAM_GLOBALSTATE_H

#include <stddef.h>
#include <stdint.h>

struct err;

#define GLOBALSTATE_NAME_MAX 99

/** globalstate_parse - the section's body. Return: 0 and "running", "paused", ..., which is printable; -EPROTO. */
int globalstate_parse(char ret_run_state[static GLOBALSTATE_NAME_MAX + 1], const uint8_t *body, size_t bytes,
                      struct err *err);

#endif
