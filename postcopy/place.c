#include "postcopy/place.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/text.h"
#include "coroutine/io.h"
#include "coroutine/reactor.h"
#include "postcopy/postcopy.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* Complete units that one touch brings along. A unit of a run costs 0.1 us, a fault of its own some 10 us. */
#define LOCAL_RUN_BYTES (64u << 10)

/* Between two looks at an event that has been read but whose cause has not gone on. */
#define AGAIN_NS (50 * NS_PER_US)

/* Return: 0; -EAGAIN until the deadline; or the errno of what cannot be placed. Parks by place.h. */
static may_park int await_events(struct postcopy *pc, uint64_t deadline_ns)
{
	int r;

	pc->counts.place_retries++;
	if (clock_now_ns() >= deadline_ns)
		return -EAGAIN;
	/* Whoever changes the mapping waits for its event to be read, then for its turn to say that it is done. */
	r = io_sleep_until(pc->reactor, deadline_after_ns(AGAIN_NS));
	return r == -ETIMEDOUT ? 0 : r;
}

/*
 * Put what is in the file at [off, off + bytes) into the guest view. Pages that are there already, or are no longer in
 * the file or in the mapping, are passed over: what the guest finds there is right.
 */
static may_park int expose(struct postcopy *pc, const struct block *b, uint64_t off, size_t bytes, size_t unit_bytes)
{
	uint64_t deadline_ns = 0;
	struct uffd_done done;
	int r;

	while (bytes > 0) {
		done = uffd_continue(&pc->guest, b->guest + off, bytes);
		off += done.bytes;
		bytes -= done.bytes;
		switch (done.error) {
		case 0:
			break;
		case -EAGAIN:
			if (deadline_ns == 0)
				deadline_ns = deadline_after_ns(PLACE_PATIENCE_NS);
			r = await_events(pc, deadline_ns);
			if (r < 0)
				return r;
			break;
		case -EEXIST:
		case -EFAULT:
		case -ENOENT:
			/* Whoever waits there comes back and finds out. */
			uffd_wake(&pc->guest, b->guest + off, unit_bytes);
			off += unit_bytes;
			bytes -= unit_bytes < bytes ? unit_bytes : bytes;
			break;
		default:
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
	uint64_t off = (uint64_t)tpage * bytes, deadline_ns = 0;
	struct uffd_done done;
	int r = 0;

	for (;;) {
		done = uffd_copy(&pc->guest, b->guest + off, page, bytes);
		if (done.error != -EAGAIN)
			break;
		if (deadline_ns == 0)
			deadline_ns = deadline_after_ns(PLACE_PATIENCE_NS);
		r = await_events(pc, deadline_ns);
		if (r < 0)
			return r;
		/* The event may have been that this page is not wanted any more. */
		if (block_is_received(b, tpage))
			return 0;
	}
	/* -EEXIST: somebody but us has put a page there; -ENOENT: there is no mapping any more. Nothing to show. */
	if (done.error == -EEXIST || done.error == -ENOENT)
		uffd_wake(&pc->guest, b->guest + off, bytes);
	else if (done.error < 0)
		return done.error;
	claim(pc, b, tpage, 1);
	return 0;
}

/* The units that [tpage, tpage + count) has completed. Parks. */
static may_park int show_completed(struct postcopy *pc, struct pblock *pb, size_t tpage, size_t count)
{
	unsigned shift = pb->unit_shift - pc->ram->tpage_shift;
	size_t unit = tpage >> shift, end = ((tpage + count - 1) >> shift) + 1, unit_bytes = pblock_unit_bytes(pb);
	int r = 0;

	if (shift == 0)
		return expose(pc, pb->b, (uint64_t)unit << pb->unit_shift, count << pb->unit_shift, unit_bytes);
	for (; r == 0 && unit < end; unit++)
		if (pblock_complete(pb, unit, pc->ram->tpage_shift))
			r = expose(pc, pb->b, (uint64_t)unit << pb->unit_shift, unit_bytes, unit_bytes);
	return r;
}

/* They are received, and in the guest view: whoever waits for a unit that is complete goes on. */
static void tell(struct postcopy *pc, struct pblock *pb, size_t tpage, size_t count)
{
	unsigned shift = pb->unit_shift - pc->ram->tpage_shift;
	size_t unit = tpage >> shift, end = ((tpage + count - 1) >> shift) + 1;

	for (unit = bitmap_find_set(&pb->asked, unit); unit < end; unit = bitmap_find_set(&pb->asked, unit + 1))
		if (pblock_complete(pb, unit, pc->ram->tpage_shift))
			ledger_landed(pc, pb, unit);
	if (postcopy_all_here(pc))
		event_set(&pc->all_here);
}

static may_park int place_run(struct postcopy *pc, struct pblock *pb, size_t tpage, struct iovec *pages, int count)
{
	unsigned shift = pc->ram->tpage_shift;
	struct block *b = pb->b;
	int r = 0;

	pc->placing++;
	if (block_is_anonymous(b)) {
		for (int i = 0; r == 0 && i < count; i++)
			r = copy_page(pc, b, tpage + (size_t)i, pages[i].iov_base, pages[i].iov_len);
	} else {
		claim(pc, b, tpage, (size_t)count);
		r = block_land(b, tpage, pages, count, shift);
		if (r == 0)
			r = show_completed(pc, pb, tpage, (size_t)count);
	}
	pc->placing--;
	tell(pc, pb, tpage, (size_t)count);
	return r;
}

int place_pages(struct postcopy *pc, struct block *b, size_t tpage, struct iovec *pages, int count, struct err *err)
{
	struct pblock *pb = postcopy_block(pc, b);
	int i = 0, n, r;

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
			return err_set(err, r, "placing pages of block '%s' from 0x%" PRIx64 " on: %s",
				       TEXT_QUOTE(b->name, b->name_bytes),
				       (uint64_t)(tpage + (size_t)i) << pc->ram->tpage_shift, strerror(-r));
		i += n;
	}
	return 0;
}

int place_zero(struct postcopy *pc, struct block *b, size_t tpage, struct err *err)
{
	struct pblock *pb = postcopy_block(pc, b);
	unsigned shift = pb->unit_shift - pc->ram->tpage_shift;

	(void)err;
	if (block_is_received(b, tpage)) {
		pc->counts.duplicates++;
		return 0;
	}
	claim(pc, b, tpage, 1);
	/* It costs nothing before somebody touches it; who has touched it gets it now. */
	if (bitmap_test(&pb->asked, tpage >> shift) && pblock_complete(pb, tpage >> shift, pc->ram->tpage_shift))
		place_local(pc, pb, tpage >> shift, false);
	tell(pc, pb, tpage, 1);
	return 0;
}

/* A page of the file that nothing was written to: it is made, of zeros. */
static int make_zero_unit(struct postcopy *pc, const struct uffd *u, struct pblock *pb, size_t unit, uint8_t *view)
{
	uint64_t off = (uint64_t)unit << pb->unit_shift;
	size_t bytes = pblock_unit_bytes(pb);
	struct uffd_done done;

	(void)pc;
	if (pb->b->fd >= 0 || block_is_anonymous(pb->b)) {
		done = uffd_zeropage(u, view + off, bytes);
		return done.error;
	}
	/* On hugetlbfs there is no ZEROPAGE. Touched through the landing view, which is registered nowhere. */
	*(volatile uint8_t *)(pb->b->landing + off) = 0;
	done = uffd_continue(u, view + off, bytes);
	return done.error;
}

/* Complete units from @unit on, as many as one touch brings along. */
static size_t local_run(const struct postcopy *pc, const struct pblock *pb, size_t unit)
{
	size_t run = 1;

	while ((run + 1) << pb->unit_shift <= LOCAL_RUN_BYTES && unit + run < pb->units &&
	       pblock_complete(pb, unit + run, pc->ram->tpage_shift))
		run++;
	return run;
}

/* Return: units placed, or why not the first one. */
static int place_some(struct postcopy *pc, struct pblock *pb, size_t unit, size_t run)
{
	uint8_t *addr = pb->b->guest + ((uint64_t)unit << pb->unit_shift);
	struct uffd_done done = { .error = -EFAULT };
	int r;

	if (!block_is_anonymous(pb->b))
		done = uffd_continue(&pc->guest, addr, run << pb->unit_shift);
	if (done.bytes > 0)
		return (int)(done.bytes >> pb->unit_shift);
	r = done.error == -EFAULT ? make_zero_unit(pc, &pc->guest, pb, unit, pb->b->guest) : done.error;
	return r < 0 ? r : 1;
}

void place_local(struct postcopy *pc, struct pblock *pb, size_t unit, bool walks)
{
	size_t run = local_run(pc, pb, unit), done = 0;
	int r = place_some(pc, pb, unit, run);

	/* -EAGAIN, -EEXIST, -ENOENT: it faults again if it has reason to. */
	if (r < 0)
		uffd_wake(&pc->guest, pb->b->guest + ((uint64_t)unit << pb->unit_shift), pblock_unit_bytes(pb));
	if (r < 0 && r != -EAGAIN && r != -EEXIST && r != -ENOENT && r != -EFAULT)
		log_warn(pc->log, "block '%s' at 0x%" PRIx64 " cannot be placed, trying again: %s",
			 TEXT_QUOTE(pb->b->name, pb->b->name_bytes), (uint64_t)unit << pb->unit_shift, strerror(-r));
	while (r > 0 && walks) {
		done += (size_t)r;
		r = done < run ? place_some(pc, pb, unit + done, run - done) : 0;
	}
}

int place_engine(struct postcopy *pc, struct pblock *pb, size_t unit)
{
	size_t bytes = pblock_unit_bytes(pb);
	struct uffd_done done =
		uffd_continue(&pc->engine, pb->b->engine + ((uint64_t)unit << pb->unit_shift), bytes);
	int r = done.error;

	if (r == -EFAULT)
		r = make_zero_unit(pc, &pc->engine, pb, unit, pb->b->engine);
	return r == -EEXIST ? 0 : r;
}
