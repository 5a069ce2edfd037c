#include "postcopy/place.h"

#include "base/clock.h"
#include "base/err.h"
#include "coroutine/io.h"
#include "coroutine/reactor.h"
#include "memory/land.h"
#include "postcopy/fault.h"
#include "postcopy/shared.h"
#include "postcopy/show.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/*
 * A thread that changes the mapping waits until its event is read, then for its turn to say that it is done. A thread
 * that discards without end leaves gaps of a microsecond: we hit those by looking all the time, and wait for what takes
 * longer. (Several threads at once that do nothing else may leave no gap.)
 */
#define SPIN_NS (200 * NS_PER_US)
#define AGAIN_NS (50 * NS_PER_US)

/* A mapping that has gone without a word: its event is under way, and says where to. */
#define GONE_NS (50 * NS_PER_MS)

/*
 * How long a placement has waited. A step that took longer than this was not spent waiting: the process was stopped,
 * and the event that it waits for is still to be read.
 */
#define STEP_NS_MAX (20 * NS_PER_MS)

struct patience {
	uint64_t looked_ns; /* 0: not begun */
	uint64_t waited_ns;
};

static void pass_time(struct patience *p)
{
	uint64_t now_ns = clock_now_ns(), step_ns = p->looked_ns ? now_ns - p->looked_ns : 0;

	p->waited_ns += step_ns < STEP_NS_MAX ? step_ns : STEP_NS_MAX;
	p->looked_ns = now_ns;
}

/* Return: 0; -EAGAIN when it has waited for PLACE_PATIENCE_NS; -ECANCELED. Parks. */
static may_park int await_events(struct postcopy *pc, const struct patience *p)
{
	int r;

	pc->counts.place_retries++;
	if (p->waited_ns >= PLACE_PATIENCE_NS)
		return -EAGAIN;
	if (p->waited_ns % (2 * SPIN_NS) < SPIN_NS) {
		fault_poll(pc); /* its errors are fault_read's to find */
		return 0;
	}
	r = io_sleep_until(pc->reactor, deadline_after_ns(AGAIN_NS));
	return r == -ETIMEDOUT ? 0 : r;
}

/* Write and show are one step of the kernel's, so the page is received when it has succeeded, and not before. */
static may_park int copy_page(struct postcopy *pc, struct block *b, size_t tpage, const void *page, size_t bytes)
{
	uint64_t off = (uint64_t)tpage * bytes;
	struct patience patience = { 0 };
	struct uffd_done done;
	int r = 0;

	for (;;) {
		/* While it, or one before it in the run, waited, the other channel may have brought this page, or an
		 * event may have said that it is not wanted any more. Threads that wait for it fault again and find
		 * out: the ledger is about to forget it, and whatever called it received (settle) may come later. */
		if (block_is_received(b, tpage)) {
			uffd_wake(&pc->guest, b->guest + off, bytes);
			return 0;
		}
		done = uffd_copy(&pc->guest, b->guest + off, page, bytes);
#ifdef CONTROL_EAGAIN_DONE
		if (done.error == -EAGAIN)
			done.error = 0; /* only in the control of test_stress, which must then fail */
#endif
		if (done.error != -EAGAIN && done.error != -ENOENT)
			break;
		pass_time(&patience);
		if (done.error == -ENOENT && patience.waited_ns > GONE_NS)
			break;
		r = await_events(pc, &patience);
		if (r < 0)
			return r;
	}
	/* -EEXIST: somebody but us has put a page there; -ENOENT: there is no mapping any more. Nothing to show. */
	if (done.error == -EEXIST || done.error == -ENOENT)
		uffd_wake(&pc->guest, b->guest + off, bytes);
	else if (done.error < 0)
		return done.error;
	block_mark_received(b, tpage, 1);
	pc->counts.pages++;
	return 0;
}

/* They are received, and in the guest view: threads that wait for a complete unit go on. */
static void tell(struct postcopy *pc, struct pblock *pb, size_t tpage, size_t count)
{
	unsigned shift = block_unit_order(pb->b);
	size_t unit = tpage >> shift, end = ((tpage + count - 1) >> shift) + 1;

	/* One by one: few of the units are asked for, and the next one that is may be at the other end of the block. */
	for (; unit < end; unit++)
		if (bitmap_test(&pb->asked, unit) && pblock_complete(pb, unit))
			ledger_landed(&pc->ledger, pb, unit);
	postcopy_tell_whole(pc);
}

/* Claim, write, show; by (1) of postcopy.h. */
static int place_in_file(struct postcopy *pc, struct pblock *pb, size_t tpage, struct iovec *pages, size_t count)
{
	int r = land_unseen(pb->b, tpage, pages, (int)count);

	if (r < 0)
		return r;
	pc->counts.pages += count;
	return show_completed(pc, pb, tpage, count);
}

static may_park int place_run(struct postcopy *pc, struct pblock *pb, size_t tpage, struct iovec *pages, int count)
{
	struct block *b = pb->b;
	int r = 0;

	pc->placing++;
	if (block_is_file(b))
		r = place_in_file(pc, pb, tpage, pages, (size_t)count);
	for (int i = 0; r == 0 && b->kind == BLOCK_ANONYMOUS && i < count; i++)
		r = copy_page(pc, b, tpage + (size_t)i, pages[i].iov_base, pages[i].iov_len);
	pc->placing--;
	tell(pc, pb, tpage, (size_t)count);
	return r;
}

int place_pages(struct postcopy *pc, struct block *b, size_t tpage, struct iovec *pages, int count, struct err *err)
{
	struct pblock *pb = postcopy_block(pc, b);
	int i = 0, n, r;

#ifdef CONTROL_PLACE_BEFORE_CLAIM
	for (int k = 0; block_is_file(b) && k < count; k++) /* only in the control of test_stress, */
		memcpy(b->landing + ((uint64_t)(tpage + (size_t)k) << b->tpage_shift), pages[k].iov_base,
		       pages[k].iov_len); /* which must then fail */
#endif
	while (i < count) {
		if (block_is_received(b, tpage + (size_t)i)) {
			pc->counts.duplicates++;
			i++;
			continue;
		}
		for (n = 1; i + n < count && !block_is_received(b, tpage + (size_t)(i + n)); n++)
			;
		r = place_run(pc, pb, tpage + (size_t)i, pages + i, n);
		if (r == -ECANCELED)
			return r;
		if (r < 0)
			return err_set(err, r, "placing pages of block '%s' from 0x%" PRIx64 " on: %s", b->label,
			               (uint64_t)(tpage + (size_t)i) << b->tpage_shift, strerror(-r));
		i += n;
	}
	return 0;
}

int place_zero(struct postcopy *pc, struct block *b, size_t tpage, struct err *err)
{
	struct pblock *pb = postcopy_block(pc, b);
	unsigned shift = block_unit_order(pb->b);

	(void)err;
	if (block_is_received(b, tpage)) {
		pc->counts.duplicates++;
		return 0;
	}
	block_mark_received(b, tpage, 1);
	pc->counts.pages++;
	/* It costs nothing before somebody touches it; threads that have touched it get it now. */
	if (bitmap_test(&pb->asked, tpage >> shift) && pblock_complete(pb, tpage >> shift))
		show_touched(pc, pb, tpage >> shift, false);
	tell(pc, pb, tpage, 1);
	return 0;
}
