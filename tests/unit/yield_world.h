/*
 * yield_world.h - what the tests of postcopy/yield.h share
 *
 * Faults of our own thread, on a memory file that is mapped three times as in life: the landing view, which nothing
 * watches; the engine view, on a userfaultfd with SIGBUS; the guest view, on one without.
 */
#ifndef TESTS_UNIT_YIELD_WORLD_H
#define TESTS_UNIT_YIELD_WORLD_H

#include "base/clock.h"
#include "config.h"
#include "postcopy/yield.h"
#include "tests/support/check_main.h"
#include "tests/unit/co_world.h"

#include <errno.h>
#include <fcntl.h>
#include <fenv.h>
#include <linux/memfd.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <valgrind/valgrind.h>

#if HAVE_VALGRIND
#include <valgrind/valgrind.h>
#else
#define RUNNING_ON_VALGRIND 0
#endif

#if defined(__SANITIZE_THREAD__)
#define UNDER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_TSAN 1
#endif
#endif
#ifndef UNDER_TSAN
#define UNDER_TSAN 0
#endif

#define PAGES 64
#define PARKED_MAX 64
#define HUGE_PAGES 3

/* ---- memory ---- */

struct ram {
	int fd, view_uffd, guest_uffd;
	size_t hpage_bytes, bytes;
	uint8_t *landing, *view, *guest;
};

static inline uint8_t content(size_t off)
{
	return (uint8_t)(off % 251 + off / 4096);
}

/* The device first: valgrind 3.19 does not know the system call. */
static inline int uffd_open_any(void)
{
	int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC), fd = -1;

#ifdef USERFAULTFD_IOC_NEW
	if (device >= 0)
		fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
#endif
	if (device >= 0)
		close(device);
	return fd >= 0 ? fd : (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
}

static inline int uffd_make(void *addr, size_t bytes, uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	struct uffdio_register reg = { .range = { (uintptr_t)addr, bytes },
		                       .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR };
	int fd = uffd_open_any();

	ck_assert_msg(fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0, "userfaultfd: %s", strerror(errno));
	ck_assert_msg(ioctl(fd, UFFDIO_REGISTER, &reg) == 0, "register: %s", strerror(errno));
	return fd;
}

/* What a test does that not everybody stands. */
enum {
	FAULTS = 1, /* an instruction is interrupted and runs again */
	FIRES = 2,  /* a timer's signal meets running code */
	QUEUES = 4, /* a signal with data, to this thread itself */
};

#define NEEDS(what) needs_in(__func__, (what))

static inline void needs_in(const char *func, unsigned what)
{
	struct uffdio_api api = { .api = UFFD_API,
		                  .features =
		                          UFFD_FEATURE_SIGBUS | UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM };
	int fd = uffd_open_any();

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0)
		test_skip_in(func, "no userfaultfd with SIGBUS and minor faults may be had here");
	close(fd);
	if ((what & FAULTS) && RUNNING_ON_VALGRIND)
		test_skip_in(func, "valgrind does not keep registers exact at every access to memory");
	if ((what & QUEUES) && RUNNING_ON_VALGRIND)
		test_skip_in(func, "valgrind delivers a SIGBUS that was queued for ever");
	if ((what & FIRES) && UNDER_TSAN)
		test_skip_in(func, "ThreadSanitizer runs a handler of SIGBUS at once, also below locks of its own");
}

static inline void ram_make(struct ram *r, size_t hpage_bytes, size_t pages)
{
	bool huge = hpage_bytes > 4096;
	uint64_t minor = huge ? UFFD_FEATURE_MISSING_HUGETLBFS | UFFD_FEATURE_MINOR_HUGETLBFS :
	                        UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM;
	uint8_t **views[] = { &r->landing, &r->view, &r->guest };

	r->hpage_bytes = hpage_bytes;
	r->bytes = pages * hpage_bytes;
	r->fd = memfd_create("ram", MFD_CLOEXEC | (huge ? MFD_HUGETLB | MFD_HUGE_2MB : 0));
	ck_assert(r->fd >= 0 && ftruncate(r->fd, (off_t)r->bytes) == 0);
	for (size_t i = 0; i < 3; i++) {
		*views[i] = mmap(NULL, r->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, 0);
		ck_assert(*views[i] != MAP_FAILED);
	}
	r->view_uffd = uffd_make(r->view, r->bytes, UFFD_FEATURE_SIGBUS | minor);
	r->guest_uffd = uffd_make(r->guest, r->bytes, minor);
}

static inline void ram_free(struct ram *r)
{
	close(r->view_uffd);
	close(r->guest_uffd);
	munmap(r->landing, r->bytes);
	munmap(r->view, r->bytes);
	munmap(r->guest, r->bytes);
	close(r->fd);
}

/* Also called in signal handlers. */
static inline void ram_land(const struct ram *r, size_t off, int uffd, uint8_t *base)
{
	size_t begin = off / r->hpage_bytes * r->hpage_bytes;
	struct uffdio_continue there = { .range = { (uintptr_t)base + begin, r->hpage_bytes } };

	for (size_t i = begin; i < begin + r->hpage_bytes; i++)
		r->landing[i] = content(i);
	if (ioctl(uffd, UFFDIO_CONTINUE, &there) < 0 && errno != EEXIST)
		abort();
}

/* All pages are missing again. */
static inline void ram_forget(const struct ram *r)
{
	ck_assert_int_eq(fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)r->bytes), 0);
}

/* ---- a domain, and the rest of a migration in a few lines ---- */

struct domain {
	struct co_world w;
	struct yield y;
	struct ram ram;
	struct parked {
		struct co *co;
		size_t off;
	} parked[PARKED_MAX];
	size_t parked_count, parked_max;
	bool last_first; /* the order in which pages come */
	bool never;      /* the page is not brought */
	struct stuck stuck;
	int done; /* the callback has returned */
};

static inline void on_fault(void *opaque, void *addr)
{
	struct domain *d = opaque;

	if (d->never)
		return;
	errno = ENOTTY; /* a careless one */
	if (d->parked_count == PARKED_MAX)
		abort();
	d->parked[d->parked_count++] =
	        (struct parked){ .co = d->w.sched.current, .off = (size_t)((uint8_t *)addr - d->ram.view) };
	if (d->parked_count > d->parked_max)
		d->parked_max = d->parked_count;
	co_park_uninterruptible(&d->w.sched, "page", "test");
}

/* What was noted since the callback began. Read while it is busy, between two runs of the handler. */
static inline unsigned stuck_notes(const struct domain *d)
{
	return __atomic_load_n(&d->stuck.notes, __ATOMIC_ACQUIRE);
}

static inline void domain_begin(struct domain *d, uint64_t watch_ns)
{
	memset(d, 0, sizeof(*d));
	world_init(&d->w);
	ram_make(&d->ram, 4096, PAGES);
	d->y = (struct yield){ .sched = &d->w.sched, .fault = on_fault, .opaque = d, .stuck = &d->stuck };
	ck_assert_int_eq(stuck_init(&d->stuck), 0);
	ck_assert_int_eq(yield_begin(&d->y, watch_ns), 0);
	ck_assert_int_eq(yield_add_view(&d->y, d->ram.view, d->ram.bytes, "pc.ram"), 0);
	ck_assert_int_eq(yield_add_guest(&d->y, d->ram.guest, d->ram.bytes, "pc.ram"), 0);
}

static inline void domain_end(struct domain *d)
{
	yield_end(&d->y);
	stuck_fini(&d->stuck);
	ram_free(&d->ram);
	world_fini(&d->w);
}

/* What was asked for comes. */
static inline void domain_serve(struct domain *d)
{
	struct parked now[PARKED_MAX];
	size_t count = d->parked_count;

	memcpy(now, d->parked, count * sizeof(now[0]));
	d->parked_count = 0;
	for (size_t i = 0; i < count; i++) {
		struct parked *p = &now[d->last_first ? count - 1 - i : i];

		ram_land(&d->ram, p->off, d->ram.view_uffd, d->ram.view);
		co_wake(p->co, 0);
	}
}

static inline void domain_run(struct domain *d)
{
	do {
		world_settle(&d->w);
		domain_serve(d);
	} while (sched_has_ready(&d->w.sched));
}

/* A callback of the embedder's in a coroutine. */
struct callback {
	struct domain *d;
	size_t off, bytes;
	int wrong;
};

static inline int reads_one(void *arg)
{
	struct callback *c = arg;

	yield_watch(&c->d->y, "reads one");
	c->wrong += *(volatile uint8_t *)(c->d->ram.view + c->off) != content(c->off);
	yield_unwatch(&c->d->y);
	return 0;
}

static inline int parks_without_a_word(void *arg)
{
	struct callback *c = arg;

	yield_watch(&c->d->y, "parks without a word");
	co_yield(&c->d->w.sched);
	yield_unwatch(&c->d->y);
	return 0;
}

/* ---- the handler that was there before ---- */

static struct former {
	unsigned calls;
	int sig;
	siginfo_t info;
	bool sigbus_blocked, usr1_blocked;
	int grow_fd;         /* made longer by a page; -1: none */
	struct domain *open; /* its page lands */
} former __attribute__((unused));

static inline void note_former(int sig)
{
	sigset_t mask;

	former.calls++;
	former.sig = sig;
	sigprocmask(SIG_SETMASK, NULL, &mask);
	former.sigbus_blocked = sigismember(&mask, SIGBUS);
	former.usr1_blocked = sigismember(&mask, SIGUSR1);
	if (former.grow_fd >= 0 && ftruncate(former.grow_fd, 4096) < 0)
		abort();
	errno = EXDEV;
}

static inline void former_plain(int sig)
{
	note_former(sig);
}

static inline void former_info(int sig, siginfo_t *info, void *context)
{
	former.info = *info;
	if (!context)
		abort();
	note_former(sig);
	if (former.open)
		ram_land(&former.open->ram, (size_t)((uint8_t *)info->si_addr - former.open->ram.view),
		         former.open->ram.view_uffd, former.open->ram.view);
}

static inline void former_install(bool info, int flags)
{
	struct sigaction act = { .sa_flags = flags };

	former = (struct former){ .grow_fd = -1 };
	sigaddset(&act.sa_mask, SIGUSR1);
	if (info) {
		act.sa_sigaction = former_info;
		act.sa_flags |= SA_SIGINFO;
	} else {
		act.sa_handler = former_plain;
	}
	ck_assert_int_eq(sigaction(SIGBUS, &act, NULL), 0);
}

static inline bool former_is_back(bool info)
{
	struct sigaction act;

	sigaction(SIGBUS, NULL, &act);
	return info ? (act.sa_flags & SA_SIGINFO) && act.sa_sigaction == former_info : act.sa_handler == former_plain;
}

/* A page past the end of a file: a SIGBUS that has nothing to do with a userfaultfd. */
static inline volatile uint8_t *foreign_make(int *ret_fd)
{
	int fd = memfd_create("foreign", MFD_CLOEXEC);
	uint8_t *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	ck_assert(fd >= 0 && p != MAP_FAILED);
	*ret_fd = fd;
	return p;
}

static inline void foreign_free(volatile uint8_t *p, int fd)
{
	munmap((void *)p, 4096);
	close(fd);
}

/* In a child with this disposition: how does it end? Return: the signal, or 0 if it came to its end. */
static inline int ends_by(void (*disposition)(int), int flags, void (*child)(struct domain *d))
{
	struct sigaction act = { .sa_handler = disposition, .sa_flags = flags };
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		static struct domain d;

		setrlimit(RLIMIT_CORE, &(struct rlimit){ 0 });
		former = (struct former){ .grow_fd = -1 };
		sigaction(SIGBUS, &act, NULL);
		domain_begin(&d, 0);
		child(&d);
		_exit(0);
	}
	ck_assert(pid > 0 && waitpid(pid, &status, 0) == pid);
	ck_assert_msg(WIFSIGNALED(status) || WEXITSTATUS(status) == 0, "exit status %d", WEXITSTATUS(status));
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static inline bool is_blocked(int sig)
{
	sigset_t set;

	pthread_sigmask(SIG_SETMASK, NULL, &set);
	return sigismember(&set, sig);
}

static struct domain one __attribute__((unused)), two_domains[2] __attribute__((unused));

#endif
