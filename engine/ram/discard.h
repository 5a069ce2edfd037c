/*
 * discard.h - POSTCOPY_RAM_DISCARD: pages whose content is not valid any more, or never came
 */
#ifndef ENGINE_RAM_DISCARD_H
#define ENGINE_RAM_DISCARD_H

#include <stddef.h>
#include <stdint.h>

struct err;
struct postcopy;
struct ram;

/**
 * discard_ranges - one command's payload
 * Every range is checked before any is carried out. Return: 0; -EPROTO; what giving memory back failed with.
 * Source: doc/wire/stream.md 5.3
 */
int discard_ranges(struct postcopy *pc, const uint8_t *payload, size_t bytes, struct err *err);

#endif
