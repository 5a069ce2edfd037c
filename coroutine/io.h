/*
 * io.h - system calls that park
 *
 * Each is the system call of its name with a deadline, for a coroutine: it parks until the ring reports the result.
 * On a deadline or a cancel the operation is withdrawn first, and the coroutine stays parked until the kernel has let
 * go of its buffers; if the operation has got somewhere by that time, the call returns its result and the cancel stays
 * pending. So bytes are never read and lost. A reader whose deadline passes looks once more: it reads what has come
 * before it calls anybody silent (and see sched_was_away in co.h).
 *
 * Return: as the system call, negative errno on failure; -ETIMEDOUT; -ECANCELED. -ETIMEDOUT is the deadline of the call
 * and nothing else. The kernel says the same of a peer that does not acknowledge (tcp-user-timeout, keepalive); that is
 * -ECONNABORTED here.
 */
#ifndef COROUTINE_IO_H
#define COROUTINE_IO_H

#include "coroutine/co.h"
#include "coroutine/ring.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

struct reactor;

/* Beside recv(2) flags: do it on a worker thread of the kernel, so that the copy runs beside what we do. */
#define IO_ASYNC 0x80000000u

may_park int io_accept(struct reactor *r, int fd, struct sockaddr *addr, socklen_t *addr_bytes, int flags,
                       uint64_t deadline_ns);
may_park int io_connect(struct reactor *r, int fd, const struct sockaddr *addr, socklen_t addr_bytes,
                        uint64_t deadline_ns);
may_park ssize_t io_recv(struct reactor *r, int fd, void *buf, size_t len, unsigned flags, uint64_t deadline_ns);
may_park ssize_t io_recvmsg(struct reactor *r, int fd, struct msghdr *msg, unsigned flags, uint64_t deadline_ns);
may_park ssize_t io_send(struct reactor *r, int fd, const void *buf, size_t len, unsigned flags, uint64_t deadline_ns);
may_park ssize_t io_sendmsg(struct reactor *r, int fd, const struct msghdr *msg, unsigned flags, uint64_t deadline_ns);

/* @off: RING_OFF_CURRENT where there are no offsets (pipes, eventfds). */
may_park ssize_t io_read(struct reactor *r, int fd, void *buf, size_t len, uint64_t off, uint64_t deadline_ns);
may_park ssize_t io_readv(struct reactor *r, int fd, const struct iovec *iov, int iov_count, uint64_t off,
                          uint64_t deadline_ns);
may_park ssize_t io_write(struct reactor *r, int fd, const void *buf, size_t len, uint64_t off, uint64_t deadline_ns);

/** io_poll - Return: revents. */
may_park int io_poll(struct reactor *r, int fd, short events, uint64_t deadline_ns);

/* madvise(2) on a worker thread of the kernel. */
may_park int io_madvise(struct reactor *r, void *addr, size_t len, int advice, uint64_t deadline_ns);

/* Until @deadline_ns. Return: 0 or -ECANCELED. */
may_park int io_sleep_until(struct reactor *r, uint64_t deadline_ns);

/** io_run - any prepared operation; the functions above are made of it */
may_park int32_t io_run(struct reactor *r, struct ring_op *op, uint64_t deadline_ns);

#endif
