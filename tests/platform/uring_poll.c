/*
 * To poll a DEFER_TASKRUN ring from outside, poll an eventfd that is registered with it: the ring's own descriptor does
 * not wake a thread that already sleeps in epoll_wait(2) (6.18). coroutine/ring_uring.c hands out the eventfd.
 */
#include "tests/platform/uring.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Milliseconds until epoll_wait on @fd ends, when an operation of @ring completes after 30. */
static int wait_ms(struct io_uring *ring, int fd)
{
	struct epoll_event event = { .events = EPOLLIN };
	struct __kernel_timespec ts = { .tv_nsec = 30 * (long long)NS_PER_MS };
	int ep = epoll_create1(EPOLL_CLOEXEC), n;
	uint64_t began;

	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &event);
	io_uring_prep_timeout(io_uring_get_sqe(ring), &ts, 0, 0);
	io_uring_submit_and_get_events(ring);
	began = clock_now_ns();
	do {
		n = epoll_wait(ep, &event, 1, 500);
	} while (n < 0 && errno == EINTR); /* the kernel's own work for a ring interrupts, too */
	close(ep);
	return n == 1 ? (int)((clock_now_ns() - began) / NS_PER_MS) : 500;
}

int main(void)
{
	struct io_uring ring;
	int fd, by_ring, by_eventfd;

	ring_or_skip(&ring, 0);
	by_ring = wait_ms(&ring, ring.ring_fd);
	io_uring_queue_exit(&ring);

	ring_or_skip(&ring, 0);
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (io_uring_register_eventfd(&ring, fd) < 0)
		return 1;
	by_eventfd = wait_ms(&ring, fd);
	printf("a completion after 30 ms is seen through the eventfd after %d ms, through the ring itself after %d%s\n",
	       by_eventfd, by_ring, by_ring == 500 ? " (not at all)" : "");
	io_uring_queue_exit(&ring);
	close(fd);
	return by_eventfd >= 29 && by_eventfd < 400 ? 0 : 1;
}
