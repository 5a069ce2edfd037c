/* vsock: a stream from another context of this machine. Most kernels have no loopback for it; then there is no peer. */
#include "inmigrate.h"
#include "tests/support/check_main.h"
#include "tests/support/embedder.h"
#include "tests/support/wire.h"

#include <errno.h>
#include <linux/vm_sockets.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static int connect_local(unsigned port)
{
	struct sockaddr_vm sa = { .svm_family = AF_VSOCK, .svm_cid = 1 /* VMADDR_CID_LOCAL */, .svm_port = port };
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		close(fd);
		return -errno;
	}
	return fd < 0 ? -errno : fd;
}

static int any_block(void *opaque, struct inm_ram_block *block)
{
	(void)opaque;
	block->fd = memfd_create("block", MFD_CLOEXEC);
	return block->fd < 0 || ftruncate(block->fd, (off_t)block->bytes) < 0 ? -errno : 0;
}

static const struct inm_ops ops = { .size = sizeof(ops), .ram_block = any_block };

_Noreturn static void send_all(const struct wire *w, unsigned port)
{
	int fd = connect_local(port);

	_exit(fd >= 0 && write(fd, w->data, w->len) == (ssize_t)w->len ? 0 : 1);
}

TEST_CASE("vsock", 4);

TEST(test_a_stream_lands_over_vsock)
{
	struct honest_image image;
	struct wire w = { 0 };
	struct inm *inm;
	unsigned port;
	pid_t pid;
	int r, fd;

	ck_assert_int_eq(inm_new(&inm, NULL, &ops, NULL), 0);
	r = inm_listen(inm, "vsock:4294967295:0");
	if (r == -EAFNOSUPPORT) {
		inm_free(inm);
		test_skip("this kernel has no vsock");
	}
	if (r == -EACCES) {
		inm_free(inm);
		test_skip("no permission to listen on vsock: only root may");
	}
	ck_assert_int_eq(r, 0);
	ck_assert_int_eq(sscanf(inm_address(inm, 0), "vsock:%*u:%u", &port), 1);
	fd = connect_local(port);
	if (fd < 0) {
		inm_free(inm);
		test_skip("this kernel has no vsock loopback: nobody can connect from here");
	}
	close(fd); /* a stranger, for the migration */
	wire_honest(&w, &(struct honest_opts){ 0 }, &image);
	pid = fork();
	if (pid == 0)
		send_all(&w, port);
	ck_assert_int_eq(inm_run(inm), 0);
	waitpid(pid, &r, 0);
	inm_free(inm);
}
