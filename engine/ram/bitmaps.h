/*
 * bitmaps.h - the live section `dirty-bitmap`: block dirty bitmaps that move with the guest
 *
 * Its chunks delimit themselves. The bitmaps are checked and dropped: this library has no disks to track. By
 * doc/wire/stream.md 7.6 a bitmap that is lost never fails a migration.
 */
#ifndef ENGINE_RAM_BITMAPS_H
#define ENGINE_RAM_BITMAPS_H

#include "coroutine/co.h"

#include <stdbool.h>

struct err;
struct reader;
struct trace;

/**
 * bitmaps_read_body - a START, PART or END body
 * @announced: set to true when the body announces a bitmap. A source that has none sends an empty START, and never an
 * END.
 * Parks: yes. Return: 0, -EPROTO, or the reader's error.
 */
may_park int bitmaps_read_body(struct reader *r, const struct trace *trace, bool *announced, struct err *err);

#endif
