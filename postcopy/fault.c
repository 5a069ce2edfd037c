#include "postcopy/fault.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/probe.h"
#include "coroutine/io.h"
#include "coroutine/look.h"
#include "coroutine/reactor.h"
#include "postcopy/shared.h"
#include "postcopy/show.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#define EVENTS_MAX 64

/* A thread has touched @unit: ask for what it will touch next. */
static void ask_ahead(struct postcopy *pc, struct walk *w, struct pblock *pb, size_t unit, uint64_t now_ns)
{
	size_t next;

	prefetch_learn(&pc->prefetch, w, pb, unit);
	while (pc->prefetch_on && prefetch_next(w, pb->units, &next) && pc->ledger.guesses < PREFETCH_OUTSTANDING_MAX)
		prefetch_note(w, next, !pblock_complete(pb, next) && ledger_guess(&pc->ledger, pb, next, now_ns));
}

static void on_fault(struct postcopy *pc, const struct uffd_msg *msg, uint64_t now_ns)
{
	uint32_t tid = msg->arg.pagefault.feat.ptid;
	struct fault_thread *t = blocktime_thread(&pc->blocktime, tid);
	struct pblock *pb;
	uint64_t off;
	size_t unit;

	pc->counts.faults++;
	if (t)
		t->faults++;
	pb = watched_find(&pc->guest_views, msg->arg.pagefault.address, &off);
	if (!pb) {
		/* A view that was moved: see on_change. */
		log_often(pc->log, LOG_FAULTS, LOG_WARN, "a page fault outside all blocks, at 0x%llx",
		          (unsigned long long)msg->arg.pagefault.address);
		return;
	}
	unit = off >> pb->b->unit_shift;
	PROBE3(postcopy__fault, pb->b->label, unit, tid);
	if (pblock_complete(pb, unit)) {
		pc->counts.faults_local++;
		show_touched(pc, pb, unit, t && prefetch_walks(&t->walk, pb, unit));
	} else if (!ledger_want(&pc->ledger, pb, unit, tid, now_ns)) {
		/* Without memory for the entry the thread faults again, which is as good as one. */
		uffd_wake(&pc->guest, pb->b->guest + ((uint64_t)unit << pb->b->unit_shift), block_unit_bytes(pb->b));
	}
	if (t)
		ask_ahead(pc, &t->walk, pb, unit, now_ns);
}

/*
 * The embedder has given memory back (a balloon): what was there reads as zeros from now on, and what is still to come
 * is not wanted any more. It counts as received, so that it is neither asked for nor written when it comes.
 */
static void on_remove(struct postcopy *pc, uint64_t start, uint64_t end)
{
#ifdef CONTROL_IGNORE_REMOVE
	return; /* only in the control of test_stress, which must then fail */
#endif
	while (start < end) {
		uint64_t off;
		struct pblock *pb = watched_find(&pc->guest_views, start, &off);
		size_t tpage, last;

		if (!pb)
			return;
		/* Target pages that are removed whole: of one that is larger than a page, the rest is still to come. */
		tpage = (off + block_tpage_bytes(pb->b) - 1) >> pb->b->tpage_shift;
		last = (off + (end - start)) >> pb->b->tpage_shift;
		if (last > pb->b->received.nbits)
			last = pb->b->received.nbits;
		if (tpage < last)
			pc->counts.removed += block_mark_received(pb->b, tpage, last - tpage);
		/* No further than the removal goes, or giving back page by page would cost all of RAM each time. */
		last = (off + (end - start) + block_unit_bytes(pb->b) - 1) >> pb->b->unit_shift;
		last = last < pb->units ? last : pb->units;
		for (size_t u = bitmap_next_set(&pb->asked, off >> pb->b->unit_shift, last); u < last;
		     u = bitmap_next_set(&pb->asked, u + 1, last))
			if (pblock_complete(pb, u)) {
				show_touched(pc, pb, u, false);
				ledger_landed(&pc->ledger, pb, u);
			}
		start += ((uint64_t)pb->units << pb->b->unit_shift) - off;
	}
	postcopy_tell_whole(pc);
}

/* Nobody can touch it there any more. What comes for it is placed in the file, and dropped where there is none. */
static void on_unmap(struct postcopy *pc, uint64_t start, uint64_t end)
{
	uint64_t off;
	struct pblock *pb = watched_find(&pc->guest_views, start, &off);

	if (pb && pb->b->kind == BLOCK_ANONYMOUS)
		on_remove(pc, start, end);
}

/* The embedder has moved a whole guest view (mremap). Parts of one cannot be followed. */
static void on_remap(struct postcopy *pc, uint64_t from, uint64_t to, uint64_t bytes)
{
	uint64_t off;
	struct pblock *pb = watched_find(&pc->guest_views, from, &off);

	if (!pb)
		return;
	if (off != 0 || bytes < pb->b->used_bytes) {
		log_often(pc->log, LOG_FAULTS, LOG_WARN,
		          "part of the guest view of block '%s' was moved; a touch of it may hang", pb->b->label);
		return;
	}
	watched_moved(&pc->guest_views, (uintptr_t)from, (uintptr_t)to);
	block_moved(pb->b, (uint8_t *)(uintptr_t)to); /* NOLINT: the kernel's number for an address of ours */
}

static void on_event(struct postcopy *pc, const struct uffd_msg *msg, uint64_t now_ns)
{
	switch (msg->event) {
	case UFFD_EVENT_PAGEFAULT:
		on_fault(pc, msg, now_ns);
		break;
	case UFFD_EVENT_REMOVE:
		on_remove(pc, msg->arg.remove.start, msg->arg.remove.end);
		break;
	case UFFD_EVENT_REMAP:
		on_remap(pc, msg->arg.remap.from, msg->arg.remap.to, msg->arg.remap.len);
		break;
	case UFFD_EVENT_UNMAP:
		on_unmap(pc, msg->arg.remove.start, msg->arg.remove.end);
		break;
	case UFFD_EVENT_FORK:
		/* Not asked for: see postcopy_listen. */
		close((int)msg->arg.fork.ufd);
		break;
	default:
		log_often(pc->log, LOG_FAULTS, LOG_WARN, "event %u of the userfaultfd is not known here", msg->event);
	}
}

ssize_t fault_poll(struct postcopy *pc)
{
	struct uffd_msg events[EVENTS_MAX];
	ssize_t n = uffd_read(&pc->guest, events, EVENTS_MAX);
	uint64_t now_ns = n > 0 ? clock_now_ns() : 0;

	for (ssize_t i = 0; i < n; i++)
		on_event(pc, &events[i], now_ns);
	return n;
}

/*
 * A thread whose page has come goes on, and touches the next one: nobody has to wake us for that if we look again for a
 * while. By reading the userfaultfd itself, which takes one system call where the ring takes three.
 */
/* All threads wait, and nobody is left to fault before an answer comes; at once it can come in so many turns. */
#define LOOK_TURNS 4u

/* Nothing is there: look again in the next turn? */
static bool looks_again(struct postcopy *pc)
{
	uint64_t now_ns;

	if (!pc->reactor->runs)
		return false;
	if (pc->blocktime.blocked_now >= pc->blocktime.thread_count && ++pc->look_turns > LOOK_TURNS)
		return false;
	now_ns = clock_now_ns();
	if (pc->look_end_ns == 0 && look_worth(&pc->look))
		pc->look_end_ns = now_ns + LEDGER_SOON_NS;
	if (now_ns < pc->look_end_ns)
		return true;
	if (pc->look_end_ns > 0)
		look_done(&pc->look, false);
	/* The reactor need not look for the same another time. */
	pc->reactor->soon_ns = 0;
	return false;
}

static void looked(struct postcopy *pc, bool found)
{
	if (found && pc->look_end_ns > 0)
		look_done(&pc->look, true);
	pc->look_end_ns = 0;
	pc->look_turns = 0;
}

int fault_read(void *arg)
{
	struct postcopy *pc = arg;
	ssize_t n;
	int r;

	for (;;) {
		n = fault_poll(pc);
		if (n < 0)
			return postcopy_give_up(pc, (int)n, "reading the userfaultfd");
		if (n > 0)
			looked(pc, true);
		if (n == 0 && !looks_again(pc)) {
			looked(pc, false);
			/* No deadline: the guest may never touch what is missing. */
			r = io_poll(pc->reactor, pc->guest.fd, POLLIN, DEADLINE_NEVER);
			if (r < 0)
				return r == -ECANCELED ? r : postcopy_give_up(pc, r, "waiting for the userfaultfd");
			continue;
		}
		/* A guest that faults without end must not keep its pages from landing. */
		r = co_yield(&pc->reactor->sched);
		if (r < 0)
			return r;
	}
}
