/*
 * stuck.h - a callback of the embedder's holds the thread: who hears of it
 *
 * The thread that runs the migration cannot say that it is stuck: it may be stuck forever, and may hold the lock of the
 * embedder's own logger. So the signal handler that finds out (yield.h) calls nothing of the embedder's. It leaves a
 * note in a buffer of fixed size. Another thread polls a descriptor, and reads the note when it is readable. The
 * migration's own log gets its line when the callback has returned.
 *
 * The descriptor is a timerfd that is armed while a callback runs. So it also becomes readable where the handler gets
 * no turn: while a system call that was given an address in the guest view waits for the page inside the kernel. The
 * note then has the callback's name, and not the place.
 *
 * Invariants:
 * (1) One thread writes, the migration's; any thread reads. A reader takes no lock that the writer could wait for, and
 *     copies out of a buffer only what was not written meanwhile.
 * (2) The handler never interrupts the writer in the middle: yield.c watches a callback only after stuck_enter has
 *     returned, and no longer when it calls stuck_leave.
 * (3) Whatever is called in a signal handler (stuck_enter, stuck_leave and stuck_note are) does no more than
 *     signal-safety(7) allows: stores, clock_gettime(2), and timerfd_settime(2), which is one system call.
 */
#ifndef POSTCOPY_STUCK_H
#define POSTCOPY_STUCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STUCK_WHAT_BYTES 192
#define STUCK_WHERE_BYTES 480
#define STUCK_TEXT_BYTES (STUCK_WHAT_BYTES + STUCK_WHERE_BYTES + 64)

struct stuck {
	int fd; /* the timerfd, owned; -1: none */
	/* What readers copy: written only while @version is odd. */
	unsigned version;
	uint64_t since_ns; /* when the callback began, or went on after a park; 0: none runs */
	uint64_t after_ns; /* from then on it counts as stuck; 0: never */
	char what[STUCK_WHAT_BYTES];
	char where[STUCK_WHERE_BYTES]; /* by the handler; "": it has had no turn */

	/* The migration's thread alone. */
	unsigned notes; /* of the callback that runs, since its last park */
	bool line_due;  /* a callback was stuck, and the log has not heard of it */
	char line[STUCK_TEXT_BYTES];
};

#define STUCK_NONE ((struct stuck){ .fd = -1 })

/** stuck_init - Return: 0 or the errno of timerfd_create(2). */
int stuck_init(struct stuck *s);
/* Nobody may be reading. STUCK_NONE is allowed. */
void stuck_fini(struct stuck *s);

/**
 * stuck_enter - @what ("the callback ready") runs from here on
 * @after_ns: 0 never calls it stuck
 * @where: what is told of the place until a handler knows better; "": one will, unless it gets no turn
 */
void stuck_enter(struct stuck *s, const char *what, uint64_t after_ns, const char *where);

/* A callback runs and has not parked. On the migration's thread. */
static inline bool stuck_is_entered(const struct stuck *s)
{
	return s->since_ns != 0;
}

/* It has returned, or parks. */
void stuck_leave(struct stuck *s);

/* The handler has found out where it is: " at pc 0x...: ...". The descriptor is readable now. */
void stuck_note(struct stuck *s, const char *where);

/**
 * stuck_line - the line for the log, once, when the callback has returned
 * Return: NULL when no callback was stuck; else a text that lives until the next stuck_leave.
 */
const char *stuck_line(struct stuck *s);

/**
 * stuck_text - what is stuck now; from any thread, and it waits for nobody
 * The descriptor is not readable after it, until there is news.
 * Return: bytes of the whole text, of which @buf got as many as fit and a NUL; 0: nothing is stuck, and @buf is "".
 */
size_t stuck_text(struct stuck *s, char *buf, size_t bytes);

#endif
