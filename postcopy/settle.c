#include "postcopy/settle.h"

#include "base/err.h"
#include "base/log.h"
#include "coroutine/reactor.h"
#include "coroutine/turn.h"
#include "postcopy/shared.h"
#include "postcopy/show.h"

#include <errno.h>
#include <inttypes.h>

/* Units that were at the source and have not come. */
struct lost {
	uint64_t units;
	const struct pblock *first;
	size_t first_unit;
};

static void note(struct lost *lost, const struct pblock *pb, size_t unit)
{
	if (lost->units++ == 0) {
		lost->first = pb;
		lost->first_unit = unit;
	}
}

/* A guess that was not sent has been asked of nobody. */
static bool was_asked(const struct want *w)
{
	return w->sent || !w->guess;
}

/* Where the embedder says that parts are unplugged, what was asked for may never have been there. */
static bool counts(const struct block *b, bool spare_unplugged)
{
	return b->kind != BLOCK_IGNORED && !(spare_unplugged && b->unplugged);
}

/* A source sends a unit whole, and what is unplugged is whole units. */
static bool is_partial(const struct pblock *pb, size_t unit)
{
	const struct bitmap *received = &pb->b->received;
	unsigned shift = block_unit_order(pb->b);
	size_t end = (unit + 1) << shift < received->nbits ? (unit + 1) << shift : received->nbits;

	return bitmap_next_set(received, unit << shift, end) < end && !pblock_complete(pb, unit);
}

/* Of what has an entry in the ledger; also where nobody has been told of that entry. */
static void find_asked(const struct postcopy *pc, bool spare_unplugged, struct lost *lost)
{
	for (size_t i = 0; i < LEDGER_BUCKETS; i++)
		for (const struct want *w = pc->ledger.buckets[i]; w; w = w->chain)
			if ((was_asked(w) && counts(w->pb->b, spare_unplugged)) || is_partial(w->pb, w->unit))
				note(lost, w->pb, w->unit);
}

/* Tpages that are gone through between two looks at the clock: 64 KiB of the bitmap. */
#define LOOK_TPAGES (TURN_LOOK * 8)

/* One that has an entry in the ledger is find_asked's. */
static may_park void find_partial(const struct postcopy *pc, const struct pblock *pb, struct lost *lost)
{
	const struct bitmap *received = &pb->b->received;
	unsigned shift = block_unit_order(pb->b);
	size_t all = received->nbits, tpage = 0, unit, until, end;

	while (shift > 0 && tpage < all) {
		until = all - tpage < LOOK_TPAGES ? all : tpage + LOOK_TPAGES;
		turn_spend_shielded(&pc->reactor->sched, (until - tpage) / 8);
		tpage = bitmap_next_clear(received, tpage, until);
		if (tpage == until)
			continue;
		unit = tpage >> shift;
		end = (unit + 1) << shift < all ? (unit + 1) << shift : all;
		if (!bitmap_test(&pb->asked, unit) && is_partial(pb, unit))
			note(lost, pb, unit);
		tpage = end;
	}
}

/*
 * What was asked for comes last, and nothing parks after it: a thread may ask while we look for parts, and what is new
 * in part has been asked for.
 */
static may_park struct lost find_lost(const struct postcopy *pc, bool spare_unplugged)
{
	struct lost lost = { .units = 0 };

	for (size_t i = 0; i < pc->ram->count; i++)
		if (pc->ram->blocks[i]->kind != BLOCK_IGNORED)
			find_partial(pc, &pc->blocks[i], &lost);
	find_asked(pc, spare_unplugged, &lost);
	return lost;
}

static bool only_unplugged_is_missing(const struct postcopy *pc)
{
	for (size_t i = 0; i < pc->ram->count; i++) {
		const struct block *b = pc->ram->blocks[i];

		if (b->kind != BLOCK_IGNORED && !b->unplugged && b->received_tpages < b->received.nbits)
			return false;
	}
	return true;
}

bool settle_is_due(const struct postcopy *pc)
{
	return only_unplugged_is_missing(pc) && find_lost(pc, false).units == 0 && pc->placing == 0;
}

static int refuse(const struct lost *lost, struct err *err)
{
	uint64_t off = (uint64_t)lost->first_unit << lost->first->b->unit_shift;

	return err_set(err, -ENODATA,
	               "%" PRIu64 " pages of 0x%zx bytes were asked for, or have come in part, and the stream ended "
	               "without them; one is at 0x%" PRIx64 " of block '%s'",
	               lost->units, block_unit_bytes(lost->first->b), off, lost->first->b->label);
}

static may_park void complete_block(struct postcopy *pc, struct pblock *pb)
{
	struct sched *s = &pc->reactor->sched;
	size_t all = pb->b->received.nbits, n;

	for (size_t t = 0; t < all; t += n) {
		n = all - t < LOOK_TPAGES ? all - t : LOOK_TPAGES;
		block_mark_received(pb->b, t, n);
		turn_spend_shielded(s, n / 8);
	}
	/* Others may ask while we yield, but not for what is received. */
	for (size_t u = bitmap_find_set(&pb->asked, 0); u < pb->units; u = bitmap_find_set(&pb->asked, u + 1)) {
		show_touched(pc, pb, u, false);
		ledger_landed(&pc->ledger, pb, u);
		turn_spend_shielded(s, 2 * TURN_SYSCALL);
	}
}

static may_park void call_it_zeros(struct postcopy *pc)
{
	for (size_t i = 0; i < pc->ram->count; i++)
		if (pc->ram->blocks[i]->kind != BLOCK_IGNORED)
			complete_block(pc, &pc->blocks[i]);
	postcopy_tell_whole(pc);
}

int settle(struct postcopy *pc, struct err *err)
{
	struct lost lost = find_lost(pc, true);

	if (lost.units > 0)
		return refuse(&lost, err);
	if (postcopy_all_here(pc))
		return 0;
	log_warn(pc->log, "%" PRIu64 " pages were announced, and neither sent nor asked for: they are zeros",
	         postcopy_missing(pc));
	call_it_zeros(pc);
	return 0;
}

int settle_check(const struct postcopy *pc, struct err *err)
{
	/* A page that is here has no entry in the ledger, and a part of one is missing in the sum. */
	if (postcopy_all_here(pc) && pc->ledger.outstanding == 0)
		return 0;
	return err_set(err, -ENODATA, "%" PRIu64 " pages are missing, and %zu are asked for", postcopy_missing(pc),
	               pc->ledger.outstanding);
}
