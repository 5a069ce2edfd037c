/*
 * live.h - live sections that are neither RAM nor bitmaps, and whose format is known
 *
 * State of the machine that is sent while the guest still runs at its source: the hash page table of a pseries guest,
 * the storage attributes of an s390 one. It means nothing to this library. Its bodies are checked as far as is needed
 * to find their ends, and go on to the embedder byte for byte, in pieces; nothing of them is kept. An embedder that has
 * no place for them cannot have the whole guest, so the START is refused then.
 *
 * Source: doc/wire/stream.md 7.6
 */
#ifndef ENGINE_LOAD_LIVE_H
#define ENGINE_LOAD_LIVE_H

#include "coroutine/co.h"
#include "engine/load/sections.h"

#include <stdint.h>

struct err;
struct load;

/** live_kind - which of them is it? Return: SECTION_NONE for all others. */
enum section_kind live_kind(const char *name);

/** live_check_start - can this section be taken here? Return: 0; -EPROTO another version; -ENOTSUP nobody takes it. */
int live_check_start(const struct load *l, enum section_kind kind, uint32_t version_id, struct err *err);

/**
 * live_read_body - a body of @sec, to the embedder
 * @type: WIRE_SECTION_START, PART or END
 * Parks: yes. Return: 0, -EPROTO, the embedder's refusal, or the reader's error.
 */
may_park int live_read_body(struct load *l, const struct section *sec, int type, struct err *err);

#endif
