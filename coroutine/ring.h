/*
 * ring.h - the seam to the kernel: operations that complete later
 *
 * A ring takes operations, and says in its turn which have completed. Above it nobody knows which kernel interface it
 * is: ring_uring.c is io_uring(7); others can stand in its place.
 *
 * Invariants:
 * (1) From ring->submit until its completion an operation and its buffers belong to the ring, also when it is
 *     cancelled. It lives in the frame of the coroutine that waits for it.
 * (2) Each submitted operation completes exactly once, in a turn, by a call of the `done` function given at open.
 *     Cancelling makes that sooner, with -ECANCELED unless it had got somewhere before.
 * (3) Submitting calls nothing in the kernel: everything submitted goes with the next turn, in one system call.
 */
#ifndef COROUTINE_RING_H
#define COROUTINE_RING_H

#include "base/list.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum ring_kind {
	RING_NOP,
	RING_ACCEPT,  /* buf: struct sockaddr *, addr_bytes: its socklen_t; flags: accept4(2) */
	RING_CONNECT, /* buf: const struct sockaddr *, len: its length */
	RING_RECV,    /* flags: recv(2) */
	RING_RECVMSG, /* buf: struct msghdr * */
	RING_SEND,
	RING_SENDMSG,
	RING_POLL,  /* flags: poll(2) events; the result is revents */
	RING_READ,  /* off: file offset, RING_OFF_CURRENT for pipes and such */
	RING_READV, /* buf: struct iovec *, len: their number */
	RING_WRITE,
	RING_MADVISE, /* buf, len: the range; flags: advice */
	RING_TIMEOUT, /* off: a deadline on CLOCK_MONOTONIC in nanoseconds; the result is -ETIME */
};

#define RING_OFF_CURRENT UINT64_MAX

struct ring_op {
	/* The submitter fills these in. */
	enum ring_kind kind;
	int fd;
	void *buf;
	size_t len;
	uint64_t off;
	void *addr_bytes;
	uint32_t flags;
	bool async;      /* at once on a worker thread of the kernel: large copies that should run beside ours */
	bool background; /* may never complete, and that is all right: not counted as "something will happen" */
	void *waiter;    /* the reactor's */

	/* Result: as the system call's, negative errno on failure. */
	int32_t res;

	/* The ring's. */
	struct list node;
	bool in_flight;
	bool cancel_sent;
	uint64_t timeout[2];
};

struct ring;
typedef void ring_done_fn(struct ring_op *op);

struct ring_class {
	const char *name;

	/** open - Return: 0, or why not: -EPERM (a policy forbids it), -ENOSYS, -ENOMEM. */
	int (*open)(struct ring **ret_ring, ring_done_fn *done);

	/* No operation may be in flight. */
	void (*close)(struct ring *ring);

	void (*submit)(struct ring *ring, struct ring_op *op);

	/* Ask for an early end of @op, which is in flight; by (2) it completes later all the same. */
	void (*cancel)(struct ring *ring, struct ring_op *op);

	/**
	 * turn - hand over what was submitted, then report completions
	 * @deadline_ns: wait for the first completion until then; 0: do not wait
	 * Return: number of completions, or negative errno when the ring is broken.
	 */
	int (*turn)(struct ring *ring, uint64_t deadline_ns);

	/* Readable when a turn would find completions, perhaps also when not. Costs something from the first call.
	 * Return: the descriptor; -1: its user has closed it. */
	int (*fd)(struct ring *ring);
};

struct ring {
	const struct ring_class *class;
	ring_done_fn *done;
	size_t in_flight; /* operations, background ones included */
	size_t background_in_flight;
	uint64_t turns; /* for benchmarks */
	uint64_t completions;
};

/**
 * ring_forget - @op is in flight, holds no memory of the kernel's or ours (a timeout), and the ring is closed next
 */
static inline void ring_forget(struct ring *ring, struct ring_op *op)
{
	op->in_flight = false;
	ring->in_flight--;
	ring->background_in_flight -= op->background;
}

extern const struct ring_class ring_uring;

#endif
