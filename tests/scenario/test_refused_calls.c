/*
 * How every public call answers NULL, impossible values, and a missing ring: with a defined result and a line that says
 * why (inm_error(3)).
 */
#include "tests/support/check_main.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/support/scene.h"

static void said(const char *error, const char *word)
{
	ck_assert_msg(strstr(error, word) != NULL, "'%s' is not in: %s", word, error);
}

/* ---- NULL ---------------------------------------------------------------------------------------------------- */

static void call_all_with_null(void)
{
	struct inm_stats st = { .size = sizeof(st), .devices = 7 };
	int pipe_fds[2];
	char uri[32];

	inm_free(NULL);
	inm_reactor_free(NULL);
	inm_cancel(NULL);
	ck_assert_int_eq(inm_set_capability(NULL, "return-path", true), -EINVAL);
	ck_assert_int_eq(inm_set_parameter(NULL, "machine", "x"), -EINVAL);
	ck_assert_int_eq(inm_listen(NULL, "tcp:127.0.0.1:0"), -EINVAL);
	ck_assert_int_eq(inm_listen(NULL, NULL), -EINVAL);
	ck_assert_int_eq(inm_run(NULL), -EINVAL);
	ck_assert_int_eq(inm_run_until(NULL, 0), -EINVAL);
	ck_assert_int_eq(inm_dispatch(NULL), -EINVAL);
	ck_assert_int_eq(inm_fd(NULL), -EINVAL);
	ck_assert_int_eq(inm_pause(NULL), -EINVAL);
	ck_assert_int_eq(inm_recover(NULL, "tcp:127.0.0.1:0"), -EINVAL);
	ck_assert_int_eq(inm_ram_await(NULL, &st, 1), -EINVAL);
	ck_assert_ptr_null(inm_ram_view(NULL, &st, 1));
	ck_assert_ptr_null(inm_address(NULL, 0));
	ck_assert_int_eq(inm_get_state(NULL), INM_STATE_NONE);
	ck_assert_uint_eq(inm_get_blocktime(NULL, NULL, 5), 0);
	ck_assert_int_eq(inm_get_stats(NULL, &st), -EINVAL);
	ck_assert_uint_eq(st.devices, 0);
	ck_assert_uint_eq(st.size, sizeof(st));
	ck_assert_int_eq(inm_get_stats(NULL, NULL), -EINVAL);
	ck_assert_int_eq(inm_stuck_fd(NULL), -EINVAL);
	ck_assert_int_eq(inm_stuck_text(NULL, NULL, 0), -EINVAL);
	/* A descriptor is the library's also when the call fails. */
	ck_assert_int_eq(pipe(pipe_fds), 0);
	snprintf(uri, sizeof(uri), "fd:%d", pipe_fds[0]);
	ck_assert_int_eq(inm_listen(NULL, uri), -EINVAL);
	ck_assert_int_eq(close(pipe_fds[0]), -1);
	ck_assert_int_eq(close(pipe_fds[1]), 0);
}

TEST_CASE("null", 4);

TEST(test_every_call_accepts_null)
{
	ck_assert_str_eq(inm_last_error(), "no error");
	ck_assert_str_eq(inm_error(NULL), "no error");
	call_all_with_null();
	ck_assert_str_ne(inm_error(NULL), "no error");
	ck_assert_int_eq(inm_run(NULL), -EINVAL);
	ck_assert_str_eq(inm_error(NULL), "inm_run: NULL was given for the object (EINVAL)");
	ck_assert_ptr_eq(inm_error(NULL), inm_last_error());
}

TEST(test_null_of_a_constructor_that_failed_is_told_as_that)
{
	struct inm *inm = (void *)-1;

	ck_assert_int_eq(inm_new(&inm, NULL, NULL, NULL), -EINVAL);
	ck_assert_ptr_null(inm);
	ck_assert_int_eq(inm_listen(inm, "tcp:127.0.0.1:0"), -EINVAL);
	ck_assert_str_eq(inm_error(inm), "inm_new: NULL was given for the callbacks (EINVAL)");
}

TEST(test_arguments_that_are_null_are_refused)
{
	struct scene s;

	scene_begin(&s, NULL);
	land_new(&s.e, &(struct land_opts){ 0 });
	ck_assert_str_eq(inm_error(s.e.inm), "no error");
	ck_assert_int_eq(inm_set_capability(s.e.inm, NULL, true), -EINVAL);
	said(inm_error(s.e.inm), "NULL");
	ck_assert_int_eq(inm_set_parameter(s.e.inm, NULL, "1"), -EINVAL);
	ck_assert_int_eq(inm_set_parameter(s.e.inm, "machine", NULL), -EINVAL);
	said(inm_error(s.e.inm), "parameter machine");
	ck_assert_int_eq(inm_listen(s.e.inm, NULL), -EINVAL);
	ck_assert_int_eq(inm_recover(s.e.inm, NULL), -EINVAL);
	ck_assert_int_eq(inm_ram_await(s.e.inm, NULL, 1), -EFAULT);
	ck_assert_int_eq(inm_ram_await(s.e.inm, NULL, SIZE_MAX), -EFAULT);
	ck_assert_ptr_null(inm_ram_view(s.e.inm, NULL, 0));
	ck_assert_uint_eq(inm_get_blocktime(s.e.inm, NULL, 100), 0);
	ck_assert_int_eq(inm_get_stats(s.e.inm, NULL), -EINVAL);
	ck_assert_ptr_null(inm_address(s.e.inm, 0));
	ck_assert_ptr_null(inm_address(s.e.inm, UINT_MAX));
	scene_end(&s);
}

/* ---- constructors -------------------------------------------------------------------------------------------- */

static void refused(const struct inm_config *config, const struct inm_ops *ops, const char *word)
{
	struct inm *inm = (void *)-1;

	ck_assert_int_eq(inm_new(&inm, config, ops, NULL), -EINVAL);
	ck_assert_ptr_null(inm);
	said(inm_last_error(), word);
	said(inm_last_error(), "inm_new: ");
}

TEST_CASE("values", 4);

TEST(test_a_constructor_that_fails_leaves_null_and_says_why)
{
	struct inm_config config = { .size = sizeof(config), .log_level = INM_LOG_INFO };
	struct inm_reactor_config rc = { .size = sizeof(rc), .stack_bytes = SIZE_MAX };
	struct inm_reactor *reactor = (void *)-1;
	struct inm_ops ops = embedder_ops;
	char machine[2000] = { 0 };
	struct inm *inm;

	ck_assert_int_eq(inm_new(NULL, NULL, &ops, NULL), -EINVAL);
	said(inm_last_error(), "NULL was given for the result");
	ck_assert_int_eq(inm_reactor_new(NULL, NULL), -EINVAL);
	said(inm_last_error(), "inm_reactor_new: NULL");
	refused(&config, NULL, "callbacks");
	ops.size = 0;
	refused(&config, &ops, "the size in struct inm_ops is 0");
	ops.size = sizeof(ops) + 1;
	refused(&config, &ops, "sizeof(struct inm_ops)");
	ops.size = sizeof(size_t);
	refused(&config, &ops, "ram_block");
	ops = embedder_ops;
	ops.ram_block = NULL;
	refused(&config, &ops, "ram_block");
	ops = embedder_ops;
	config.size = 3;
	refused(&config, &ops, "struct inm_config is 3");
	config.size = sizeof(config);
	config.log_level = (enum inm_log_level)99;
	refused(&config, &ops, "log_level is 99");
	config.log_level = (enum inm_log_level) - 1;
	refused(&config, &ops, "log_level is -1");
	config.log_level = INM_LOG_INFO;
	memset(machine, 'm', sizeof(machine) - 1);
	config.machine = machine;
	ck_assert_int_eq(inm_new(&inm, &config, &ops, NULL), -ERANGE);
	ck_assert_ptr_null(inm);
	said(inm_error(inm), "machine");
	ck_assert_int_eq(inm_reactor_new(&reactor, &rc), -EINVAL);
	ck_assert_ptr_null(reactor);
	said(inm_last_error(), "stack_bytes");
	ck_assert_int_eq(inm_new(&inm, NULL, &ops, NULL), 0);
	ck_assert_str_eq(inm_last_error(), "no error");
	inm_free(inm);
}

/* Half of a pointer is none: the rest of it would be whatever lies there. */
TEST(test_callbacks_that_are_there_in_part_are_not_called)
{
	for (size_t size = offsetof(struct inm_ops, device); size < sizeof(struct inm_ops); size++) {
		struct inm_ops ops = embedder_ops;
		struct scene s;

		memset((char *)&ops + size, 0xa5, sizeof(ops) - size);
		ops.size = size;
		scene_begin(&s, &(struct honest_opts){ 0 });
		ck_assert_int_eq(scene_land(&s, &(struct land_opts){ .ops = &ops }), 0);
		scene_end(&s);
	}
}

TEST(test_a_size_of_numbers_that_cannot_be_is_refused_and_nothing_is_written)
{
	static const size_t sizes[] = { 0, 7, 5000, SIZE_MAX };
	struct scene s;

	scene_begin(&s, NULL);
	land_new(&s.e, &(struct land_opts){ 0 });
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct inm_stats st = { .size = sizes[i], .devices = 77 };

		ck_assert_int_eq(inm_get_stats(s.e.inm, &st), -EINVAL);
		said(inm_last_error(), "inm_get_stats: the size in struct inm_stats is ");
		ck_assert_uint_eq(st.devices, 77);
	}
	scene_end(&s);
}

TEST(test_states_that_are_none_have_a_name)
{
	ck_assert_str_eq(inm_state_name((enum inm_state) - 1), "unknown");
	ck_assert_str_eq(inm_state_name((enum inm_state)1000), "unknown");
}

/* ---- descriptors --------------------------------------------------------------------------------------------- */

static int open_odd(unsigned which)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = -1;

	switch (which) {
	case 0:
		return open("/", O_RDONLY | O_CLOEXEC);
	case 1:
		return epoll_create1(EPOLL_CLOEXEC);
	case 2:
		return eventfd(1, EFD_CLOEXEC);
	case 3:
		return open("/dev/null", O_WRONLY | O_CLOEXEC);
	case 4:
		return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); /* not connected */
	case 5:
		fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		ck_assert_int_eq(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
		ck_assert_int_eq(listen(fd, 1), 0);
		return fd;
	case 6:
		return open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	default:
		return open("/dev/null", O_PATH | O_CLOEXEC);
	}
}

TEST_EACH(test_a_descriptor_that_no_stream_comes_from_fails_the_migration, 8)
{
	struct scene s;
	char uri[32];
	int fd, r;

	scene_begin(&s, NULL);
	land_new(&s.e, &(struct land_opts){ 0 });
	fd = open_odd((unsigned)_i);
	ck_assert_int_ge(fd, 0);
	snprintf(uri, sizeof(uri), "fd:%d", fd);
	r = inm_listen(s.e.inm, uri);
	if (r == 0)
		r = inm_run_until(s.e.inm, deadline_after_ns(5 * NS_PER_S));
	ck_assert_int_lt(r, 0);
	ck_assert_int_ne(r, -ETIMEDOUT);
	ck_assert_str_ne(inm_error(s.e.inm), "no error");
	scene_end(&s);
}

TEST(test_numbers_that_are_no_descriptor_are_refused)
{
	static const char *const uris[] = { "fd:", "fd:-1", "fd:99999999999", "fd:2147483647", "fd:7x", "fd:stdin" };
	struct scene s;

	scene_begin(&s, NULL);
	land_new(&s.e, &(struct land_opts){ 0 });
	for (unsigned i = 0; i < sizeof(uris) / sizeof(uris[0]); i++) {
		ck_assert_int_lt(inm_listen(s.e.inm, uris[i]), 0);
		said(inm_error(s.e.inm), "fd:");
	}
	scene_end(&s);
}

/* ---- the last failure ---------------------------------------------------------------------------------------- */

TEST(test_inm_error_is_the_last_failure)
{
	struct scene s;

	scene_begin(&s, NULL);
	land_new(&s.e, &(struct land_opts){ 0 });
	ck_assert_int_eq(inm_set_capability(s.e.inm, "nonsense", true), -ENOENT);
	said(inm_error(s.e.inm), "nonsense");
	ck_assert_int_eq(inm_run(s.e.inm), -EINVAL);
	ck_assert_str_eq(inm_error(s.e.inm), "nothing has been listened to: inm_listen comes first (EINVAL)");
	ck_assert_int_eq(inm_dispatch(s.e.inm), -EINVAL);
	ck_assert_int_eq(inm_listen(s.e.inm, "unix:/nonexistent/folder/socket"), -ENOENT);
	said(inm_error(s.e.inm), "/nonexistent/folder");
	said(inm_last_error(), "inm_listen: ");
	ck_assert_int_eq(inm_recover(s.e.inm, "tcp:127.0.0.1:0"), -EBUSY);
	said(inm_error(s.e.inm), "nothing is paused");
	ck_assert_int_eq(inm_ram_await(s.e.inm, &s, 1), -EFAULT);
	said(inm_error(s.e.inm), "not inside one block");
	ck_assert_int_eq(inm_listen(s.e.inm, "fd:9999"), -EBADF);
	said(inm_error(s.e.inm), "EBADF");
	ck_assert_int_eq(inm_listen(s.e.inm, "tcp:127.0.0.1:0"), 0);
	ck_assert_str_eq(inm_error(s.e.inm), "no error");
	ck_assert_int_eq(inm_listen(s.e.inm, "tcp:127.0.0.1:0"), -EBUSY);
	said(inm_error(s.e.inm), "listening already");
	inm_cancel(s.e.inm);
	ck_assert_int_eq(inm_run(s.e.inm), -ECANCELED);
	ck_assert_str_eq(inm_error(s.e.inm), "incoming: cancelled (ECANCELED)");
	ck_assert_str_eq(inm_last_error(), "inm_run: incoming: cancelled (ECANCELED)");
	scene_end(&s);
}

/* ---- no ring ------------------------------------------------------------------------------------------------- */

/* io_uring_setup(2) fails as it does under a policy. */
static void forbid_io_uring(int code)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)code),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { .len = sizeof(filter) / sizeof(filter[0]), .filter = filter };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) < 0)
		_exit(77);
}

/* In a process of its own. Return: 0 as it should be. */
static int without_a_ring(int code, bool low_limit, const char *word)
{
	struct inm_reactor *reactor = (void *)-1;
	struct inm *inm = (void *)-1;

	if (low_limit && setrlimit(RLIMIT_MEMLOCK, &(struct rlimit){ 65536, 65536 }) < 0)
		return 77;
	forbid_io_uring(code);
	if (inm_new(&inm, NULL, &embedder_ops, NULL) != -code || inm || !strstr(inm_error(inm), word))
		return 1;
	if (inm_reactor_new(&reactor, NULL) != -code || reactor || !strstr(inm_last_error(), word))
		return 2;
	return 0;
}

static const struct {
	int code;
	bool low_limit;
	const char *word;
} refusals[] = {
	{ EPERM, false, "permit io_uring_setup(2), io_uring_enter(2) and io_uring_register(2)" },
	{ ENOSYS, false, "permit io_uring_setup(2)" },
	{ ENOMEM, true, "locked memory (RLIMIT_MEMLOCK, ulimit -l) is 64 KiB, and one reactor needs up to 128 KiB" },
	{ ENOMEM, false, "RLIMIT_MEMLOCK" },
	{ EMFILE, false, "RLIMIT_NOFILE" },
};

TEST_CASE("ring", 4);

TEST_ROWS(test_a_ring_that_is_refused_is_told_with_what_to_permit, refusals)
{
	int status;
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		_exit(without_a_ring(refusals[_i].code, refusals[_i].low_limit, refusals[_i].word));
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		test_skip("no seccomp filter can be installed");
	ck_assert_int_eq(status, 0);
}
