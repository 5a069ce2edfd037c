/*
 * block_list.h - the list of RAM blocks at the beginning of a START section, and the embedder's memory for them
 *
 * We read the list to its end before we ask the embedder for the first block. So a source that goes away in the middle
 * of it has asked the embedder for nothing, and the next one can start again (engine/contest.h).
 */
#ifndef ENGINE_RAM_BLOCK_LIST_H
#define ENGINE_RAM_BLOCK_LIST_H

#include "coroutine/co.h"

#include <stdint.h>

struct err;
struct ram_loader;
struct reader;

/**
 * block_list_read - every block is checked, offered to the embedder, and added to l->ram
 * @total_bytes: what the MEM_SIZE record says the lengths add up to
 * Parks: yes. Return: 0; -EPROTO, or the embedder's refusal, with the block's name.
 * Source: doc/wire/stream.md 4.1
 */
may_park int block_list_read(struct ram_loader *l, struct reader *r, uint64_t total_bytes, struct err *err);

#endif
