/*
 * expect.h - what the source has discarded, and so is still to come: from the first discard to LISTEN
 *
 * A source names ranges, as many as it likes and any of them again. Each page is given back once: what is expected
 * already costs a look (base/coverage.h). At LISTEN all that was not discarded counts as received
 * (doc/wire/stream.md 5.3).
 *
 * All of this may be terabytes, so all of it gives others their turn.
 */
#ifndef POSTCOPY_EXPECT_H
#define POSTCOPY_EXPECT_H

#include "coroutine/co.h"

#include <stddef.h>

struct block;
struct postcopy;

/** expect_prepare - make pc->blocks, unless they are there. Parks: yes. Return: 0, -ENOMEM, -ECANCELED. */
may_park int expect_prepare(struct postcopy *pc);

/**
 * expect_range - so many tpages of a block, whole units, are still to come
 * Parks: yes. Return: 0, -ECANCELED, or the errno of giving the memory back.
 */
may_park int expect_range(struct postcopy *pc, struct block *b, size_t tpage, size_t count);

/** expect_settle - LISTEN: what is not expected is received. Parks: yes. Return: 0 or -ECANCELED. */
may_park int expect_settle(struct postcopy *pc);

/** expect_free - pc->blocks, however far they have been made. Parks: yes, and a cancel stays pending. */
may_park void expect_free(struct postcopy *pc);

#endif
