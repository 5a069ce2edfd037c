/*
 * source.h - the page source: what a network and a QEMU would be
 *
 * A request becomes an item in a heap ordered by the time of its answer; one coroutine moves what is due to a queue,
 * and several take it from there and place it: as many channels, so that one that has to wait for an event of the
 * userfaultfd does not hold up the others, and two huge pages arrive piece by piece at the same time.
 */
#ifndef PROGRAMS_STRESS_SOURCE_H
#define PROGRAMS_STRESS_SOURCE_H

#include "coroutine/co.h"

#include <stddef.h>

struct group;
struct page_request;
struct stress;

int source_make(struct stress *s);
void source_free(struct stress *s);

/** source_start - the coroutines that answer. Return: 0 or the errno. */
int source_start(struct stress *s, struct group *g);

/* struct postcopy's request. */
int source_request(void *opaque, const struct page_request *list, size_t count);

/**
 * source_push_rest - what nobody has asked for; then until nothing is under way
 * Return: 0 or the errno.
 */
may_park int source_push_rest(struct stress *s);

#endif
