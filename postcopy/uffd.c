#include "postcopy/uffd.h"

#include "base/err.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

/* Newer than the headers this may be compiled with; the numbers are the kernel's and stay. */
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#define FEATURE_WP_UNPOPULATED (1ull << 13)
#define FEATURE_POISON (1ull << 14)
#define FEATURE_WP_ASYNC (1ull << 15)
#define FEATURE_MOVE (1ull << 16)

#define DEVICE "/dev/userfaultfd"

/* ---- doors -------------------------------------------------------------------------------------------------- */

static int open_device(void)
{
	int dev = open(DEVICE, O_RDWR | O_CLOEXEC), fd;

	if (dev < 0)
		return -errno;
	fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		fd = -errno;
	close(dev);
	return fd;
}

static int open_syscall(int flags)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags);

	return fd < 0 ? -errno : fd;
}

static int open_door(enum uffd_door door)
{
	switch (door) {
	case UFFD_DOOR_DEVICE:
		return open_device();
	case UFFD_DOOR_SYSCALL:
		return open_syscall(0);
	default:
		return open_syscall(UFFD_USER_MODE_ONLY);
	}
}

const char *uffd_door_name(enum uffd_door door)
{
	static const char *const names[UFFD_DOOR_COUNT] = {
		[UFFD_DOOR_DEVICE] = DEVICE,
		[UFFD_DOOR_SYSCALL] = "userfaultfd(2)",
		[UFFD_DOOR_USER_MODE] = "userfaultfd(2), user mode only",
	};

	return (unsigned)door < UFFD_DOOR_COUNT ? names[door] : "?";
}

/* The one errno for three closed doors. */
static int doors_code(const int error[static UFFD_DOOR_COUNT])
{
	for (int d = 0; d < UFFD_DOOR_COUNT; d++) {
		if (error[d] == -EMFILE || error[d] == -ENFILE || error[d] == -ENOMEM)
			return error[d];
	}
	/* A device that is there and forbidden shows that this kernel could. */
	if (error[UFFD_DOOR_SYSCALL] == -ENOSYS && error[UFFD_DOOR_DEVICE] != -EACCES &&
	    error[UFFD_DOOR_DEVICE] != -EPERM)
		return -ENOSYS;
	return -EPERM;
}

static const char *doors_remedy(const int error[static UFFD_DOOR_COUNT], int code)
{
	if (code == -ENOSYS)
		return "the kernel needs CONFIG_USERFAULTFD; a seccomp policy may also hide it";
	if (code != -EPERM)
		return "this is a limit of the process or the machine";
	/* Before Linux 5.11 there is no third door, and -EPERM from the second says only what that one asks. */
	if (error[UFFD_DOOR_USER_MODE] == -EINVAL)
		return "CAP_SYS_PTRACE or sysctl vm.unprivileged_userfaultfd=1 would open the second";
	/* The third needs no privilege, so if it refuses us, a policy does. */
	return "permit this user the device, or the call in the container's seccomp policy";
}

/* Every door's own error is told: the last one alone, EPERM as a rule, hides what is wrong with the device. */
static int doors_error(const int error[static UFFD_DOOR_COUNT], struct err *err)
{
	int code = doors_code(error);

	return err_set(err, code, "no userfaultfd: " DEVICE ": %s; system call: %s; for user mode only: %s; %s",
	               err_name(error[UFFD_DOOR_DEVICE]), err_name(error[UFFD_DOOR_SYSCALL]),
	               err_name(error[UFFD_DOOR_USER_MODE]), doors_remedy(error, code));
}

/* What is had without a privilege does not do; the caller may do without, and says so by a parameter. */
static int kernel_faults_error(const int error[static UFFD_DOOR_COUNT], struct err *err)
{
	return err_set(err, -EPERM,
	               "faults inside the kernel (KVM, vhost) cannot be served: " DEVICE ": %s; system "
	               "call: %s; permit this user the device, or CAP_SYS_PTRACE, or sysctl "
	               "vm.unprivileged_userfaultfd=1; or set parameter postcopy-kernel-faults=off, if neither KVM nor "
	               "vhost will touch guest memory",
	               err_name(error[UFFD_DOOR_DEVICE]), err_name(error[UFFD_DOOR_SYSCALL]));
}

/* The first open one, by a descriptor; for the error text of those before it, @error. */
static int doors_find(enum uffd_door *ret_door, int ret_error[static UFFD_DOOR_COUNT], struct err *err)
{
	memset(ret_error, 0, UFFD_DOOR_COUNT * sizeof(ret_error[0]));
	for (int d = 0; d < UFFD_DOOR_COUNT; d++) {
		int fd = open_door((enum uffd_door)d);

		if (fd >= 0) {
			*ret_door = (enum uffd_door)d;
			return fd;
		}
		ret_error[d] = fd;
	}
	return doors_error(ret_error, err);
}

int uffd_check_doors(bool kernel_faults, struct err *err)
{
	int error[UFFD_DOOR_COUNT], fd;
	enum uffd_door door;

	fd = doors_find(&door, error, err);
	if (fd < 0)
		return fd;
	close(fd);
	return kernel_faults && door == UFFD_DOOR_USER_MODE ? kernel_faults_error(error, err) : 0;
}

/* ---- features ----------------------------------------------------------------------------------------------- */

struct feature {
	const char *name;
	uint64_t bit;
	unsigned major, minor; /* the first release of Linux that has it */
	const char *config;    /* what must have been chosen when it was built; NULL: nothing of its own */
};

#define ARCH_MINOR "CONFIG_HAVE_ARCH_USERFAULTFD_MINOR (x86-64, arm64)"
#define ARCH_WP "CONFIG_HAVE_ARCH_USERFAULTFD_WP (x86-64, arm64, riscv)"
#define MARKER_WP "CONFIG_PTE_MARKER_UFFD_WP"

/* Source: userfaultfd(2), ioctl_userfaultfd(2), linux/userfaultfd.h of the releases named */
static const struct feature features[] = {
	{ "missing", 0, 4, 3, NULL },
	{ "missing-shmem", UFFD_FEATURE_MISSING_SHMEM, 4, 11, "CONFIG_SHMEM" },
	{ "missing-hugetlbfs", UFFD_FEATURE_MISSING_HUGETLBFS, 4, 11, "CONFIG_HUGETLBFS" },
	{ "minor-shmem", UFFD_FEATURE_MINOR_SHMEM, 5, 14, ARCH_MINOR },
	{ "minor-hugetlbfs", UFFD_FEATURE_MINOR_HUGETLBFS, 5, 13, ARCH_MINOR },
	{ "sigbus", UFFD_FEATURE_SIGBUS, 4, 14, NULL },
	{ "thread-id", UFFD_FEATURE_THREAD_ID, 4, 14, NULL },
	{ "event-remove", UFFD_FEATURE_EVENT_REMOVE, 4, 11, NULL },
	{ "event-unmap", UFFD_FEATURE_EVENT_UNMAP, 4, 11, NULL },
	{ "event-remap", UFFD_FEATURE_EVENT_REMAP, 4, 11, NULL },
	{ "event-fork", UFFD_FEATURE_EVENT_FORK, 4, 11, NULL },
	{ "exact-address", UFFD_FEATURE_EXACT_ADDRESS, 5, 18, NULL },
	{ "move", FEATURE_MOVE, 6, 8, NULL },
	{ "poison", FEATURE_POISON, 6, 6, NULL },
	{ "wp", UFFD_FEATURE_PAGEFAULT_FLAG_WP, 5, 7, ARCH_WP },
	{ "wp-hugetlbfs-shmem", UFFD_FEATURE_WP_HUGETLBFS_SHMEM, 5, 19, MARKER_WP },
	{ "wp-unpopulated", FEATURE_WP_UNPOPULATED, 6, 4, MARKER_WP },
	{ "wp-async", FEATURE_WP_ASYNC, 6, 7, MARKER_WP },
};

#define FEATURE_COUNT (sizeof(features) / sizeof(features[0]))

_Static_assert(FEATURE_COUNT + 1 <= UFFD_FINDINGS_MAX, "a finding for each feature, and one for the kernel's faults");

/* The handshake, which a descriptor has once: a second one with other features is refused. */
static int handshake(int fd, uint64_t ask, uint64_t *ret_there)
{
	struct uffdio_api api = { .api = UFFD_API, .features = ask };

	if (ioctl(fd, UFFDIO_API, &api) < 0)
		return -errno;
	*ret_there = api.features;
	return 0;
}

/* Return: a descriptor with these features, or why not. */
static int open_with(enum uffd_door door, uint64_t ask)
{
	uint64_t there;
	int fd = open_door(door), r;

	if (fd < 0)
		return fd;
	r = handshake(fd, ask, &there);
	if (r < 0) {
		close(fd);
		return r;
	}
	return fd;
}

/* What the kernel has: it tells one who asks for nothing, and that spends the descriptor. */
static int find_features(enum uffd_door *ret_door, uint64_t *ret_there, int ret_error[static UFFD_DOOR_COUNT],
                         struct err *err)
{
	int fd = doors_find(ret_door, ret_error, err), r;

	if (fd < 0)
		return fd;
	r = handshake(fd, 0, ret_there);
	close(fd);
	return r < 0 ? err_set(err, r, "userfaultfd: UFFDIO_API: %s", err_name(r)) : 0;
}

static void append(char *buf, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static void append(char *buf, size_t size, const char *fmt, ...)
{
	size_t len = strlen(buf);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(buf + len, size - len, fmt, ap);
	va_end(ap);
}

static void name_features(uint64_t bits, char *buf, size_t size)
{
	buf[0] = '\0';
	for (size_t i = 0; i < FEATURE_COUNT; i++) {
		if (bits & features[i].bit)
			append(buf, size, "%s%s (Linux %u.%u)", buf[0] ? ", " : "", features[i].name, features[i].major,
			       features[i].minor);
		bits &= ~features[i].bit;
	}
	if (bits)
		append(buf, size, "%sbits %#llx", buf[0] ? ", " : "", (unsigned long long)bits);
}

static int lacks(uint64_t bits, struct err *err)
{
	struct utsname un = { 0 };
	char names[300];

	uname(&un);
	name_features(bits, names, sizeof(names));
	return err_set(err, -ENOTSUP, "userfaultfd: this kernel, %s, has no %s", un.release, names);
}

int uffd_open(struct uffd *ret, uint64_t needed, uint64_t wanted, struct err *err)
{
	int error[UFFD_DOOR_COUNT], fd, r;
	enum uffd_door door;
	uint64_t there, ask;

	r = find_features(&door, &there, error, err);
	if (r < 0)
		return r;
	if (needed & ~there)
		return lacks(needed & ~there, err);
	ask = needed | (wanted & there);
	fd = open_with(door, ask);
	/* The one feature that may be refused although it is there: it asks for CAP_SYS_PTRACE, whatever the door. */
	if (fd == -EPERM && (ask & ~needed & UFFD_FEATURE_EVENT_FORK)) {
		ask &= ~(uint64_t)UFFD_FEATURE_EVENT_FORK;
		fd = open_with(door, ask);
	}
	if (fd == -EPERM && (ask & UFFD_FEATURE_EVENT_FORK))
		return err_set(err, fd, "userfaultfd: event-fork needs CAP_SYS_PTRACE");
	if (fd < 0)
		return err_set(err, fd, "userfaultfd, through %s: UFFDIO_API for features %#llx: %s",
		               uffd_door_name(door), (unsigned long long)ask, err_name(fd));
	*ret = (struct uffd){ .fd = fd, .features = ask, .door = door };
	return 0;
}

void uffd_close(struct uffd *u)
{
	if (u->fd >= 0)
		close(u->fd);
	*u = UFFD_NONE;
}

/* ---- ranges and events -------------------------------------------------------------------------------------- */

static struct uffdio_range range_of(const void *addr, size_t bytes)
{
	return (struct uffdio_range){ .start = (uintptr_t)addr, .len = bytes };
}

int uffd_register(const struct uffd *u, void *addr, size_t bytes, uint64_t modes)
{
	struct uffdio_register reg = { .range = range_of(addr, bytes), .mode = modes };

	return ioctl(u->fd, UFFDIO_REGISTER, &reg) < 0 ? -errno : 0;
}

int uffd_unregister(const struct uffd *u, void *addr, size_t bytes)
{
	struct uffdio_range range = range_of(addr, bytes);

	return ioctl(u->fd, UFFDIO_UNREGISTER, &range) < 0 ? -errno : 0;
}

ssize_t uffd_read(const struct uffd *u, struct uffd_msg *ret, size_t count)
{
	ssize_t n = read(u->fd, ret, count * sizeof(*ret));

	if (n < 0)
		return errno == EAGAIN ? 0 : -errno;
	return n / (ssize_t)sizeof(*ret);
}

/* ---- placing ------------------------------------------------------------------------------------------------ */

/*
 * What one placement achieved: bytes, or a negative errno.
 * @field: `copy`, `zeropage` or `mapped`, zero before the call. It is signed: after a failure without progress it holds
 * the negative errno, or, for EAGAIN before Linux 6.15, still our zero. Only what is positive is progress.
 */
static int64_t progress(int r, int64_t field)
{
	if (field > 0)
		return field;
	/* Done and nothing done is no answer: an error rather than a loop. */
	return r < 0 ? r : -EIO;
}

static int64_t copy_once(int fd, uint8_t *dst, const void *src, size_t bytes)
{
	struct uffdio_copy c = { .dst = (uintptr_t)dst, .src = (uintptr_t)src, .len = bytes };
	int r = ioctl(fd, UFFDIO_COPY, &c) < 0 ? -errno : 0;

	return progress(r, c.copy);
}

static int64_t zeropage_once(int fd, uint8_t *dst, size_t bytes)
{
	struct uffdio_zeropage z = { .range = range_of(dst, bytes) };
	int r = ioctl(fd, UFFDIO_ZEROPAGE, &z) < 0 ? -errno : 0;

	return progress(r, z.zeropage);
}

static int64_t continue_once(int fd, uint8_t *dst, size_t bytes)
{
	struct uffdio_continue c = { .range = range_of(dst, bytes) };
	int r = ioctl(fd, UFFDIO_CONTINUE, &c) < 0 ? -errno : 0;

	return progress(r, c.mapped);
}

/* A call that stopped half-way says EAGAIN, whatever the reason was: the next one, from there on, tells it. So each
 * turn gets further or is the last. */
static bool add(struct uffd_done *done, int64_t got)
{
	if (got < 0) {
		done->error = (int)got;
		return false;
	}
	done->bytes += (size_t)got;
	return true;
}

struct uffd_done uffd_copy(const struct uffd *u, void *dst, const void *src, size_t bytes)
{
	struct uffd_done done = { 0 };

	while (done.bytes < bytes && add(&done, copy_once(u->fd, (uint8_t *)dst + done.bytes,
	                                                  (const uint8_t *)src + done.bytes, bytes - done.bytes)))
		;
	return done;
}

struct uffd_done uffd_zeropage(const struct uffd *u, void *dst, size_t bytes)
{
	struct uffd_done done = { 0 };

	while (done.bytes < bytes && add(&done, zeropage_once(u->fd, (uint8_t *)dst + done.bytes, bytes - done.bytes)))
		;
	return done;
}

struct uffd_done uffd_continue(const struct uffd *u, void *dst, size_t bytes)
{
	struct uffd_done done = { 0 };

	while (done.bytes < bytes && add(&done, continue_once(u->fd, (uint8_t *)dst + done.bytes, bytes - done.bytes)))
		;
	return done;
}

int uffd_wake(const struct uffd *u, void *dst, size_t bytes)
{
	struct uffdio_range range = range_of(dst, bytes);

	return ioctl(u->fd, UFFDIO_WAKE, &range) < 0 ? -errno : 0;
}

/* ---- what this kernel offers -------------------------------------------------------------------------------- */

static void explain(struct uffd_finding *f, const struct feature *row)
{
	struct utsname un = { 0 };
	unsigned major = 0, minor = 0;

	uname(&un);
	if (sscanf(un.release, "%u.%u", &major, &minor) == 2 &&
	    (major < row->major || (major == row->major && minor < row->minor)))
		snprintf(f->why_not, sizeof(f->why_not), "needs Linux %u.%u, this is %.40s", row->major, row->minor,
		         un.release);
	else if (row->config)
		snprintf(f->why_not, sizeof(f->why_not), "this kernel was built without %s", row->config);
	else
		snprintf(f->why_not, sizeof(f->why_not), "this kernel, %.40s, does not offer it", un.release);
}

/* KVM and vhost touch guest memory inside the kernel. */
static void find_kernel_faults(struct uffd_probe *p, const int error[static UFFD_DOOR_COUNT])
{
	struct uffd_finding *f = &p->findings[p->count++];

	f->name = "kernel-faults";
	f->there = p->door != UFFD_DOOR_USER_MODE;
	if (!f->there)
		snprintf(f->why_not, sizeof(f->why_not),
		         "(KVM, vhost) " DEVICE ": %s, system call: %s; permit this user the device, or "
		         "CAP_SYS_PTRACE, or sysctl vm.unprivileged_userfaultfd=1",
		         err_name(error[UFFD_DOOR_DEVICE]), err_name(error[UFFD_DOOR_SYSCALL]));
}

static void find_feature(struct uffd_probe *p, const struct feature *row)
{
	struct uffd_finding *f = &p->findings[p->count++];
	int fd;

	f->name = row->name;
	if ((p->features & row->bit) != row->bit) {
		explain(f, row);
		return;
	}
	fd = open_with(p->door, row->bit);
	if (fd >= 0) {
		f->there = true;
		close(fd);
		return;
	}
	snprintf(f->why_not, sizeof(f->why_not), "%s%s", err_name(fd),
	         row->bit == UFFD_FEATURE_EVENT_FORK && fd == -EPERM ? ": needs CAP_SYS_PTRACE" : "");
}

void uffd_probe(struct uffd_probe *ret)
{
	int error[UFFD_DOOR_COUNT];
	struct err err = ERR_NONE;

	*ret = (struct uffd_probe){ 0 };
	ret->error = find_features(&ret->door, &ret->features, error, &err);
	if (ret->error < 0) {
		snprintf(ret->error_text, sizeof(ret->error_text), "%.*s", (int)sizeof(ret->error_text) - 1, err.text);
		return;
	}
	find_kernel_faults(ret, error);
	for (size_t i = 0; i < FEATURE_COUNT; i++)
		find_feature(ret, &features[i]);
}
