/*
 * show.h - what has come becomes visible: in the guest's view, and in our own
 *
 * Nothing here receives a page, and nothing reads an event. A page that cannot be shown now, because the mapping is
 * being changed, is not lost by that: threads that wait for it are woken, fault again, and so ask for it another time.
 */
#ifndef POSTCOPY_SHOW_H
#define POSTCOPY_SHOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pblock;
struct postcopy;

/**
 * show_completed - the units that [tpage, tpage + count) has completed; of memory that is a file
 * Return: 0; the first errno that was not caused by a change of the mapping meanwhile.
 */
int show_completed(struct postcopy *pc, struct pblock *pb, size_t tpage, size_t count);

/**
 * show_touched - a thread waits for a unit that is complete: show it, and what is complete after it
 * @walks: the thread will probably touch what is after it, so zero pages are made there, too
 * What cannot be done now wakes the thread, which faults again and so comes back.
 */
void show_touched(struct postcopy *pc, struct pblock *pb, size_t unit, bool walks);

/** show_engine - the same in the engine view, for the unit of @off alone. Return: 0 or the errno. */
int show_engine(struct postcopy *pc, struct pblock *pb, uint64_t off);

#endif
