/*
 * forget.h - pages are not received any more, and read as zeros
 *
 * Because the source has discarded them, and will send them again or not; or because half of a huge page has come.
 */
#ifndef MEMORY_FORGET_H
#define MEMORY_FORGET_H

#include "coroutine/co.h"
#include "memory/block.h"

/**
 * forget_pages - so many tpages from @tpage on, whole units: the memory behind them is given back
 * They read as zeros, in every view. Return: 0, or the errno of fallocate(2) or madvise(2).
 */
int forget_pages(struct block *b, size_t tpage, size_t count);

/*
 * What giving back costs the kernel goes with the pages that are there, not with the length. So a range of any length
 * is given back in pieces that hold so many of them at most: 1024 of 4 KiB that are mapped take the kernel some 1 ms.
 */
#define FORGET_TPAGES 1024u

/**
 * forget_range - forget_pages, in pieces; others have their turn meanwhile
 * Parks: yes. Nobody may be writing there. Return: 0, -ECANCELED (some of it is given back), or as forget_pages.
 */
may_park int forget_range(struct sched *s, struct block *b, size_t tpage, size_t count);

/** forget_all - forget_range for all of it: it is not dirty any more */
may_park int forget_all(struct sched *s, struct block *b);

/**
 * forget_unseen - tpages of a file that have come from the switch on, and that nobody can see yet
 * They are zeroed, which costs less than giving back the rest of their huge page.
 */
void forget_unseen(struct block *b, size_t tpage, size_t count);

#endif
