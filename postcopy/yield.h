/*
 * yield.h - a page fault of our own thread becomes a park
 *
 * Code of the embedder that runs in a coroutine (device callbacks) reads and writes guest memory through the engine
 * view, a mapping that is registered on a userfaultfd of its own with UFFD_FEATURE_SIGBUS. An access to a page that is
 * missing raises SIGBUS on the coroutine's stack; the handler asks for the page and parks; when it is there the handler
 * returns and the instruction runs again. Meanwhile everything else goes on, also what brings the page.
 *
 * One handler for the process, installed with the first domain and taken back with the last one; a SIGBUS that is not
 * at an address of a domain of this thread goes to the handler that was there before. This is the one place where a
 * process has no more than one of something, so it is the one with state beside the objects: a counter and the former
 * disposition, under a lock, and a list for each thread.
 *
 * A callback that touches the guest view instead blocks the thread that would bring the page. The watch finds it: a
 * timer whose signal is SIGBUS too, so that no signal number of the embedder's is taken, with a look at the registers.
 * What it finds it notes, and says nothing: see stuck.h.
 *
 * Invariants:
 * (1) A fault parks only between yield_watch and yield_unwatch, in the coroutine that called yield_watch. Everywhere
 *     else (the thread's own context, the library itself, another coroutine, another thread) an access that misses is
 *     an error of ours or the embedder's, and goes to the former handler: it is seen.
 * (2) SIGBUS is not blocked on a thread that has a domain: a fault would end the process.
 * (3) A fault is seen only by the code that runs in it: errno, the FP mode and the signal mask are the same after it.
 *     The mask is the thread's: what others made of it meanwhile stays.
 * (4) The watch interrupts: a system call of a callback that is not restarted after a handler (poll, nanosleep) returns
 *     EINTR, not before watch_ns. One that has been given a guest view address and waits for the page inside the kernel
 *     is not interrupted: the watch speaks when it is over, and with its signal pending the thread spins until then
 *     (tests/platform/yield_timer_meets_fault.c).
 * (5) No code of the embedder's runs in the handler, but its own handler for SIGBUS, which is handed what is not ours.
 *     All callers of the embedder assert that (co->in_handler). The table below has everything that does run there.
 *
 * What runs in the handler, and why it may:
 *
 *   the timer's signal, at any instruction of a callback
 *     domains_here, is_domain_here, range_of  loads of a thread-local (initial-exec) and of lists that nobody changes
 *                                             while a callback runs
 *     speak, put...                           stores into a buffer on the stack
 *     stuck_note                              stores into a fixed buffer, timerfd_settime(2)
 *     clock_now_ns, watch_again               clock_gettime(2), timer_settime(2): both in signal-safety(7)
 *   the SIGBUS of a fault, at an instruction of a callback that accesses the engine view
 *     yield_unwatch, watch                    timer_settime(2), timerfd_settime(2), stores
 *     mask_of_frame, mask_to_frame            pthread_sigmask(3)
 *     fault (own_fault)                       not what signal-safety(7) allows: it takes from the ledger, which may
 *                                             call malloc(3), and parks. It need not: the signal is synchronous. What
 *                                             it interrupts is an access to guest memory in the embedder's code, which
 *                                             is in the middle of nothing of ours, nor of the allocator's or stdio's
 *                                             own data. It places with ioctl(2), logs nothing, and calls back nobody:
 *                                             a failure is kept for the migration's coroutine, which speaks of it.
 *   any other SIGBUS
 *     chain, call_former, end_by_default      sigaction(2), pthread_sigmask(3), rt_tgsigqueueinfo(2), raise(3), and
 *                                             the handler that was there before, as the kernel would have called it
 *
 * While a callback is parked in a fault, other coroutines run, and so may other callbacks of the embedder's, log among
 * them: on the same thread, and on another stack, outside the handler. A lock that the parked one holds is not free.
 *
 * The former handler is called as the kernel would (its arguments, its mask, SA_RESETHAND), except that it runs on the
 * stack of the coroutine, also with SA_ONSTACK. A handler that somebody installs on top of this one must pass on what
 * is not its own, without SA_ONSTACK, from the stack on which it came.
 *
 * What a handler that parks takes: see tests/platform/sigbus_parks.c.
 */
#ifndef POSTCOPY_YIELD_H
#define POSTCOPY_YIELD_H

#include "coroutine/co.h"
#include "postcopy/stuck.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

struct yield_range {
	uint8_t *begin, *end;
	const char *name; /* of the block, printable; lives as long as the range */
};

#define YIELD_RANGES_MAX 4096

/* So many faults of one instruction at one address, one after the other, and the page is none that can come: it is
 * after the end of the file, or there is no memory for it. Then it is the embedder's SIGBUS, see (1). */
#define YIELD_REPEATS_MAX 64

struct yield {
	struct sched *sched; /* not owned, as the rest up to the blank line */
	/*
	 * A page at @addr is missing in the engine view. Runs in the signal handler, on the coroutine that touched it,
	 * and may park (uninterruptibly). When it returns, the instruction runs again: it must have made the page
	 * accessible, or opened the whole view.
	 */
	void (*fault)(void *opaque, void *addr);
	void *opaque;
	struct stuck *stuck; /* hears what is watched, and what the watch finds; needed with a timer */

	struct yield *next;        /* of this thread's domains */
	struct yield_range *views; /* owned; the engine views: a fault there parks */
	size_t view_count;
	struct yield_range *guests; /* owned; the guest views: a fault there blocks, and the watch looks for it */
	size_t guest_count;
	timer_t timer;
	bool timer_made;
	bool begun;
	bool sigbus_was_blocked;     /* in this thread, before yield_begin */
	uint64_t watch_ns;           /* 0: no timer */
	const char *watched;         /* what runs now; NULL: nothing is watched */
	const struct co *watched_co; /* in it */
	uint64_t since_ns, due_ns;   /* of the watch under way */
	unsigned stuck_times;
	uint64_t faults;
	struct {
		const struct co *co;
		const void *addr;
		uintptr_t pc;
		unsigned count;
	} last; /* fault, and how often it came in a row */
};

/**
 * yield_begin - @y: zeroed, with the fields up to opaque set. On the thread that will fault; unblocks SIGBUS there.
 * @watch_ns: after how long in one callback the watch speaks, and again each time it has lasted twice as long; 0: never
 * Where no timer can be had (RLIMIT_SIGPENDING), a callback that blocks is still told of (stuck.h), without its place:
 * the guest at the source has stopped by now, and must not be lost for that.
 * Return: 0, or the errno of sigaction(2).
 */
int yield_begin(struct yield *y, uint64_t watch_ns);

/*
 * On the same thread, with nobody parked in a fault. The former handler is back when this was the last domain and
 * nobody has put another one on top; under another one ours stays, hands everything on, and must not be unloaded.
 * A zeroed or half-built @y is allowed.
 */
void yield_end(struct yield *y);

/** yield_add_view, yield_add_guest - Return: 0, or -ENOMEM (also beyond YIELD_RANGES_MAX). */
int yield_add_view(struct yield *y, void *addr, size_t bytes, const char *name);
int yield_add_guest(struct yield *y, void *addr, size_t bytes, const char *name);

/**
 * yield_watch - from here on the thread runs @what ("device 'x' instance 0"), which lives until yield_unwatch
 * Needed also without a timer, by (1). One at a time: a callback that parks must be taken out of the watch (a fault
 * does so by itself, others call yield_unwatch before a park and yield_watch after it).
 */
void yield_watch(struct yield *y, const char *what);
void yield_unwatch(struct yield *y);

/** yield_may_park - is this the coroutine that is watched, so that by (1) a fault of it parks? */
bool yield_may_park(const struct yield *y);

#endif
