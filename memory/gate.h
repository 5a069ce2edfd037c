/*
 * gate.h - may guest memory be written directly?
 *
 * In precopy the guest does not run here. Bytes go straight into guest memory, from whatever channel brings them. From
 * the switch to postcopy on (the first discard, or LISTEN) a byte reaches guest memory only through postcopy/place. Two
 * writers at once would be two ways to lose a guest: the direct one overwrites what the guest has written since, and in
 * memory that is watched for missing pages it waits for itself.
 *
 * The gate is the one place that answers. Every function of memory/land.h asks it, and aborts when the answer is not
 * the one that its caller relies on: that would be a mistake of ours.
 *
 * Invariants:
 * (1) It is open at first. It is shut once, and never opens again.
 * (2) Who writes directly across a park is inside from before it hands out an address until the last byte is written.
 *     The kernel may write at any moment in between, so looking at the gate again after the park would be too late.
 * (3) Nobody is inside when it is shut.
 * (4) Who leaves before all of its bytes have come tears memory: pages may be half old, half new. So does who comes
 *     when the gate is shut: the source has sent what is newer than what is here. Torn memory is never switched, and
 *     never landed.
 */
#ifndef MEMORY_GATE_H
#define MEMORY_GATE_H

#include <stdbool.h>

/* Zeroed, it is open. */
struct gate {
	bool shut;
	bool torn;
	unsigned inside;
};

/** gate_is_open - may guest memory be written directly, here and now? Ask again after a park. */
bool gate_is_open(const struct gate *g);

/** gate_enter - as gate_is_open, and so it stays until gate_leave. Return: false, and nobody has entered. */
bool gate_enter(struct gate *g);

/** gate_leave - @whole: all bytes have come and are where they belong */
void gate_leave(struct gate *g, bool whole);

/** gate_miss - bytes have come that cannot be written any more */
void gate_miss(struct gate *g);

/** gate_is_whole - nobody is inside, and nobody has torn anything */
bool gate_is_whole(const struct gate *g);

/** gate_shut - the switch. May be called again. Return: 0; -EBUSY somebody is inside; -EIO memory is torn. */
int gate_shut(struct gate *g);

/* For memory/land.c and memory/forget.c. ASSERT: open; open and entered; shut. */
void gate_expect_direct(const struct gate *g);
void gate_expect_inside(const struct gate *g);
void gate_expect_placed(const struct gate *g);

#endif
