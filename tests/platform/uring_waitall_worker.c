/* A recvmsg with MSG_WAITALL on a kernel worker completes once, with all bytes, in however many pieces they come. */
#include "tests/platform/uring.h"

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define WHOLE (3u << 20)

static int sv[2];
static char there[WHOLE], here[WHOLE];

static int send_in_pieces(void)
{
	for (size_t off = 0; off < WHOLE;) {
		size_t piece = 1 + off % 77777;
		ssize_t n = send(sv[1], there + off, piece < WHOLE - off ? piece : WHOLE - off, 0);

		if (n <= 0)
			return 1;
		off += (size_t)n;
		if (off % 7 == 0)
			usleep(500);
	}
	return 0;
}

int main(void)
{
	enum { PARTS = 64 };
	struct iovec iov[PARTS];
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = PARTS };
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	struct io_uring ring;
	pid_t pid;

	ring_or_skip(&ring, 0);
	for (size_t i = 0; i < WHOLE; i++)
		there[i] = (char)(i ^ i >> 11);
	for (size_t i = 0; i < PARTS; i++)
		iov[i] = (struct iovec){ here + i * (WHOLE / PARTS), WHOLE / PARTS };
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sv) < 0)
		return 1;
	sqe = io_uring_get_sqe(&ring);
	io_uring_prep_recvmsg(sqe, sv[0], &msg, MSG_WAITALL);
	sqe->flags |= IOSQE_ASYNC;
	io_uring_submit(&ring);
	/* A process, not a thread: valgrind 3.19 takes io_uring_enter for a call that does not block, and all threads
	 * stand still while one waits in it. */
	pid = fork();
	if (pid == 0)
		_exit(send_in_pieces());
	cqe = completion(&ring, 20000);
	waitpid(pid, NULL, 0);
	printf("asked for %u bytes, completed with %d\n", WHOLE, cqe ? cqe->res : -1);
	return cqe && cqe->res == (int)WHOLE && memcmp(here, there, WHOLE) == 0 ? 0 : 1;
}
