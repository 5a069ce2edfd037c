/*
 * vacate.h - what is to come is missing in the guest view, when the guest begins
 *
 * Whoever touches a page that is still at the source must wait for it. So nothing may be there; and what a discard has
 * given back does not stay away by itself, as long as nobody watches it. Where some pages of a huge page's place are
 * there, the kernel (khugepaged) may make a huge page of it at any time between the discard and LISTEN, and the holes
 * become zeros: those of pages that are to come. From the registration with userfaultfd on it does not. A source can
 * let as much time pass in between as it likes.
 *
 * This concerns anonymous memory. In a file the kernel may do the same, and it does no harm: what has come is told by
 * struct block's received, and not by what is in the file.
 *
 * Only places with pages that are there are looked at: a huge page is not made of nothing. So this costs what those
 * pages take.
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
