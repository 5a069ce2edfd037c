/*
 * vacate.h - pages that are to come are missing in the guest view when the guest begins
 *
 * A thread that touches a page that is still at the source must wait for it. So nothing may be there. But memory that a
 * discard has given back does not stay away by itself while nobody watches it. If some pages of a huge page's place are
 * there, the kernel (khugepaged) may make a huge page of it at any time between the discard and LISTEN, and the holes,
 * which are pages that are to come, become zeros. Once the memory is registered with userfaultfd the kernel no longer
 * does that. A source can let any amount of time pass in between.
 *
 * This concerns anonymous memory. In a file the kernel may do the same, and it does no harm: what has come is told by
 * struct block's received, and not by what is in the file.
 *
 * We look only at places that have pages: the kernel does not make a huge page out of nothing. So the cost depends on
 * those pages.
 */
#ifndef POSTCOPY_VACATE_H
#define POSTCOPY_VACATE_H

#include "coroutine/co.h"

struct pblock;
struct postcopy;

/** vacate - before @pb is registered: give back once more what is expected. Parks: yes. Return: 0, or the errno. */
may_park int vacate(struct postcopy *pc, struct pblock *pb);

/**
 * vacate_check - after it: is it still missing? Where not, give it back again, unwatched for that moment
 * Parks: yes. Return: 0; -EBUSY: it is filled in again and again; or the errno of giving back or registering.
 */
may_park int vacate_check(struct postcopy *pc, struct pblock *pb);

#endif
