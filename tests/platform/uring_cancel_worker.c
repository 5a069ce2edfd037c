/*
 * A cancelled receive on a kernel worker (IOSQE_ASYNC) completes, and writes nothing afterwards. But one cancel may not
 * be enough: it can miss a worker that is just copying (-EALREADY), and must then be sent again.
 */
#include "tests/platform/uring.h"

#include <sys/socket.h>
#include <unistd.h>

static char buf[1 << 20], bytes[512 << 10];

static void cancel(struct io_uring *ring)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

	io_uring_prep_cancel64(sqe, 1, 0);
	io_uring_sqe_set_data64(sqe, 2);
	io_uring_submit(ring);
}

/* Return: how many cancels it took, 0 when ten did not do. */
static int one_round(struct io_uring *ring, int fd, uint64_t after_ns)
{
	struct iovec iov = { buf, sizeof(buf) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe;
	uint64_t until;

	io_uring_prep_recvmsg(sqe, fd, &msg, MSG_WAITALL);
	sqe->flags |= IOSQE_ASYNC;
	io_uring_sqe_set_data64(sqe, 1);
	io_uring_submit(ring);
	for (until = clock_now_ns() + after_ns; clock_now_ns() < until;)
		;
	for (int n = 1; n <= 10; n++) {
		cancel(ring);
		for (bool over = false; (cqe = completion(ring, 50));) {
			over |= io_uring_cqe_get_data64(cqe) == 1;
			io_uring_cqe_seen(ring, cqe);
			if (over && !io_uring_cq_ready(ring))
				return n;
		}
	}
	return 0;
}

int main(void)
{
	struct io_uring ring;
	int missed = 0, rounds = 600;

	ring_or_skip(&ring, 0);
	srandom(1);
	for (int i = 0; i < rounds; i++) {
		int sv[2], space = 1 << 20, n;

		if (socketpair(AF_UNIX, SOCK_STREAM, 0, sv) < 0)
			return 1;
		setsockopt(sv[1], SOL_SOCKET, SO_SNDBUF, &space, sizeof(space));
		send(sv[1], bytes, sizeof(bytes), MSG_DONTWAIT);
		n = one_round(&ring, sv[0], (uint64_t)random() % 150000);
		if (n == 0) {
			printf("round %d: ten cancels did not end a receive\n", i);
			return 1;
		}
		missed += n > 1;
		memset(buf, 0xaa, sizeof(buf));
		send(sv[1], bytes, 4096, MSG_DONTWAIT);
		usleep(50);
		for (size_t off = 0; off < sizeof(buf); off += 512) {
			if ((unsigned char)buf[off] != 0xaa) {
				printf("round %d: written to after the end\n", i);
				return 1;
			}
		}
		close(sv[0]);
		close(sv[1]);
	}
	printf("%d receives cancelled; the first cancel missed %d\n", rounds, missed);
	io_uring_queue_exit(&ring);
	return 0;
}
