/*
 * own.h - our own thread needs a page: a callback of the embedder's touches it, or asks for it
 *
 * It parks, so that everything else goes on, also what brings the page.
 */
#ifndef POSTCOPY_OWN_H
#define POSTCOPY_OWN_H

#include "coroutine/co.h"

#include <stdint.h>

struct block;
struct postcopy;

/** own_find - the block of an address in a guest view or an engine view; NULL if there is none. Also in precopy. */
struct block *own_find(const struct postcopy *pc, const void *addr, uint64_t *ret_off);

/**
 * own_await - until these bytes of a block are here; for a callback, which the watch must not think stuck meanwhile
 * Parks: yes. Deadline: none; the migration's failure or a cancel ends it, and the callback's next park, too.
 * Return: 0, -ECANCELED, -ENOMEM.
 */
may_park int own_await(struct postcopy *pc, struct block *b, uint64_t off, uint64_t bytes);

/* An access in the engine view to a page that is missing: struct yield's fault. Parks. */
void own_fault(void *opaque, void *addr);

#endif
