#include "postcopy/place.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "coroutine/io.h"
#include "coroutine/reactor.h"
#include "postcopy/fault.h"
#include "postcopy/postcopy.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* Complete units that one touch brings along. A unit of a run costs 0.1 us, a fault of its own some 10 us. */
#define LOCAL_RUN_BYTES (64u << 10)

/*
 * Whoever changes the mapping waits for its event to be read, then for its turn to say that it is done. Somebody who
 * discards without end leaves gaps of a microsecond: those are met by looking all the time; what takes longer is waited
 * for. (Several threads at once that do nothing else may leave no gap.)
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

/*
 * Put what is in the file at [off, off + bytes) into the guest view, as far as it goes. Pages that are there already,
 * or are no longer in the file or in the mapping, are passed over: what the guest finds there is right. While the
 * mapping is being changed nothing can be put there, and it need not be: whoever touches it gets it by place_local.
 */
static int expose(struct postcopy *pc, const struct block *b, uint64_t off, size_t bytes)
{
	size_t most = bytes; /* that one call takes */
	struct uffd_done done;

	while (bytes > 0) {
		done = uffd_continue(&pc->guest, b->guest + off, bytes < most ? bytes : most);
		off += done.bytes;
		bytes -= done.bytes;
		switch (done.error) {
		case 0:
			break;
		case -EAGAIN:
			pc->counts.place_retries++;
			uffd_wake(&pc->guest, b->guest + off, bytes);
			return 0;
		case -ENOENT:
			/* Said of the whole, although only a part of it may have been unmapped. */
			if (bytes > b->hpage_bytes && most > b->hpage_bytes) {
				most = b->hpage_bytes;
				break;
			}
			/* fall through */
		case -EEXIST:
		case -EFAULT:
#ifdef CONTROL_NO_WAKE_AFTER_EEXIST
			off += b->hpage_bytes; /* only in the control of test_stress, which must then fail */
			bytes -= b->hpage_bytes < bytes ? b->hpage_bytes : bytes;
			break;
#endif
			/* Whoever waits there comes back and finds out. */
			uffd_wake(&pc->guest, b->guest + off, b->hpage_bytes);
			off += b->hpage_bytes;
			bytes -= b->hpage_bytes < bytes ? b->hpage_bytes : bytes;
			break;
		default:
			/* They are received, and the ledger forgets them: threads that wait there must come back. */
			uffd_wake(&pc->guest, b->guest + off, bytes);
			return done.error;
		}
	}
	return 0;
}

/* By (1) of postcopy.h. */
static void claim(struct postcopy *pc, struct block *b, size_t tpage, size_t count)
{
	for (size_t i = 0; i < count; i++)
		block_mark_received(b, tpage + i);
	pc->missing_tpages -= count;
	pc->counts.pages += count;
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
		 * event may have said that it is not wanted any more. Whoever waits for it comes back and finds out:
		 * the ledger is about to forget it, and who called it received (postcopy_complete) may come later. */
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
	claim(pc, b, tpage, 1);
	return 0;
}

/* The units that [tpage, tpage + count) has completed. */
static int show_completed(struct postcopy *pc, struct pblock *pb, size_t tpage, size_t count)
{
	unsigned shift = block_unit_order(pb->b);
	size_t unit = tpage >> shift, end = ((tpage + count - 1) >> shift) + 1, unit_bytes = block_unit_bytes(pb->b);
	int r = 0, one;

	if (shift == 0)
		return expose(pc, pb->b, (uint64_t)unit << pb->b->unit_shift, count << pb->b->unit_shift);
	for (; unit < end; unit++) {
		if (!pblock_complete(pb, unit))
			continue;
		one = expose(pc, pb->b, (uint64_t)unit << pb->b->unit_shift, unit_bytes);
		r = r < 0 ? r : one;
	}
	return r;
}

/* They are received, and in the guest view: whoever waits for a unit that is complete goes on. */
static void tell(struct postcopy *pc, struct pblock *pb, size_t tpage, size_t count)
{
	unsigned shift = block_unit_order(pb->b);
	size_t unit = tpage >> shift, end = ((tpage + count - 1) >> shift) + 1;

	/* One by one: few of the units are asked for, and the next one that is may be at the other end of the block. */
	for (; unit < end; unit++)
		if (bitmap_test(&pb->asked, unit) && pblock_complete(pb, unit))
			ledger_landed(pc, pb, unit);
	if (postcopy_all_here(pc))
		event_set(&pc->all_here);
}

/* Their bytes could not be written: they are still to come. Nobody has seen them. */
static void unclaim(struct postcopy *pc, struct block *b, size_t tpage, size_t count)
{
	for (size_t i = 0; i < count; i++)
		block_unmark_received(b, tpage + i);
	pc->missing_tpages += count;
	pc->counts.pages -= count;
}

/* Claim, write, show. */
static int place_in_file(struct postcopy *pc, struct pblock *pb, size_t tpage, struct iovec *pages, size_t count)
{
	int r;

	claim(pc, pb->b, tpage, count);
	r = block_place(pb->b, tpage, pages, (int)count);
	if (r == 0)
		return show_completed(pc, pb, tpage, count);
	unclaim(pc, pb->b, tpage, count);
	return r;
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
	claim(pc, b, tpage, 1);
	/* It costs nothing before somebody touches it; threads that have touched it get it now. */
	if (bitmap_test(&pb->asked, tpage >> shift) && pblock_complete(pb, tpage >> shift))
		place_local(pc, pb, tpage >> shift, false);
	tell(pc, pb, tpage, 1);
	return 0;
}

/* A page of the file that nothing was written to: it is made, of zeros. */
static int make_zero(const struct uffd *u, struct block *b, uint64_t off, uint8_t *view)
{
	if (b->kind != BLOCK_HUGETLB)
		return uffd_zeropage(u, view + off, b->hpage_bytes).error;
	/* On hugetlbfs there is no ZEROPAGE. Touched through the landing view, which is registered nowhere. */
	block_clear(b, off, 1);
	return uffd_continue(u, view + off, b->hpage_bytes).error;
}

/* Return: bytes from @off on that are in the view now, whole hpages, at least one; or why not. */
static ssize_t place_some(const struct uffd *u, struct block *b, uint64_t off, size_t bytes, uint8_t *view)
{
	struct uffd_done done = { .error = -EFAULT };
	int r;

	if (block_is_file(b))
		done = uffd_continue(u, view + off, bytes);
	/* Said of the whole run, although only what is after the first one may have been unmapped. */
	if (done.error == -ENOENT && bytes > b->hpage_bytes)
		done = uffd_continue(u, view + off, b->hpage_bytes);
	if (done.bytes > 0)
		return (ssize_t)done.bytes;
	r = done.error == -EFAULT ? make_zero(u, b, off, view) : done.error;
	return r < 0 ? r : (ssize_t)b->hpage_bytes;
}

/* Bytes of complete units from @unit on, as many as one touch brings along. */
static size_t local_run(const struct pblock *pb, size_t unit)
{
	size_t run = 1;

	while ((run + 1) << pb->b->unit_shift <= LOCAL_RUN_BYTES && unit + run < pb->units &&
	       pblock_complete(pb, unit + run))
		run++;
	return run << pb->b->unit_shift;
}

/* For so long no fault could be answered; and ranges that may be let go: they split the guest view's mapping. */
#define TURNED_AWAY_NS (20 * NS_PER_MS)
#define LET_GO_MAX 4096u

/*
 * Several threads that discard without a pause leave no moment in which a placement would not be -EAGAIN. What is
 * complete need not be watched any more: unregistered, which no event delays, the next touch finds what is in the file,
 * or zeros. (The kernel wakes the waiters before it stops letting others wait, so they are woken once more.)
 */
static bool let_go(struct postcopy *pc, const struct block *b, uint64_t off)
{
	uint64_t now_ns = clock_now_ns();

	if (pc->turned_away_ns == 0)
		pc->turned_away_ns = now_ns;
	if (now_ns - pc->turned_away_ns < TURNED_AWAY_NS || pc->let_go >= LET_GO_MAX ||
	    uffd_unregister(&pc->guest, b->guest + off, b->hpage_bytes) < 0)
		return false;
	pc->let_go++;
	uffd_wake(&pc->guest, b->guest + off, b->hpage_bytes);
	return true;
}

/* -EAGAIN, -EEXIST, -ENOENT: the thread faults again if it has reason to. */
static void place_failed(struct postcopy *pc, const struct block *b, uint64_t off, int error)
{
	if (error == -EAGAIN && let_go(pc, b, off))
		return;
	uffd_wake(&pc->guest, b->guest + off, b->hpage_bytes);
	if (error != -EAGAIN && error != -EEXIST && error != -ENOENT && error != -EFAULT)
		log_often(pc->log, LOG_FAULTS, LOG_WARN,
		          "block '%s' at 0x%" PRIx64 " cannot be placed, trying again: %s", b->label, off,
		          strerror(-error));
}

void place_local(struct postcopy *pc, struct pblock *pb, size_t unit, bool walks)
{
	uint64_t off = (uint64_t)unit << pb->b->unit_shift, end = off + local_run(pb, unit);
	uint64_t due = off + block_unit_bytes(pb->b); /* up to here, not only for the thread's next steps */
	ssize_t n;

	while (off < end && (walks || off < due)) {
		n = place_some(&pc->guest, pb->b, off, end - off, pb->b->guest);
		if (n < 0 && off >= due)
			return;
		if (n < 0)
			place_failed(pc, pb->b, off, (int)n);
		if (n < 0 && n != -EEXIST)
			return;
		pc->turned_away_ns = 0;
		off += n < 0 ? pb->b->hpage_bytes : (size_t)n;
	}
}

int place_engine(struct postcopy *pc, struct pblock *pb, uint64_t off)
{
	struct block *b = pb->b;
	uint64_t hpage = off & ~(uint64_t)(b->hpage_bytes - 1);
	ssize_t n = place_some(&pc->engine, b, hpage, b->hpage_bytes, b->engine);

	return n < 0 && n != -EEXIST ? (int)n : 0;
}
