/*
 * device.h - devices' states, on their way to the embedder
 */
#ifndef ENGINE_LOAD_DEVICE_H
#define ENGINE_LOAD_DEVICE_H

#include "coroutine/co.h"

#include <stddef.h>
#include <stdint.h>

struct err;
struct load;
struct section;
struct split_result;

/**
 * device_deliver - hand over the @k-th section of @split; what it says of the guest's run state is noted in @l
 * @buf: what was divided; it begins at @off in the stream
 * Parks: where the embedder's callback touches memory that is missing. Return: 0; -EPROTO; the embedder's refusal.
 */
may_park int device_deliver(struct load *l, const uint8_t *buf, uint64_t off, const struct split_result *split,
                            size_t k, struct err *err);

/** device_deliver_early - the same for one of the set-up phase, whose state is at @data */
may_park int device_deliver_early(struct load *l, const struct section *sec, const uint8_t *data, struct err *err);

/** device_describe_early - those of the set-up phase again, with what the description says of them, if there is one */
may_park int device_describe_early(struct load *l, const struct split_result *split, struct err *err);

#endif
