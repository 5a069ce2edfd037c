#include "postcopy/show.h"

#include "base/clock.h"
#include "base/log.h"
#include "memory/land.h"
#include "postcopy/shared.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/types.h>

/*
 * Put what is in the file at [off, off + bytes) into the guest view, as far as it goes. Pages that are there already,
 * or are no longer in the file or in the mapping, are passed over: what the guest finds there is right. While the
 * mapping is changing nothing can be put there, and need not be: a thread that touches it gets it by show_touched.
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
			/* Threads that wait there fault again and find out. */
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

int show_completed(struct postcopy *pc, struct pblock *pb, size_t tpage, size_t count)
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

/* Complete units that one touch brings along. A unit of a run costs 0.1 us, a fault of its own some 10 us. */
#define LOCAL_RUN_BYTES (64u << 10)

/* A page of the file that nothing was written to: it is made, of zeros. */
static int make_zero(const struct uffd *u, struct block *b, uint64_t off, uint8_t *view)
{
	if (b->kind != BLOCK_HUGETLB)
		return uffd_zeropage(u, view + off, b->hpage_bytes).error;
	/* On hugetlbfs there is no ZEROPAGE. Touched through the landing view, which is registered nowhere. */
	land_make(b, off);
	return uffd_continue(u, view + off, b->hpage_bytes).error;
}

/* Return: bytes from @off on that are in the view now, whole hpages, at least one; or why not. */
static ssize_t show_some(const struct uffd *u, struct block *b, uint64_t off, size_t bytes, uint8_t *view)
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
static void not_shown(struct postcopy *pc, const struct block *b, uint64_t off, int error)
{
	if (error == -EAGAIN && let_go(pc, b, off))
		return;
	uffd_wake(&pc->guest, b->guest + off, b->hpage_bytes);
	if (error != -EAGAIN && error != -EEXIST && error != -ENOENT && error != -EFAULT)
		log_often(pc->log, LOG_FAULTS, LOG_WARN,
		          "block '%s' at 0x%" PRIx64 " cannot be placed, trying again: %s", b->label, off,
		          strerror(-error));
}

void show_touched(struct postcopy *pc, struct pblock *pb, size_t unit, bool walks)
{
	uint64_t off = (uint64_t)unit << pb->b->unit_shift, end = off + local_run(pb, unit);
	uint64_t due = off + block_unit_bytes(pb->b); /* up to here, not only for the thread's next steps */
	ssize_t n;

	while (off < end && (walks || off < due)) {
		n = show_some(&pc->guest, pb->b, off, end - off, pb->b->guest);
		if (n < 0 && off >= due)
			return;
		if (n < 0)
			not_shown(pc, pb->b, off, (int)n);
		if (n < 0 && n != -EEXIST)
			return;
		pc->turned_away_ns = 0;
		off += n < 0 ? pb->b->hpage_bytes : (size_t)n;
	}
}

int show_engine(struct postcopy *pc, struct pblock *pb, uint64_t off)
{
	struct block *b = pb->b;
	uint64_t hpage = off & ~(uint64_t)(b->hpage_bytes - 1);
	ssize_t n = show_some(&pc->engine, b, hpage, b->hpage_bytes, b->engine);

	return n < 0 && n != -EEXIST ? (int)n : 0;
}
