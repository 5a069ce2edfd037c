/*
 * Which parts of userfaultfd are available here, and what we say when they are not: opening one, and the probe. This
 * program replaces uname and ioctl, so that it can emulate older kernels. Closed doors are real: another user, a
 * seccomp policy, a root without /dev, no descriptors left.
 */
#include "tests/unit/uffd_world.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- a kernel that is played -------------------------------------------------------------------------------- */

static const char *played_release; /* NULL: the real one */
static uint64_t played_features;   /* 0: the real ones */
static int played_new_error;       /* of the device's ioctl; 0: the real one */

int uname(struct utsname *un)
{
	long r = syscall(SYS_uname, un);

	if (r == 0 && played_release)
		snprintf(un->release, sizeof(un->release), "%s", played_release);
	return (int)r;
}

static int play_api(int fd, struct uffdio_api *api)
{
	uint64_t ask = api->features;
	int r;

	if (ask & ~played_features) {
		errno = EINVAL;
		return -1;
	}
	r = (int)syscall(SYS_ioctl, fd, UFFDIO_API, api);
	api->features &= played_features;
	return r;
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (request == UFFDIO_API && played_features)
		return play_api(fd, arg);
	if (request == _IO(0xAA, 0x00) && played_new_error) { /* USERFAULTFD_IOC_NEW */
		errno = played_new_error;
		return -1;
	}
	return (int)syscall(SYS_ioctl, fd, request, arg);
}

static int count_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	ck_assert_ptr_nonnull(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* ---- opening ------------------------------------------------------------------------------------------------ */

static void setup(void)
{
	u = UFFD_NONE;
	err = ERR_NONE;
}

static void teardown(void)
{
	uffd_close(&u);
}

TEST_CASE("open", 20, .checked = { setup, teardown });

TEST(test_open_does_not_block_and_is_not_inherited)
{
	struct uffd_msg msg;

	open_or_skip(0);
	ck_assert_int_eq(fcntl(u.fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	ck_assert_int_eq(fcntl(u.fd, F_GETFD), FD_CLOEXEC);
	ck_assert_int_eq(uffd_read(&u, &msg, 1), 0);
	ck_assert_uint_eq(u.features, 0);
}

TEST(test_open_takes_what_is_wanted_where_it_is)
{
	uint64_t known = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_THREAD_ID;
	int before = count_descriptors();

	if (uffd_open(&u, UFFD_FEATURE_MISSING_SHMEM, UFFD_FEATURE_THREAD_ID | 1ull << 63, &err) < 0)
		test_skip(err.text);
	ck_assert_uint_eq(u.features, known);
	ck_assert_int_eq(count_descriptors(), before + 1);
	uffd_close(&u);
	ck_assert_int_eq(u.fd, -1);
	uffd_close(&u);
	ck_assert_int_eq(count_descriptors(), before);
}

TEST(test_open_names_what_is_needed_and_not_there)
{
	int before = count_descriptors();

	open_or_skip(0);
	uffd_close(&u);
	u.features = 77;
	ck_assert_int_eq(uffd_open(&u, UFFD_FEATURE_MISSING_SHMEM | 1ull << 63, 0, &err), -ENOTSUP);
	ck_assert_int_eq(err.code, -ENOTSUP);
	ck_assert_ptr_nonnull(strstr(err.text, "bits 0x8000000000000000"));
	ck_assert_ptr_null(strstr(err.text, "missing-shmem"));
	ck_assert_uint_eq(u.features, 77); /* nothing is written */
	ck_assert_int_eq(count_descriptors(), before);
	u = UFFD_NONE;
}

TEST(test_open_names_the_release_that_has_it)
{
	open_or_skip(0);
	uffd_close(&u);
	played_release = "5.10.0-old";
	played_features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_SIGBUS;
	ck_assert_int_eq(uffd_open(&u,
	                           UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_EXACT_ADDRESS,
	                           0, &err),
	                 -ENOTSUP);
	ck_assert_str_eq(err.text, "userfaultfd: this kernel, 5.10.0-old, has no minor-shmem (Linux 5.14), "
	                           "exact-address (Linux 5.18)");
	ck_assert_int_eq(uffd_open(&u, UFFD_FEATURE_SIGBUS, UFFD_FEATURE_MINOR_SHMEM, &err), 0);
	ck_assert_uint_eq(u.features, UFFD_FEATURE_SIGBUS);
}

/* ---- doors: each in a process of its own, which can lose what it has ---------------------------------------- */

struct verdict {
	int r, left; /* descriptors it left open, the userfaultfd aside */
	struct uffd u;
	struct err err;
	struct uffd_probe probe;
	int doors[2]; /* of uffd_check_doors, without and with the kernel's faults */
	struct err doors_err;
};

/* Every userfaultfd(2) from here on fails with @error. */
static void forbid_call(int error)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { .len = 4, .filter = filter };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) < 0)
		_exit(3);
}

static void become_nobody(void)
{
	if (setresuid(65534, 65534, 65534) < 0)
		_exit(3);
}

static void leave_dev(void)
{
	if (chroot("/proc/self/fdinfo") < 0 || chdir("/") < 0)
		_exit(3);
}

static void lose_descriptors(void)
{
	struct rlimit limit = { 0, 0 };

	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		_exit(3);
}

/* Descriptors below 100 that are open, without /proc. */
static int count_low(void)
{
	int n = 0;

	for (int fd = 0; fd < 100; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static struct verdict after(void (*lose)(void), int forbidden, uint64_t needed, uint64_t wanted)
{
	struct verdict *v = mmap(NULL, sizeof(*v), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), copy;
	int status, before;
	pid_t pid;

	need_the_real_machine();
	if (geteuid() != 0)
		test_skip("only root can lose privileges");
	ck_assert_ptr_ne(v, MAP_FAILED);
	pid = fork();
	if (pid == 0) {
		before = count_low();
		if (lose)
			lose();
		if (forbidden)
			forbid_call(forbidden);
		v->r = uffd_open(&v->u, needed, wanted, &v->err);
		uffd_probe(&v->probe);
		for (int kernel = 0; kernel < 2; kernel++)
			v->doors[kernel] = uffd_check_doors(kernel, &v->doors_err);
		v->left = count_low() - before - (v->r == 0);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 3)
		test_skip("root without the rights to lose privileges, or no seccomp");
	ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	copy = *v;
	munmap(v, sizeof(*v));
	ck_assert_int_eq(copy.left, 0);
	return copy;
}

static bool sysctl_permits(void)
{
	FILE *f = fopen("/proc/sys/vm/unprivileged_userfaultfd", "re");
	int c = f ? getc(f) : '0';

	if (f)
		fclose(f);
	return c == '1';
}

static void need_closed_device(void)
{
	if (sysctl_permits())
		test_skip("vm.unprivileged_userfaultfd is 1: the second door is open to all");
	if (access("/dev/userfaultfd", F_OK) < 0)
		test_skip("no /dev/userfaultfd, before Linux 6.1");
}

static void assert_says(const struct verdict *v, int code, const char *text)
{
	ck_assert_int_eq(v->r, code);
	ck_assert_int_eq(v->err.code, code);
	ck_assert_str_eq(v->err.text, text);
	ck_assert_int_eq(v->probe.error, code);
	ck_assert_int_eq(v->doors[0], code);
	ck_assert_int_eq(v->doors[1], code);
	ck_assert_str_eq(v->doors_err.text, text);
	ck_assert_str_eq(v->probe.error_text, text);
	ck_assert_uint_eq(v->probe.count, 0);
}

TEST_CASE("doors", 20, .checked = { setup, teardown });

TEST(test_the_device_is_the_first_door)
{
	struct verdict v;

	if (access("/dev/userfaultfd", F_OK) < 0)
		test_skip("no /dev/userfaultfd, before Linux 6.1");
	v = after(NULL, EPERM, 0, 0);
	ck_assert_int_eq(v.r, 0);
	ck_assert_int_eq(v.u.door, UFFD_DOOR_DEVICE);
	ck_assert_int_eq(v.doors[1], 0);
	ck_assert_str_eq(v.probe.findings[0].name, "kernel-faults");
	ck_assert(v.probe.findings[0].there);
}

TEST(test_the_call_is_the_second_door)
{
	struct verdict v = after(leave_dev, 0, 0, 0);

	ck_assert_int_eq(v.r, 0);
	ck_assert_int_eq(v.u.door, UFFD_DOOR_SYSCALL);
	ck_assert_int_eq(v.doors[1], 0);
	ck_assert(v.probe.findings[0].there);
}

TEST(test_user_mode_is_the_third_door_and_told)
{
	struct verdict v;

	need_closed_device();
	v = after(become_nobody, 0, 0, UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_THREAD_ID);
	ck_assert_int_eq(v.r, 0);
	ck_assert_int_eq(v.u.door, UFFD_DOOR_USER_MODE);
	ck_assert_uint_eq(v.u.features, UFFD_FEATURE_THREAD_ID); /* the fork event needs a privilege */
	ck_assert_int_eq(v.probe.door, UFFD_DOOR_USER_MODE);
	ck_assert(!v.probe.findings[0].there);
	ck_assert_str_eq(v.probe.findings[0].why_not,
	                 "(KVM, vhost) /dev/userfaultfd: EACCES, system call: EPERM; permit this user the device, or "
	                 "CAP_SYS_PTRACE, or sysctl vm.unprivileged_userfaultfd=1");
	ck_assert_int_eq(v.doors[0], 0);
	ck_assert_int_eq(v.doors[1], -EPERM);
	ck_assert_str_eq(v.doors_err.text,
	                 "faults inside the kernel (KVM, vhost) cannot be served: /dev/userfaultfd: EACCES; system "
	                 "call: EPERM; permit this user the device, or CAP_SYS_PTRACE, or sysctl "
	                 "vm.unprivileged_userfaultfd=1; or set parameter postcopy-kernel-faults=off, if neither KVM "
	                 "nor vhost will touch guest memory");
}

TEST(test_the_fork_event_needs_a_privilege)
{
	struct verdict v;

	need_closed_device();
	v = after(become_nobody, 0, UFFD_FEATURE_EVENT_FORK, 0);
	ck_assert_int_eq(v.r, -EPERM);
	ck_assert_str_eq(v.err.text, "userfaultfd: event-fork needs CAP_SYS_PTRACE");
	ck_assert_int_eq(v.probe.error, 0);
	for (size_t i = 0; i < v.probe.count; i++) {
		bool is_fork = strcmp(v.probe.findings[i].name, "event-fork") == 0;

		if (is_fork)
			ck_assert_str_eq(v.probe.findings[i].why_not, "EPERM: needs CAP_SYS_PTRACE");
		ck_assert(!is_fork || !v.probe.findings[i].there);
	}
}

TEST(test_closed_doors_are_all_told)
{
	struct verdict v;

	need_closed_device();
	v = after(become_nobody, EPERM, 0, 0);
	assert_says(&v, -EPERM,
	            "no userfaultfd: /dev/userfaultfd: EACCES; system call: EPERM; for user mode only: "
	            "EPERM; permit this user the device, or the call in the container's seccomp policy");
	/* A kernel before 5.11 with neither the device nor the third door. */
	v = after(become_nobody, EINVAL, 0, 0);
	assert_says(&v, -EPERM,
	            "no userfaultfd: /dev/userfaultfd: EACCES; system call: EINVAL; for user mode only: "
	            "EINVAL; CAP_SYS_PTRACE or sysctl vm.unprivileged_userfaultfd=1 would open the second");
	/* The device shows that this is a policy, not a kernel without. */
	v = after(become_nobody, ENOSYS, 0, 0);
	ck_assert_int_eq(v.r, -EPERM);
}

static void have_strange_device(void)
{
	played_new_error = ENOTTY;
}

TEST(test_a_device_that_gives_none_is_told)
{
	struct verdict v;

	if (access("/dev/userfaultfd", F_OK) < 0)
		test_skip("no /dev/userfaultfd, before Linux 6.1");
	v = after(have_strange_device, EPERM, 0, 0);
	assert_says(&v, -EPERM,
	            "no userfaultfd: /dev/userfaultfd: ENOTTY; system call: EPERM; for user mode only: "
	            "EPERM; permit this user the device, or the call in the container's seccomp policy");
}

TEST(test_a_kernel_without_is_told)
{
	struct verdict v = after(leave_dev, ENOSYS, 0, 0);

	assert_says(&v, -ENOSYS,
	            "no userfaultfd: /dev/userfaultfd: ENOENT; system call: ENOSYS; for user mode only: "
	            "ENOSYS; the kernel needs CONFIG_USERFAULTFD; a seccomp policy may also hide it");
}

TEST(test_a_limit_is_not_a_closed_door)
{
	struct verdict v = after(lose_descriptors, 0, 0, 0);

	ck_assert_int_eq(v.r, -EMFILE);
	ck_assert_ptr_nonnull(strstr(v.err.text, "a limit of the process"));
}

TEST(test_every_door_has_a_name)
{
	for (int d = 0; d < UFFD_DOOR_COUNT; d++) {
		for (int e = 0; e < d; e++)
			ck_assert_str_ne(uffd_door_name((enum uffd_door)d), uffd_door_name((enum uffd_door)e));
	}
	ck_assert_str_eq(uffd_door_name(UFFD_DOOR_COUNT), "?");
}

/* ---- the probe ---------------------------------------------------------------------------------------------- */

static const struct uffd_finding *find(const struct uffd_probe *p, const char *name)
{
	for (size_t i = 0; i < p->count; i++) {
		if (strcmp(p->findings[i].name, name) == 0)
			return &p->findings[i];
	}
	ck_abort_msg("no finding '%s'", name);
}

TEST_CASE("probe", 20, .checked = { setup, teardown });

TEST(test_the_probe_leaves_nothing_and_explains_each_no)
{
	int before = count_descriptors();
	struct uffd_probe p;

	uffd_probe(&p);
	if (p.error < 0)
		test_skip(p.error_text);
	ck_assert_int_eq(count_descriptors(), before);
	ck_assert_uint_gt(p.count, 10);
	ck_assert_uint_le(p.count, UFFD_FINDINGS_MAX);
	for (size_t i = 0; i < p.count; i++) {
		ck_assert_int_eq(p.findings[i].there, p.findings[i].why_not[0] == '\0');
		ck_assert_ptr_eq(find(&p, p.findings[i].name), &p.findings[i]); /* no name twice */
	}
	ck_assert(find(&p, "missing")->there);
}

TEST(test_the_probe_says_what_an_older_kernel_lacks)
{
	struct uffd_probe p;

	played_release = "5.10.200-1-amd64";
	played_features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_SIGBUS | UFFD_FEATURE_EVENT_REMOVE;
	uffd_probe(&p);
	if (p.error < 0)
		test_skip(p.error_text);
	ck_assert_uint_eq(p.features, played_features);
	ck_assert(find(&p, "missing-shmem")->there);
	ck_assert(!find(&p, "minor-shmem")->there);
	ck_assert_str_eq(find(&p, "minor-shmem")->why_not, "needs Linux 5.14, this is 5.10.200-1-amd64");
	/* Old enough, and not there all the same: it is the build, or nobody knows. */
	ck_assert_str_eq(find(&p, "missing-hugetlbfs")->why_not, "this kernel was built without CONFIG_HUGETLBFS");
	ck_assert_str_eq(find(&p, "thread-id")->why_not, "this kernel, 5.10.200-1-amd64, does not offer it");
	ck_assert_str_eq(find(&p, "move")->why_not, "needs Linux 6.8, this is 5.10.200-1-amd64");
	played_release = "5.14.0";
	uffd_probe(&p);
	ck_assert_str_eq(find(&p, "minor-shmem")->why_not,
	                 "this kernel was built without CONFIG_HAVE_ARCH_USERFAULTFD_MINOR (x86-64, arm64)");
}
