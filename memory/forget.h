/*
 * forget.h - a range of any length is given back, and others have their turn meanwhile
 *
 * What that costs the kernel goes with the pages that are there, not with the length: it is done in pieces that hold
 * FORGET_TPAGES of them at most.
 */
#ifndef MEMORY_FORGET_H
#define MEMORY_FORGET_H

#include "coroutine/co.h"
#include "memory/block.h"

/* Pages that one call gives back: 1024 of 4 KiB that are mapped take the kernel some 1 ms. */
#define FORGET_TPAGES 1024u

/**
 * forget_range - block_forget, in pieces
 * Parks: yes. Nobody may be writing there. Return: 0, -ECANCELED (some of it is given back), or as block_forget.
 */
may_park int forget_range(struct sched *s, struct block *b, size_t tpage, size_t count);

#endif
