/*
 * early.h - device state of the set-up phase
 *
 * A FULL section may come before the rounds of RAM (virtio-mem's bitmap does). Its end is the first footer after which
 * the stream can go on (split_early_end), and its state is delivered at once. The description comes much later and
 * lists these sections first.
 *
 * Source: doc/wire/stream.md 1.5
 */
#ifndef ENGINE_LOAD_EARLY_H
#define ENGINE_LOAD_EARLY_H

#include "coroutine/co.h"

#include <stdint.h>

struct err;
struct load;

/**
 * early_read - from the type byte of such a section, which is next in the reader, to its footer
 * Parks: yes. Return: 0 and @ret_section_id, which the footer must name; or the first error.
 */
may_park int early_read(struct load *l, uint32_t *ret_section_id, struct err *err);

#endif
