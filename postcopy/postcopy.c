#include "postcopy/postcopy.h"

#include "base/assert.h"
#include "base/err.h"
#include "coroutine/reactor.h"
#include "coroutine/turn.h"
#include "memory/forget.h"
#include "postcopy/expect.h"
#include "postcopy/fault.h"
#include "postcopy/own.h"
#include "postcopy/vacate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What this guest's memory needs of the kernel. */
static uint64_t features_needed(const struct ram *ram)
{
	uint64_t features = 0;

	for (size_t i = 0; i < ram->count; i++) {
		const struct block *b = ram->blocks[i];

		if (!block_is_file(b))
			continue;
		features |= b->kind == BLOCK_SHMEM ? UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM :
		                                     UFFD_FEATURE_MISSING_HUGETLBFS | UFFD_FEATURE_MINOR_HUGETLBFS;
	}
	return features;
}

#define EVENTS_WANTED \
	(UFFD_FEATURE_THREAD_ID | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_UNMAP)

static void close_descriptors(struct postcopy *pc)
{
	if (!pc->descriptors)
		return;
	uffd_close(&pc->guest);
	uffd_close(&pc->engine);
	pc->descriptors = false;
}

static int open_descriptors(struct postcopy *pc, struct err *err)
{
	uint64_t needed = features_needed(pc->ram);
	int r;

	if (pc->descriptors && !(needed & ~pc->guest.features))
		return 0;
	close_descriptors(pc);
	pc->guest = pc->engine = UFFD_NONE;
	r = pc->kernel_faults ? uffd_check_doors(true, err) : 0;
	if (r < 0)
		return r;
	pc->descriptors = true;
	r = uffd_open(&pc->guest, needed, EVENTS_WANTED, err);
	if (r == 0)
		r = uffd_open(&pc->engine, needed | UFFD_FEATURE_SIGBUS, 0, err);
	if (r < 0)
		close_descriptors(pc);
	return r;
}

/* Two views of a block, each mapped and registered: some 10 us. */
#define REGISTER_WORK (4 * TURN_SYSCALL)

static uint64_t watch_modes(const struct block *b)
{
	return UFFDIO_REGISTER_MODE_MISSING | (block_is_file(b) ? UFFDIO_REGISTER_MODE_MINOR : 0);
}

static int cannot_be_watched(const struct block *b, int result, struct err *err)
{
	const char *advice = "";

	if (result == -EINVAL)
		advice = "; it must be private anonymous memory, or a shared mapping of a memory file (memfd, tmpfs, "
		         "hugetlbfs)";
	if (result == -EBUSY)
		advice = "; it is watched by another userfaultfd, or somebody touches it before the guest runs";
	return err_set(err, result, "block '%s' cannot be watched for missing pages: %s%s", b->label, strerror(-result),
	               advice);
}

/* By a descriptor of its own, without events: nobody who changes the mapping meanwhile has to wait for us. */
static may_park int try_to_watch(struct postcopy *pc, struct err *err)
{
	struct uffd trial;
	int r = uffd_open(&trial, features_needed(pc->ram), 0, err);

	if (r < 0)
		return r;
	for (size_t i = 0; r == 0 && i < pc->ram->count; i++) {
		const struct block *b = pc->ram->blocks[i];

		if (b->kind == BLOCK_IGNORED)
			continue;
		r = uffd_register(&trial, b->guest, b->hpage_bytes, watch_modes(b));
		if (r < 0)
			cannot_be_watched(b, r, err);
		else
			r = uffd_unregister(&trial, b->guest, b->hpage_bytes);
		if (r == 0)
			r = turn_spend(&pc->reactor->sched, REGISTER_WORK);
	}
	uffd_close(&trial);
	return r;
}

int postcopy_check(struct postcopy *pc, struct err *err)
{
	int r;

	for (size_t i = 0; i < pc->ram->count; i++) {
		const struct block *b = pc->ram->blocks[i];

		if (b->kind != BLOCK_IGNORED && !b->guest)
			return err_set(err, -EINVAL,
			               "block '%s' was given without an address: postcopy must know where the guest "
			               "will touch it",
			               b->label);
	}
	r = try_to_watch(pc, err);
	return r < 0 ? r : open_descriptors(pc, err);
}

/* ---- LISTEN ---- */

int postcopy_discard(struct postcopy *pc, struct block *b, size_t tpage, size_t count)
{
	return expect_range(pc, b, tpage, count);
}

static may_park int register_guest(struct postcopy *pc, struct pblock *pb)
{
	int r = vacate(pc, pb);

	if (r == 0)
		r = uffd_register(&pc->guest, pb->b->guest, pb->units << pb->b->unit_shift, watch_modes(pb->b));
	return r < 0 ? r : vacate_check(pc, pb);
}

static int register_engine(struct postcopy *pc, struct pblock *pb)
{
	struct block *b = pb->b;
	int r;

	if (!block_is_file(b))
		return 0;
	r = block_map_engine(b);
	if (r == 0)
		r = uffd_register(&pc->engine, b->engine, b->mapped_bytes,
		                  UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR);
	if (r == 0)
		r = yield_add_view(&pc->yield, b->engine, b->mapped_bytes, b->label);
	if (r == 0)
		r = watched_add(&pc->engine_views, b->engine, b->mapped_bytes, pb);
	return r;
}

static int register_all(struct postcopy *pc, struct err *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < pc->ram->count; i++) {
		struct pblock *pb = &pc->blocks[i];

		if (pb->b->kind == BLOCK_IGNORED)
			continue;
		r = register_guest(pc, pb);
		if (r == 0)
			r = watched_add(&pc->guest_views, pb->b->guest, pb->units << pb->b->unit_shift, pb);
		if (r == 0)
			r = register_engine(pc, pb);
		if (r == 0)
			r = yield_add_guest(&pc->yield, pb->b->guest, pb->units << pb->b->unit_shift, pb->b->label);
		if (r < 0)
			cannot_be_watched(pb->b, r, err);
		else
			r = turn_spend(&pc->reactor->sched, REGISTER_WORK);
	}
	watched_sort(&pc->guest_views);
	watched_sort(&pc->engine_views);
	return r;
}

int postcopy_listen(struct postcopy *pc, struct err *err)
{
	struct sched *s = &pc->reactor->sched;
	int r;

	ASSERT(!pc->listening);
	if (gate_shut(&pc->ram->gate) < 0)
		return err_set(err, -EBUSY, "guest memory is still being written");
	ledger_init(&pc->ledger, pc->reactor, &pc->blocktime, pc->request, pc->opaque);
	group_init(&pc->readers, s, "page faults");
	group_init(&pc->senders, s, "page requests");
	pc->yield.sched = s;
	pc->yield.fault = own_fault;
	pc->yield.stuck = pc->stuck;
	pc->yield.opaque = pc;
	pc->listening = true; /* so that postcopy_end takes back what comes now */
	r = open_descriptors(pc, err);
	if (r < 0)
		return r;
	r = yield_begin(&pc->yield, pc->stuck ? pc->stuck_after_ns : 0);
	if (r < 0)
		return err_set(err, r, "a handler for SIGBUS: %s", strerror(-r));
	r = expect_prepare(pc);
	if (r == -ECANCELED)
		return r;
	if (r < 0)
		return err_set(err, r, "no memory for the list of missing pages");
	r = register_all(pc, err);
	if (r == 0)
		r = expect_settle(pc);
	if (r < 0)
		return r;
	r = group_spawn_background(&pc->readers, "page faults", fault_read, pc);
	if (r == 0)
		r = group_spawn_background(&pc->senders, "page requests", ledger_send, &pc->ledger);
	return r < 0 ? err_set(err, r, "no memory for a coroutine") : 0;
}

/* Zeros again, by (2) of block.h: so much at a time. */
#define FORGET_BYTES ((size_t)256 << 10)

/*
 * A huge page that is half here: the source must send all of it again (doc/wire/stream.md 5.8). Nobody has seen it.
 * Only what has come is zeroed, so that it costs what it cost the source, and not a huge page for each page that came.
 */
static may_park void forget_unit(struct postcopy *pc, const struct pblock *pb, size_t unit, size_t end)
{
	struct block *b = pb->b;
	unsigned shift = b->tpage_shift;
	size_t first = unit << block_unit_order(b);
	size_t most = FORGET_BYTES >> shift ? FORGET_BYTES >> shift : 1, n;

	/* While we yield, a removal may make all of the unit received. (A part of a huge page is never removed.) */
	for (size_t t = bitmap_next_set(&b->received, first, end); t < end && !pblock_complete(pb, unit);
	     t = bitmap_next_set(&b->received, t + n, end)) {
		n = bitmap_next_clear(&b->received, t, end) - t;
		n = n < most ? n : most;
		forget_unseen(b, t, n);
		pc->counts.pages -= n;
		turn_spend_shielded(&pc->reactor->sched, n << shift);
	}
}

/* Tpages that are gone through between two looks at the clock: 64 KiB of the bitmap. */
#define LOOK_TPAGES (TURN_LOOK * 8)

static may_park void forget_partial_units(struct postcopy *pc, struct pblock *pb)
{
	unsigned shift = block_unit_order(pb->b);
	size_t all = pb->b->received.nbits, tpage = 0, first, end;

	if (shift == 0)
		return;
	while (tpage < all) {
		end = all - tpage < LOOK_TPAGES ? all : tpage + LOOK_TPAGES;
		turn_spend_shielded(&pc->reactor->sched, (end - tpage) / 8);
		tpage = bitmap_next_clear(&pb->b->received, tpage, end);
		if (tpage == end)
			continue;
		first = tpage >> shift << shift;
		end = first + ((size_t)1 << shift) < all ? first + ((size_t)1 << shift) : all;
		forget_unit(pc, pb, tpage >> shift, end);
		tpage = end;
	}
}

void postcopy_pause(struct postcopy *pc)
{
	if (!pc->listening)
		return;
	ledger_offline(&pc->ledger, true);
	group_cancel(&pc->senders);
	group_join(&pc->senders);
	ledger_unsend(&pc->ledger);
	ASSERT(pc->placing == 0);
	for (size_t i = 0; i < pc->ram->count; i++)
		if (pc->ram->blocks[i]->kind != BLOCK_IGNORED)
			forget_partial_units(pc, &pc->blocks[i]);
}

int postcopy_resume(struct postcopy *pc)
{
	int r = 0;

	if (!pc->listening)
		return 0;
	/* It has ended where the userfaultfd could not be read; perhaps now it can. */
	if (group_empty(&pc->readers)) {
		group_init(&pc->readers, &pc->reactor->sched, "page faults");
		r = group_spawn_background(&pc->readers, "page faults", fault_read, pc);
	}
	if (r < 0)
		return r;
	ledger_offline(&pc->ledger, false);
	group_init(&pc->senders, &pc->reactor->sched, "page requests");
	return group_spawn_background(&pc->senders, "page requests", ledger_send, &pc->ledger);
}

/* ---- the end ---- */

static void unregister_all(struct postcopy *pc)
{
	if (pc->guest.fd < 0)
		return;
	for (size_t i = 0; pc->blocks && i < pc->ram->count; i++) {
		const struct pblock *pb = &pc->blocks[i];

		/* Wakes the threads that wait there. It may no longer be registered, or never have been. */
		if (pb->units)
			uffd_unregister(&pc->guest, pb->b->guest, pb->units << pb->b->unit_shift);
		turn_spend_shielded(&pc->reactor->sched, 2 * TURN_SYSCALL);
	}
}

void postcopy_end(struct postcopy *pc)
{
	if (pc->listening) {
		group_cancel(&pc->senders);
		group_join(&pc->senders);
		group_cancel(&pc->readers);
		group_join(&pc->readers);
		unregister_all(pc);
		if (pc->yield.begun)
			yield_end(&pc->yield);
		ledger_fini(&pc->ledger);
		pc->listening = false;
	}
	close_descriptors(pc);
	watched_fini(&pc->guest_views);
	watched_fini(&pc->engine_views);
	expect_free(pc);
}
