/*
 * device.h - a device's state, on its way to the embedder
 */
#ifndef ENGINE_LOAD_DEVICE_H
#define ENGINE_LOAD_DEVICE_H

#include "coroutine/co.h"

struct err;
struct inm_device;
struct load;

/**
 * device_deliver - hand it over; what it says of the guest's run state is noted in @l
 * Parks: where the embedder's callback touches memory that is missing. Return: 0; -EPROTO; the embedder's refusal.
 */
may_park int device_deliver(struct load *l, const struct inm_device *device, struct err *err);

#endif
