/*
 * postcopy.h - the guest runs while pages of it are missing
 *
 * From LISTEN on, a page of guest memory is in one of three states: received (it may be placed in the guest view, or be
 * placed when the guest touches it), asked for (an entry in the ledger, see ledger.h), or neither. Two coroutines live
 * here: one reads faults and other events from the userfaultfd (fault.h), one sends requests. The coroutine that
 * receives a page places it (place.h).
 *
 * Nothing here knows of channels or streams: pages are asked for through one function pointer, and arrive through
 * place_pages and place_zero.
 *
 * A unit (memory/block.h) is what the source is asked for and what is placed at once.
 *
 * Invariants:
 * (1) A page's bit in block->received is set before its first byte is written, and never cleared while the guest runs
 *     but for huge pages that are half there when the network fails: so a page is written once, and a late copy of it
 *     is dropped.
 * (2) Every fault that cannot be answered at once has an entry in the ledger; a placement takes the entry away.
 * (3) The userfaultfd is closed only when nothing is missing, or the embedder has given the guest up.
 */
#ifndef POSTCOPY_POSTCOPY_H
#define POSTCOPY_POSTCOPY_H

#include "coroutine/co.h"
#include "postcopy/shared.h"

#include <stddef.h>

struct block;
struct err;

/**
 * postcopy_check - can this kernel do it, for this memory? Before anything of the guest is lost.
 * A page of each block is watched and let go again: not every mapping can be.
 * The userfaultfds are kept for postcopy_listen, so that what is permitted here cannot be forbidden there.
 * Parks: yes. Return: 0; -ECANCELED; or why not, with a text that says what would have to change.
 */
may_park int postcopy_check(struct postcopy *pc, struct err *err);

/**
 * postcopy_listen - from here on a touch of a page that is missing is a request
 * @pc: zeroed, with the fields up to kernel_faults set. What was not discarded counts as received
 * (doc/wire/stream.md 5.3).
 * Parks: yes. Return: 0; -ECANCELED; the error of postcopy_check, of a registration, or -ENOMEM: then all is as it was.
 */
may_park int postcopy_listen(struct postcopy *pc, struct err *err);

/**
 * postcopy_discard - so many tpages of a block are still to come. Before postcopy_listen.
 * Parks: yes. Return: 0, -ECANCELED, or the errno of giving the memory back.
 */
may_park int postcopy_discard(struct postcopy *pc, struct block *b, size_t tpage, size_t count);

/**
 * postcopy_pause - the network is lost: nothing is being sent any more when this returns
 * Nobody may be placing pages. What has come of huge pages that are not whole is forgotten, and comes again.
 * Parks: yes. May be called again, and where nothing is missing because postcopy_listen was not called.
 */
may_park void postcopy_pause(struct postcopy *pc);

/** postcopy_resume - it is back: all that somebody waits for is asked for again. Return: 0 or -ENOMEM. */
int postcopy_resume(struct postcopy *pc);

/**
 * postcopy_end - stop, and unregister everything: what is missing reads as zeros from now on, by (3)
 * A @pc that does not listen is all right. Parks: yes.
 */
may_park void postcopy_end(struct postcopy *pc);

#endif
