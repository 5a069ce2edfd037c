/* The single issuer of a ring made with R_DISABLED is the thread that enables it, not the one that made it. */
#include "tests/platform/uring.h"

#include <errno.h>
#include <pthread.h>

static struct io_uring ring;

static void *issue(void *arg)
{
	struct io_uring_cqe *cqe = NULL;

	if (io_uring_register((unsigned)ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) < 0)
		return NULL;
	io_uring_prep_nop(io_uring_get_sqe(&ring));
	if (io_uring_submit(&ring) == 1)
		cqe = completion(&ring, 1000);
	*(int *)arg = cqe && cqe->res == 0;
	if (cqe)
		io_uring_cqe_seen(&ring, cqe);
	return NULL;
}

int main(void)
{
	pthread_t thread;
	int ok = 0, r;

	ring_or_skip(&ring, IORING_SETUP_R_DISABLED);
	if (pthread_create(&thread, NULL, issue, &ok) != 0)
		return 1;
	pthread_join(thread, NULL);
	io_uring_prep_nop(io_uring_get_sqe(&ring));
	r = io_uring_submit(&ring);
	printf("the thread that enabled it: %s; the thread that made it: %s\n", ok ? "may submit" : "may not submit",
	       r < 0 ? strerror(-r) : "may submit");
	return ok && r == -EEXIST ? 0 : 1;
}
