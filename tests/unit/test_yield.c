/*
 * Faults of our own thread, on a memory file that is mapped three times as in life: the landing view, which nothing
 * watches; the engine view, on a userfaultfd with SIGBUS; the guest view, on one without.
 */
#include "base/clock.h"
#include "config.h"
#include "postcopy/yield.h"
#include "tests/support/check_main.h"
#include "tests/support/huge_pool.h"
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

static uint8_t content(size_t off)
{
	return (uint8_t)(off % 251 + off / 4096);
}

/* The device first: valgrind 3.19 does not know the system call. */
static int uffd_open_any(void)
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

static int uffd_make(void *addr, size_t bytes, uint64_t features)
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
};

#define NEEDS(what) needs_in(__func__, (what))

static void needs_in(const char *func, unsigned what)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_SIGBUS | UFFD_FEATURE_MISSING_SHMEM |
					      UFFD_FEATURE_MINOR_SHMEM };
	int fd = uffd_open_any();

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0)
		test_skip_in(func, "no userfaultfd with SIGBUS and minor faults may be had here");
	close(fd);
	if ((what & FAULTS) && RUNNING_ON_VALGRIND)
		test_skip_in(func, "valgrind does not keep registers exact at every access to memory");
	if ((what & FIRES) && UNDER_TSAN)
		test_skip_in(func, "ThreadSanitizer runs a handler of SIGBUS at once, also below locks of its own");
}

static void ram_make(struct ram *r, size_t hpage_bytes, size_t pages)
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

static void ram_free(struct ram *r)
{
	close(r->view_uffd);
	close(r->guest_uffd);
	munmap(r->landing, r->bytes);
	munmap(r->view, r->bytes);
	munmap(r->guest, r->bytes);
	close(r->fd);
}

/* Also called in signal handlers. */
static void ram_land(const struct ram *r, size_t off, int uffd, uint8_t *base)
{
	size_t begin = off / r->hpage_bytes * r->hpage_bytes;
	struct uffdio_continue there = { .range = { (uintptr_t)base + begin, r->hpage_bytes } };

	for (size_t i = begin; i < begin + r->hpage_bytes; i++)
		r->landing[i] = content(i);
	if (ioctl(uffd, UFFDIO_CONTINUE, &there) < 0 && errno != EEXIST)
		abort();
}

/* All pages are missing again. */
static void ram_forget(const struct ram *r)
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
	unsigned stuck_count;
	char stuck_what[64], stuck_text[512];
	int done; /* by whoever waits for the callback to be called stuck */
	void (*on_stuck)(struct domain *d);
};

static void on_fault(void *opaque, void *addr)
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

static void on_stuck(void *opaque, const char *what, const char *text)
{
	struct domain *d = opaque;

	strncpy(d->stuck_what, what, sizeof(d->stuck_what) - 1);
	strncpy(d->stuck_text, text, sizeof(d->stuck_text) - 1);
	d->stuck_count++;
	if (d->on_stuck)
		d->on_stuck(d);
	__atomic_store_n(&d->done, 1, __ATOMIC_RELEASE);
}

static void domain_begin(struct domain *d, uint64_t watch_ns)
{
	memset(d, 0, sizeof(*d));
	world_init(&d->w);
	ram_make(&d->ram, 4096, PAGES);
	d->y = (struct yield){ .sched = &d->w.sched, .fault = on_fault, .stuck = on_stuck, .opaque = d };
	ck_assert_int_eq(yield_begin(&d->y, watch_ns), 0);
	ck_assert_int_eq(yield_add_view(&d->y, d->ram.view, d->ram.bytes, "pc.ram"), 0);
	ck_assert_int_eq(yield_add_guest(&d->y, d->ram.guest, d->ram.bytes, "pc.ram"), 0);
}

static void domain_end(struct domain *d)
{
	yield_end(&d->y);
	ram_free(&d->ram);
	world_fini(&d->w);
}

/* What was asked for comes. */
static void domain_serve(struct domain *d)
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

static void domain_run(struct domain *d)
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

static int reads_one(void *arg)
{
	struct callback *c = arg;

	yield_watch(&c->d->y, "reads one");
	c->wrong += *(volatile uint8_t *)(c->d->ram.view + c->off) != content(c->off);
	yield_unwatch(&c->d->y);
	return 0;
}

/* ---- the handler that was there before ---- */

static struct former {
	unsigned calls;
	int sig;
	siginfo_t info;
	bool sigbus_blocked, usr1_blocked;
	int grow_fd;           /* made longer by a page; -1: none */
	struct domain *open;   /* its page lands */
} former;

static void note_former(int sig)
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

static void former_plain(int sig)
{
	note_former(sig);
}

static void former_info(int sig, siginfo_t *info, void *context)
{
	former.info = *info;
	if (!context)
		abort();
	note_former(sig);
	if (former.open)
		ram_land(&former.open->ram, (size_t)((uint8_t *)info->si_addr - former.open->ram.view),
			 former.open->ram.view_uffd, former.open->ram.view);
}

static void former_install(bool info, int flags)
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

static bool former_is_back(bool info)
{
	struct sigaction act;

	sigaction(SIGBUS, NULL, &act);
	return info ? (act.sa_flags & SA_SIGINFO) && act.sa_sigaction == former_info : act.sa_handler == former_plain;
}

/* A page behind the end of a file: SIGBUS with which no userfaultfd has to do. */
static volatile uint8_t *foreign_make(int *ret_fd)
{
	int fd = memfd_create("foreign", MFD_CLOEXEC);
	uint8_t *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	ck_assert(fd >= 0 && p != MAP_FAILED);
	*ret_fd = fd;
	return p;
}

static void foreign_free(volatile uint8_t *p, int fd)
{
	munmap((void *)p, 4096);
	close(fd);
}

/* In a child with this disposition: how does it end? Return: the signal, or 0 if it came to its end. */
static int ends_by(void (*disposition)(int), int flags, void (*child)(struct domain *d))
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

/* ---- faults that park ---- */

static struct domain one;

START_TEST(test_yield_many_coroutines_fault_at_once)
{
	struct callback c[PAGES];

	NEEDS(FAULTS);
	domain_begin(&one, 0);
	for (size_t i = 0; i < PAGES; i++) {
		c[i] = (struct callback){ .d = &one, .off = i * 4096 + i };
		world_spawn(&one.w, reads_one, &c[i]);
	}
	domain_run(&one);
	for (size_t i = 0; i < PAGES; i++)
		ck_assert_int_eq(c[i].wrong, 0);
	ck_assert_uint_eq(one.parked_max, PAGES);
	ck_assert_uint_eq(one.y.faults, PAGES);
	domain_end(&one);
}
END_TEST

static int keeps_its_world(void *arg)
{
	struct callback *c = arg;
	size_t n = c->off / 4096;
	volatile double third = 1.0 / 3.0, before, after;
	int mode = n % 2 && !RUNNING_ON_VALGRIND ? FE_UPWARD : FE_TONEAREST;

	yield_watch(&c->d->y, "keeps its world");
	before = third * (double)n;
	errno = (int)n + 1;
	fesetround(mode);
	c->wrong += *(volatile uint8_t *)(c->d->ram.view + c->off) != content(c->off);
	c->wrong += errno != (int)n + 1;
	c->wrong += fegetround() != mode;
	fesetround(FE_TONEAREST);
	after = third * (double)n;
	c->wrong += after != before;
	yield_unwatch(&c->d->y);
	return 0;
}

START_TEST(test_yield_errno_and_rounding_are_kept)
{
	struct callback c[20];

	NEEDS(FAULTS);
	domain_begin(&one, 0);
	for (size_t i = 0; i < 20; i++) {
		c[i] = (struct callback){ .d = &one, .off = i * 4096 };
		world_spawn(&one.w, keeps_its_world, &c[i]);
	}
	domain_run(&one);
	for (size_t i = 0; i < 20; i++)
		ck_assert_int_eq(c[i].wrong, 0);
	ck_assert_uint_eq(one.parked_max, 20);
	domain_end(&one);
}
END_TEST

static int copies(void *arg)
{
	struct callback *c = arg;
	uint8_t *copy = malloc(c->bytes);

	yield_watch(&c->d->y, "copies");
	memcpy(copy, c->d->ram.view + c->off, c->bytes);
	yield_unwatch(&c->d->y);
	for (size_t i = 0; i < c->bytes; i++)
		c->wrong += copy[i] != content(c->off + i);
	free(copy);
	return 0;
}

/* Each page of a copy is a fault in the middle of memcpy, and others run in between, in memcpy too. */
static void copies_run(unsigned rounds)
{
	for (unsigned round = 0; round < rounds; round++) {
		struct callback c[8];

		one.last_first = round % 2;
		one.y.faults = 0;
		for (size_t i = 0; i < 8; i++) {
			c[i] = (struct callback){ .d = &one, .off = i * 6 * 4096 + 4090 - i, .bytes = 5 * 4096 + 13 * i };
			world_spawn(&one.w, copies, &c[i]);
		}
		domain_run(&one);
		for (size_t i = 0; i < 8; i++)
			ck_assert_int_eq(c[i].wrong, 0);
		ck_assert_uint_ge(one.y.faults, 8 * 6);
		ram_forget(&one.ram);
	}
}

START_TEST(test_yield_a_copy_may_cross_missing_pages)
{
	NEEDS(FAULTS);
	domain_begin(&one, 0);
	copies_run(RUNNING_ON_VALGRIND ? 5 : 100);
	ck_assert_uint_eq(one.parked_max, 8);
	domain_end(&one);
}
END_TEST

static int reads_across(void *arg)
{
	struct callback *c = arg;
	uint64_t got, expected;

	yield_watch(&c->d->y, "reads across");
	__builtin_memcpy(&got, c->d->ram.view + c->off, sizeof(got)); /* one load that touches two pages */
	__asm__ volatile("" : "+r"(got));
	yield_unwatch(&c->d->y);
	for (size_t i = 0; i < sizeof(expected); i++)
		((uint8_t *)&expected)[i] = content(c->off + i);
	c->wrong += got != expected;
	return 0;
}

START_TEST(test_yield_one_instruction_may_miss_two_pages)
{
	struct callback c = { .d = &one, .off = 7 * 4096 - 3 };

	NEEDS(FAULTS);
	domain_begin(&one, 0);
	world_spawn(&one.w, reads_across, &c);
	domain_run(&one);
	ck_assert_int_eq(c.wrong, 0);
	ck_assert_uint_eq(one.y.faults, 2);
	domain_end(&one);
}
END_TEST

static int writes(void *arg)
{
	struct callback *c = arg;

	yield_watch(&c->d->y, "writes");
	*(volatile uint8_t *)(c->d->ram.view + c->off) = 0xee;
	c->wrong += c->d->ram.view[c->off ^ 1] != content(c->off ^ 1);
	yield_unwatch(&c->d->y);
	return 0;
}

START_TEST(test_yield_several_may_want_one_page_and_write)
{
	struct callback c[5];

	NEEDS(FAULTS);
	domain_begin(&one, 0);
	for (size_t i = 0; i < 5; i++) {
		c[i] = (struct callback){ .d = &one, .off = 2 * i };
		world_spawn(&one.w, writes, &c[i]);
	}
	/* Not by domain_run, whose second landing would be over the first one's write. */
	world_settle(&one.w);
	ck_assert_uint_eq(one.parked_count, 5);
	ram_land(&one.ram, 0, one.ram.view_uffd, one.ram.view);
	for (size_t i = 0; i < 5; i++)
		co_wake(one.parked[i].co, 0);
	world_settle(&one.w);
	for (size_t i = 0; i < 5; i++) {
		ck_assert_int_eq(c[i].wrong, 0);
		ck_assert_uint_eq(one.ram.landing[2 * i], 0xee);
	}
	domain_end(&one);
}
END_TEST

static void block_usr2(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static bool is_blocked(int sig)
{
	sigset_t set;

	pthread_sigmask(SIG_SETMASK, NULL, &set);
	return sigismember(&set, sig);
}

START_TEST(test_yield_a_mask_changed_meanwhile_stays)
{
	struct callback c = { .d = &one };

	NEEDS(FAULTS);
	if (PORTABLE_SWITCH)
		test_skip("swapcontext(3) gives each coroutine a mask of its own");
	domain_begin(&one, 0);
	world_spawn(&one.w, reads_one, &c);
	world_settle(&one.w);
	ck_assert_uint_eq(one.parked_count, 1);
	block_usr2();
	domain_run(&one);
	ck_assert_int_eq(c.wrong, 0);
	ck_assert(is_blocked(SIGUSR2));
	domain_end(&one);
}
END_TEST

START_TEST(test_yield_sigbus_is_not_blocked_between_begin_and_the_last_end)
{
	static struct domain two;
	struct callback c = { .d = &two };
	sigset_t set;

	NEEDS(FAULTS);
	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	domain_begin(&one, 0);
	ck_assert(!is_blocked(SIGBUS));
	domain_begin(&two, 0);
	domain_end(&one);
	ck_assert(!is_blocked(SIGBUS));
	world_spawn(&two.w, reads_one, &c);
	domain_run(&two);
	ck_assert_int_eq(c.wrong, 0);
	domain_end(&two);
	ck_assert(is_blocked(SIGBUS));
}
END_TEST

START_TEST(test_yield_many_ranges_are_told_apart)
{
	static uint8_t space[YIELD_RANGES_MAX];

	NEEDS(0);
	domain_begin(&one, 0);
	for (size_t i = 1; i < YIELD_RANGES_MAX; i++)
		ck_assert_int_eq(yield_add_view(&one.y, &space[i], 1, "small"), 0);
	ck_assert_int_eq(yield_add_view(&one.y, &space[0], 1, "one too many"), -ENOMEM);
	ck_assert_ptr_eq(one.y.views[YIELD_RANGES_MAX - 1].begin, &space[YIELD_RANGES_MAX - 1]);
	ck_assert_ptr_eq(one.y.views[0].begin, one.ram.view);
	domain_end(&one);
}
END_TEST

/* ---- huge pages ---- */

static void huge_pool_setup(void)
{
	huge_pool_fill(HUGE_PAGES);
}

START_TEST(test_yield_huge_pages_and_their_boundary)
{
	struct callback c[2] = { { .d = &one, .off = HUGE_POOL_BYTES - 3 },
				 { .d = &one, .off = 2 * HUGE_POOL_BYTES - 5000, .bytes = 10000 } };

	NEEDS(FAULTS);
	if (huge_pool_free() < HUGE_PAGES)
		test_skip("there are no huge pages, and this process may not make any");
	domain_begin(&one, 0);
	yield_end(&one.y);
	ram_free(&one.ram);
	ram_make(&one.ram, HUGE_POOL_BYTES, HUGE_PAGES);
	one.y = (struct yield){ .sched = &one.w.sched, .fault = on_fault, .opaque = &one };
	ck_assert_int_eq(yield_begin(&one.y, 0), 0);
	ck_assert_int_eq(yield_add_view(&one.y, one.ram.view, one.ram.bytes, "huge"), 0);
	world_spawn(&one.w, reads_across, &c[0]);
	domain_run(&one);
	ck_assert_uint_eq(one.y.faults, 2);
	world_spawn(&one.w, copies, &c[1]);
	domain_run(&one);
	ck_assert_uint_eq(one.y.faults, 3);
	ck_assert_int_eq(c[0].wrong + c[1].wrong, 0);
	domain_end(&one);
}
END_TEST

/* ---- what is not ours ---- */

static struct foreign {
	volatile uint8_t *p;
	int fd;
} foreign;

static int touches_foreign(void *arg)
{
	struct callback *c = arg;

	yield_watch(&c->d->y, "touches foreign");
	errno = 77;
	c->wrong += *foreign.p != 0;
	c->wrong += errno != 77;
	yield_unwatch(&c->d->y);
	return 0;
}

START_TEST(test_yield_a_foreign_address_goes_to_the_former_handler)
{
	bool info = _i % 2;
	struct callback c = { .d = &one };

	NEEDS(FAULTS);
	foreign.p = foreign_make(&foreign.fd);
	former_install(info, 0);
	domain_begin(&one, 0);
	former.grow_fd = foreign.fd;
	/* In a callback, and outside; by an instruction, which runs again. */
	if (_i < 2) {
		world_spawn(&one.w, touches_foreign, &c);
		domain_run(&one);
	} else {
		ck_assert_uint_eq(*foreign.p, 0);
	}
	ck_assert_int_eq(c.wrong, 0);
	ck_assert_uint_eq(former.calls, 1);
	ck_assert_int_eq(former.sig, SIGBUS);
	if (info) {
		ck_assert_ptr_eq(former.info.si_addr, (void *)foreign.p);
		ck_assert_int_eq(former.info.si_code, BUS_ADRERR);
	}
	/* As the kernel would have called it, and nothing is left of that. */
	ck_assert(former.sigbus_blocked && former.usr1_blocked);
	ck_assert(!is_blocked(SIGBUS) && !is_blocked(SIGUSR1));
	domain_end(&one);
	foreign_free(foreign.p, foreign.fd);
	ck_assert(former_is_back(info));
}
END_TEST

START_TEST(test_yield_a_former_handler_with_nodefer_may_be_hit_again)
{
	NEEDS(0);
	former_install(true, SA_NODEFER);
	domain_begin(&one, 0);
	raise(SIGBUS);
	ck_assert_uint_eq(former.calls, 1);
	ck_assert(!former.sigbus_blocked || UNDER_TSAN); /* which blocks everything in every handler */
	domain_end(&one);
}
END_TEST

START_TEST(test_yield_a_signal_that_was_sent_goes_to_the_former_handler)
{
	siginfo_t info = { .si_signo = SIGBUS, .si_code = SI_QUEUE };

	NEEDS(0);
	former_install(true, 0);
	domain_begin(&one, 0);
	raise(SIGBUS);
	ck_assert_uint_eq(former.calls, 1);
	ck_assert_int_eq(former.info.si_code, SI_TKILL);
	/* An address of ours as it may be: only a fault has one. */
	info.si_addr = one.ram.view;
	ck_assert_int_eq(syscall(SYS_rt_tgsigqueueinfo, getpid(), (pid_t)syscall(SYS_gettid), SIGBUS, &info), 0);
	ck_assert_uint_eq(former.calls, 2);
	ck_assert_int_eq(former.info.si_code, SI_QUEUE);
	ck_assert_uint_eq(one.y.faults, 0);
	domain_end(&one);
}
END_TEST

static void touches_it(struct domain *d)
{
	int fd;

	(void)d;
	(void)*foreign_make(&fd);
}

static void touches_it_twice(struct domain *d)
{
	volatile uint8_t *p;
	int fd;

	(void)d;
	p = foreign_make(&fd);
	former.grow_fd = fd;
	(void)*p; /* former_plain makes it longer */
	former.grow_fd = -1;
	if (former.calls != 1)
		_exit(1);
	p = foreign_make(&fd);
	(void)*p;
}

static void raises(struct domain *d)
{
	(void)d;
	raise(SIGBUS);
}

START_TEST(test_yield_without_a_former_handler_the_process_ends_as_it_would_have)
{
	NEEDS(FAULTS);
	ck_assert_int_eq(ends_by(SIG_DFL, 0, touches_it), SIGBUS);
	ck_assert_int_eq(ends_by(SIG_DFL, 0, raises), SIGBUS);
	ck_assert_int_eq(ends_by(SIG_IGN, 0, touches_it), SIGBUS);
	ck_assert_int_eq(ends_by(SIG_IGN, 0, raises), 0);
	ck_assert_int_eq(ends_by(former_plain, SA_RESETHAND, touches_it_twice), SIGBUS);
}
END_TEST

START_TEST(test_yield_a_former_handler_that_was_for_once_is_not_put_back)
{
	struct sigaction now;

	NEEDS(0);
	former_install(true, SA_RESETHAND);
	domain_begin(&one, 0);
	domain_end(&one);
	ck_assert(former_is_back(true));
	domain_begin(&one, 0);
	raise(SIGBUS);
	ck_assert_uint_eq(former.calls, 1);
	domain_end(&one);
	sigaction(SIGBUS, NULL, &now);
	ck_assert(now.sa_handler == SIG_DFL);
}
END_TEST

START_TEST(test_yield_the_former_handler_is_back_after_the_last_end)
{
	static struct domain two;
	struct domain *first = _i ? &two : &one, *last = _i ? &one : &two;
	struct callback c = { .d = last };

	NEEDS(FAULTS);
	former_install(true, 0);
	domain_begin(&one, 0);
	domain_begin(&two, 0);
	domain_end(first);
	ck_assert(!former_is_back(true));
	world_spawn(&last->w, reads_one, &c);
	domain_run(last);
	ck_assert_int_eq(c.wrong, 0);
	domain_end(last);
	ck_assert(former_is_back(true));
	ck_assert_uint_eq(former.calls, 0);
	/* And again. */
	domain_begin(&one, 0);
	ck_assert(!former_is_back(true));
	domain_end(&one);
	ck_assert(former_is_back(true));
}
END_TEST

static struct sigaction below;
static unsigned on_top_calls;

static void on_top(int sig, siginfo_t *info, void *context)
{
	on_top_calls++;
	below.sa_sigaction(sig, info, context);
}

/* Without SA_NODEFER: ours parks with SIGBUS blocked, unless it sees to that. */
START_TEST(test_yield_works_below_a_handler_that_hands_on)
{
	struct sigaction top = { .sa_sigaction = on_top, .sa_flags = SA_SIGINFO }, now;
	struct callback c[4];

	NEEDS(FAULTS);
	former_install(true, 0);
	domain_begin(&one, 0);
	sigaction(SIGBUS, &top, &below);
	for (unsigned round = 0; round < 2; round++) {
		for (size_t i = 0; i < 4; i++) {
			c[i] = (struct callback){ .d = &one, .off = 4096 * i };
			world_spawn(&one.w, reads_one, &c[i]);
		}
		domain_run(&one);
		ck_assert_uint_eq(one.parked_max, 4);
		for (size_t i = 0; i < 4; i++)
			ck_assert_int_eq(c[i].wrong, 0);
		raise(SIGBUS);
		ck_assert_uint_eq(former.calls, round + 1);
		ck_assert_uint_eq(on_top_calls, (round + 1) * 5);
		domain_end(&one);
		sigaction(SIGBUS, NULL, &now);
		ck_assert_ptr_eq(now.sa_sigaction, on_top);
		domain_begin(&one, 0);
	}
	/* It goes away: ours is the process's again, and then the former one's. */
	sigaction(SIGBUS, &below, NULL);
	domain_end(&one);
	ck_assert(former_is_back(true));
}
END_TEST

START_TEST(test_yield_begins_anew_when_somebody_took_the_handler_away)
{
	struct sigaction none = { .sa_handler = SIG_DFL }, now;
	struct callback c = { .d = &one };

	NEEDS(FAULTS);
	former_install(true, 0);
	domain_begin(&one, 0);
	sigaction(SIGBUS, &none, NULL);
	domain_end(&one);
	sigaction(SIGBUS, NULL, &now);
	ck_assert(now.sa_handler == SIG_DFL);
	domain_begin(&one, 0);
	world_spawn(&one.w, reads_one, &c);
	domain_run(&one);
	ck_assert_int_eq(c.wrong, 0);
	domain_end(&one);
	sigaction(SIGBUS, NULL, &now);
	ck_assert(now.sa_handler == SIG_DFL);
}
END_TEST

/* ---- our own errors are seen ---- */

static void main_touches_view(struct domain *d)
{
	yield_watch(&d->y, "main");
	(void)*(volatile uint8_t *)d->ram.view;
}

START_TEST(test_yield_the_threads_own_context_does_not_park)
{
	NEEDS(FAULTS);
	ck_assert_int_eq(ends_by(SIG_DFL, 0, main_touches_view), SIGBUS);
	former_install(true, 0);
	domain_begin(&one, 0);
	former.open = &one;
	yield_watch(&one.y, "main");
	ck_assert_uint_eq(*(volatile uint8_t *)(one.ram.view + 4096 + 5), content(4096 + 5));
	yield_unwatch(&one.y);
	ck_assert_uint_eq(former.calls, 1);
	ck_assert_uint_eq(one.y.faults, 0);
	domain_end(&one);
}
END_TEST

static int touches_outside_a_callback(void *arg)
{
	struct callback *c = arg;

	c->wrong += *(volatile uint8_t *)(c->d->ram.view + c->off) != content(c->off);
	return 0;
}

static int parks_without_a_word(void *arg)
{
	struct callback *c = arg;

	yield_watch(&c->d->y, "parks without a word");
	co_yield(&c->d->w.sched);
	yield_unwatch(&c->d->y);
	return 0;
}

START_TEST(test_yield_outside_a_callback_nobody_parks)
{
	struct callback c[2] = { { .d = &one }, { .d = &one, .off = 4096 } };

	NEEDS(FAULTS);
	former_install(true, 0);
	domain_begin(&one, 0);
	former.open = &one;
	world_spawn(&one.w, touches_outside_a_callback, &c[0]);
	domain_run(&one);
	ck_assert_uint_eq(former.calls, 1);
	/* Nor while another coroutine is in one. */
	world_spawn(&one.w, parks_without_a_word, &c[0]);
	world_spawn(&one.w, touches_outside_a_callback, &c[1]);
	domain_run(&one);
	ck_assert_uint_eq(former.calls, 2);
	ck_assert_uint_eq(one.y.faults, 0);
	ck_assert_int_eq(c[0].wrong + c[1].wrong, 0);
	domain_end(&one);
}
END_TEST

START_TEST(test_yield_a_page_that_cannot_come_is_seen)
{
	struct callback c = { .d = &one };

	NEEDS(FAULTS);
	former_install(true, 0);
	domain_begin(&one, 0);
	former.open = &one;
	one.never = true;
	world_spawn(&one.w, reads_one, &c);
	domain_run(&one);
	ck_assert_int_eq(c.wrong, 0);
	ck_assert_uint_eq(one.y.faults, YIELD_REPEATS_MAX);
	ck_assert_uint_eq(former.calls, 1);
	domain_end(&one);
}
END_TEST

/* ---- more than one ---- */

static struct domain two_domains[2];

static int reads_the_others(void *arg)
{
	struct callback *c = arg;
	struct domain *other = c->d == &two_domains[0] ? &two_domains[1] : &two_domains[0];

	yield_watch(&c->d->y, "reads the other's");
	c->wrong += *(volatile uint8_t *)(other->ram.view + c->off) != content(c->off);
	yield_unwatch(&c->d->y);
	return 0;
}

START_TEST(test_yield_two_schedulers_on_one_thread)
{
	struct callback c[2][10], other = { .d = &two_domains[0], .off = 50 * 4096 };

	NEEDS(FAULTS);
	former_install(true, 0);
	for (size_t k = 0; k < 2; k++)
		domain_begin(&two_domains[k], 0);
	for (size_t i = 0; i < 10; i++) {
		for (size_t k = 0; k < 2; k++) {
			c[k][i] = (struct callback){ .d = &two_domains[k], .off = 4096 * i + 1000 * k };
			world_spawn(&two_domains[k].w, reads_one, &c[k][i]);
		}
	}
	/* All of both are parked before the first page lands. */
	world_settle(&two_domains[0].w);
	world_settle(&two_domains[1].w);
	for (size_t k = 0; k < 2; k++)
		ck_assert_uint_eq(two_domains[k].parked_count, 10);
	for (size_t k = 0; k < 2; k++)
		domain_run(&two_domains[k]);
	for (size_t i = 0; i < 10; i++)
		ck_assert_int_eq(c[0][i].wrong + c[1][i].wrong, 0);
	ck_assert_uint_eq(former.calls, 0);
	/* A callback of one has no business in the other's. */
	former.open = &two_domains[1];
	world_spawn(&two_domains[0].w, reads_the_others, &other);
	domain_run(&two_domains[0]);
	ck_assert_int_eq(other.wrong, 0);
	ck_assert_uint_eq(former.calls, 1);
	for (size_t k = 0; k < 2; k++)
		domain_end(&two_domains[k]);
	ck_assert(former_is_back(true));
}
END_TEST

static void *thread_of_a_domain(void *arg)
{
	struct domain *d = arg;
	struct callback c[20];
	unsigned rounds = RUNNING_ON_VALGRIND ? 3 : 50;
	intptr_t wrong = 0;

	for (unsigned round = 0; round < rounds; round++) {
		domain_begin(d, NS_PER_S);
		for (size_t i = 0; i < 20; i++) {
			c[i] = (struct callback){ .d = d, .off = 4096 * i + round };
			world_spawn(&d->w, reads_one, &c[i]);
		}
		domain_run(d);
		for (size_t i = 0; i < 20; i++)
			wrong += c[i].wrong;
		wrong += d->parked_max != 20;
		domain_end(d);
	}
	return (void *)wrong;
}

START_TEST(test_yield_two_threads_with_a_domain_each)
{
	pthread_t threads[2];
	void *wrong;

	NEEDS(FAULTS);
	former_install(true, 0);
	for (size_t k = 0; k < 2; k++)
		ck_assert_int_eq(pthread_create(&threads[k], NULL, thread_of_a_domain, &two_domains[k]), 0);
	for (size_t k = 0; k < 2; k++) {
		ck_assert_int_eq(pthread_join(threads[k], &wrong), 0);
		ck_assert_ptr_eq(wrong, NULL);
	}
	ck_assert_uint_eq(former.calls, 0);
	ck_assert(former_is_back(true));
}
END_TEST

static void *reads_from_outside(void *arg)
{
	struct domain *d = arg;

	return (void *)(intptr_t)(*(volatile uint8_t *)d->ram.view == content(0));
}

START_TEST(test_yield_a_thread_without_a_domain_does_not_park)
{
	pthread_t thread;
	void *right;

	NEEDS(FAULTS);
	former_install(true, 0);
	domain_begin(&one, 0);
	former.open = &one;
	ck_assert_int_eq(pthread_create(&thread, NULL, reads_from_outside, &one), 0);
	pthread_join(thread, &right);
	ck_assert_ptr_nonnull(right);
	ck_assert_uint_eq(former.calls, 1);
	ck_assert_uint_eq(one.y.faults, 0);
	domain_end(&one);
}
END_TEST

/* ---- the watch ---- */

#define WATCH_NS (40 * NS_PER_MS)

/* The one who would bring the page is another thread here: it does so when the watch has spoken. */
static void *lands_after_the_watch_spoke(void *arg)
{
	struct domain *d = arg;
	struct uffd_msg msg;
	struct pollfd p = { .fd = d->ram.guest_uffd, .events = POLLIN };

	while (!__atomic_load_n(&d->done, __ATOMIC_ACQUIRE))
		poll(NULL, 0, 1);
	while (poll(&p, 1, 1000) == 1 && read(p.fd, &msg, sizeof(msg)) == sizeof(msg)) {
		ram_land(&d->ram, (size_t)(msg.arg.pagefault.address - (uintptr_t)d->ram.guest), p.fd, d->ram.guest);
		if (__atomic_load_n(&d->done, __ATOMIC_ACQUIRE) == 2)
			break;
	}
	return NULL;
}

static uint8_t load_by_a_known_register(const uint8_t *p)
{
	uint64_t value;

#if defined(__x86_64__)
	__asm__ volatile("movzbl (%%rsi), %%eax" : "=a"(value) : "S"(p) : "memory");
#elif defined(__aarch64__)
	register const uint8_t *x9 __asm__("x9") = p;

	__asm__ volatile("ldrb %w0, [%1]" : "=r"(value) : "r"(x9) : "memory");
#else
	value = *(const volatile uint8_t *)p;
#endif
	return (uint8_t)value;
}

static int touches_guest_view(void *arg)
{
	struct callback *c = arg;

	yield_watch(&c->d->y, "device 'kbd' instance 0");
	c->wrong += load_by_a_known_register(c->d->ram.guest + c->off) != content(c->off);
	yield_unwatch(&c->d->y);
	__atomic_store_n(&c->d->done, 2, __ATOMIC_RELEASE);
	return 0;
}

START_TEST(test_yield_the_watch_names_callback_and_block)
{
	struct callback c = { .d = &one, .off = 0x12345 };
	pthread_t thread;

	NEEDS(FAULTS);
	domain_begin(&one, WATCH_NS);
	ck_assert_int_eq(pthread_create(&thread, NULL, lands_after_the_watch_spoke, &one), 0);
	world_spawn(&one.w, touches_guest_view, &c);
	domain_run(&one);
	pthread_join(thread, NULL);
	ck_assert_int_eq(c.wrong, 0);
	ck_assert_uint_ge(one.stuck_count, 1);
	ck_assert_str_eq(one.stuck_what, "device 'kbd' instance 0");
	printf("%s\n", one.stuck_text);
	ck_assert_ptr_nonnull(strstr(one.stuck_text, " at pc 0x"));
#if defined(__x86_64__)
	ck_assert_ptr_nonnull(strstr(one.stuck_text, "block 'pc.ram' at 0x12345 (rsi)"));
#elif defined(__aarch64__)
	ck_assert_ptr_nonnull(strstr(one.stuck_text, "block 'pc.ram' at 0x12345 (x9)"));
#endif
#if defined(__x86_64__) || defined(__aarch64__)
	ck_assert_ptr_nonnull(strstr(one.stuck_text, "the engine view (inm_ram_view) does not"));
#endif
	domain_end(&one);
}
END_TEST

static int is_busy(void *arg)
{
	struct callback *c = arg;
	uint64_t until_ns = clock_now_ns() + c->bytes;

	yield_watch(&c->d->y, "busy");
	while (clock_now_ns() < until_ns && c->d->stuck_count < c->off)
		;
	yield_unwatch(&c->d->y);
	return 0;
}

START_TEST(test_yield_the_watch_repeats_at_doubling_intervals)
{
	static const char *const first[] = { "stuck for 40 ms at pc 0x", "stuck for 80 ms at pc 0x",
					     "stuck for 160 ms at pc 0x" };
	uint64_t before_ns = clock_now_ns();

	NEEDS(FIRES);
	domain_begin(&one, WATCH_NS);
	for (size_t n = 1; n <= 3; n++) {
		struct callback c = { .d = &one, .off = n, .bytes = 100 * NS_PER_S };

		one.stuck_count = 0;
		world_spawn(&one.w, is_busy, &c);
		domain_run(&one);
		ck_assert_uint_eq(one.stuck_count, n);
		ck_assert_msg(strncmp(one.stuck_text, first[n - 1], strlen(first[n - 1])) == 0, "%s", one.stuck_text);
	}
	ck_assert_ptr_nonnull(strstr(one.stuck_text, ": busy or blocked elsewhere"));
	ck_assert_ptr_null(strstr(one.stuck_text, "pc.ram"));
	ck_assert_uint_ge(clock_now_ns() - before_ns, (1 + 2 + 4) * WATCH_NS);
	domain_end(&one);
}
END_TEST

static int sleeps_unwatched(void *arg)
{
	struct callback *c = arg;

	for (int i = 0; i < 20; i++) {
		yield_watch(&c->d->y, "short");
		yield_unwatch(&c->d->y);
	}
	poll(NULL, 0, 3 * WATCH_NS / NS_PER_MS);
	return 0;
}

START_TEST(test_yield_the_watch_is_silent_when_nothing_is_watched)
{
	struct callback c = { .d = &one };

	NEEDS(0);
	domain_begin(&one, WATCH_NS);
	world_spawn(&one.w, sleeps_unwatched, &c);
	domain_run(&one);
	ck_assert_uint_eq(one.stuck_count, 0);
	domain_end(&one);
}
END_TEST

START_TEST(test_yield_who_is_parked_is_not_stuck)
{
	struct callback c[2] = { { .d = &one }, { .d = &one } };

	NEEDS(FAULTS);
	domain_begin(&one, WATCH_NS);
	world_spawn(&one.w, reads_one, &c[0]);
	world_settle(&one.w);
	ck_assert_uint_eq(one.parked_count, 1);
	/* The timer is not even running: nothing interrupts. */
	ck_assert_int_eq(poll(NULL, 0, 3 * WATCH_NS / NS_PER_MS), 0);
	ck_assert_uint_eq(one.stuck_count, 0);
	domain_run(&one);
	ck_assert_int_eq(c[0].wrong, 0);
	ck_assert_uint_eq(one.stuck_count, 0);

	world_spawn(&one.w, parks_without_a_word, &c[1]);
	sched_run_ready(&one.w.sched);
	for (int i = 0; i < 3; i++)
		poll(NULL, 0, WATCH_NS / NS_PER_MS);
	ck_assert_uint_eq(one.stuck_count, 0);
	domain_run(&one);
	domain_end(&one);
}
END_TEST

static int faults_and_is_busy(void *arg)
{
	struct callback *c = arg;
	uint64_t until_ns;

	yield_watch(&c->d->y, "faults, then busy");
	c->wrong += *(volatile uint8_t *)(c->d->ram.view + c->off) != content(c->off);
	until_ns = clock_now_ns() + 100 * NS_PER_S;
	while (clock_now_ns() < until_ns && c->d->stuck_count == 0)
		;
	yield_unwatch(&c->d->y);
	return 0;
}

START_TEST(test_yield_the_watch_goes_on_after_a_fault)
{
	struct callback c = { .d = &one };

	NEEDS(FAULTS | FIRES);
	domain_begin(&one, WATCH_NS);
	world_spawn(&one.w, faults_and_is_busy, &c);
	domain_run(&one);
	ck_assert_int_eq(c.wrong, 0);
	ck_assert_uint_eq(one.stuck_count, 1);
	ck_assert_str_eq(one.stuck_what, "faults, then busy");
	domain_end(&one);
}
END_TEST

/* Two watches of one thread: each timer speaks for its own domain. */
START_TEST(test_yield_each_domain_has_its_own_watch)
{
	struct callback c = { .d = &two_domains[1], .off = 1, .bytes = 100 * NS_PER_S };

	NEEDS(FIRES);
	former_install(true, 0);
	for (size_t k = 0; k < 2; k++)
		domain_begin(&two_domains[k], WATCH_NS);
	world_spawn(&two_domains[1].w, is_busy, &c);
	domain_run(&two_domains[1]);
	ck_assert_uint_eq(two_domains[0].stuck_count, 0);
	ck_assert_uint_eq(two_domains[1].stuck_count, 1);
	for (size_t k = 0; k < 2; k++)
		domain_end(&two_domains[k]);
	ck_assert_uint_eq(former.calls, 0);
}
END_TEST

/* The embedder's own timer that signals so is the embedder's. */
START_TEST(test_yield_a_timer_of_somebody_else_is_not_ours)
{
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGBUS };
	struct itimerspec soon = { .it_value.tv_nsec = 1000 * 1000 };
	uint64_t until_ns = clock_now_ns() + 10 * NS_PER_S;
	timer_t timer;

	NEEDS(FIRES);
	former_install(true, 0);
	domain_begin(&one, WATCH_NS);
	ck_assert_int_eq(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
	timer_settime(timer, 0, &soon, NULL);
	while (former.calls == 0 && clock_now_ns() < until_ns)
		poll(NULL, 0, 1);
	timer_delete(timer);
	ck_assert_uint_eq(former.calls, 1);
	ck_assert_int_eq(former.info.si_code, SI_TIMER);
	ck_assert_uint_eq(one.stuck_count, 0);
	domain_end(&one);
}
END_TEST

/* The timer is deleted just when it fires: no signal of it reaches the former handler. */
START_TEST(test_yield_a_watch_that_ends_when_it_fires_leaves_no_signal)
{
	unsigned rounds = RUNNING_ON_VALGRIND ? 20 : 2000;

	NEEDS(FIRES);
	former_install(true, 0);
	for (unsigned i = 0; i < rounds; i++) {
		struct yield y = { .sched = &one.w.sched, .fault = on_fault, .stuck = on_stuck, .opaque = &one };
		uint64_t until_ns;

		ck_assert_int_eq(yield_begin(&y, 20 * NS_PER_US), 0);
		yield_watch(&y, "short");
		until_ns = clock_now_ns() + 15 * NS_PER_US + i % 16 * NS_PER_US;
		while (clock_now_ns() < until_ns)
			;
		yield_end(&y);
	}
	ck_assert_uint_eq(former.calls, 0);
	ck_assert(former_is_back(true));
}
END_TEST

Suite *suite(void)
{
	Suite *s = suite_create("yield");
	TCase *t = tcase_create("faults");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, test_yield_many_coroutines_fault_at_once);
	tcase_add_test(t, test_yield_errno_and_rounding_are_kept);
	tcase_add_test(t, test_yield_a_copy_may_cross_missing_pages);
	tcase_add_test(t, test_yield_one_instruction_may_miss_two_pages);
	tcase_add_test(t, test_yield_several_may_want_one_page_and_write);
	tcase_add_test(t, test_yield_a_mask_changed_meanwhile_stays);
	tcase_add_test(t, test_yield_sigbus_is_not_blocked_between_begin_and_the_last_end);
	tcase_add_test(t, test_yield_many_ranges_are_told_apart);
	suite_add_tcase(s, t);

	t = tcase_create("huge");
	tcase_set_timeout(t, 60);
	tcase_add_unchecked_fixture(t, huge_pool_setup, huge_pool_restore);
	tcase_add_test(t, test_yield_huge_pages_and_their_boundary);
	suite_add_tcase(s, t);

	t = tcase_create("foreign");
	tcase_add_loop_test(t, test_yield_a_foreign_address_goes_to_the_former_handler, 0, 4);
	tcase_add_test(t, test_yield_a_former_handler_with_nodefer_may_be_hit_again);
	tcase_add_test(t, test_yield_a_signal_that_was_sent_goes_to_the_former_handler);
	tcase_add_test(t, test_yield_without_a_former_handler_the_process_ends_as_it_would_have);
	tcase_add_test(t, test_yield_a_former_handler_that_was_for_once_is_not_put_back);
	tcase_add_loop_test(t, test_yield_the_former_handler_is_back_after_the_last_end, 0, 2);
	tcase_add_test(t, test_yield_works_below_a_handler_that_hands_on);
	tcase_add_test(t, test_yield_begins_anew_when_somebody_took_the_handler_away);
	suite_add_tcase(s, t);

	t = tcase_create("errors");
	tcase_add_test(t, test_yield_the_threads_own_context_does_not_park);
	tcase_add_test(t, test_yield_outside_a_callback_nobody_parks);
	tcase_add_test(t, test_yield_a_page_that_cannot_come_is_seen);
	suite_add_tcase(s, t);

	t = tcase_create("several");
	tcase_set_timeout(t, 60);
	tcase_add_test(t, test_yield_two_schedulers_on_one_thread);
	tcase_add_test(t, test_yield_two_threads_with_a_domain_each);
	tcase_add_test(t, test_yield_a_thread_without_a_domain_does_not_park);
	suite_add_tcase(s, t);

	t = tcase_create("watch");
	tcase_set_timeout(t, 60);
	tcase_add_test(t, test_yield_the_watch_names_callback_and_block);
	tcase_add_test(t, test_yield_the_watch_repeats_at_doubling_intervals);
	tcase_add_test(t, test_yield_the_watch_is_silent_when_nothing_is_watched);
	tcase_add_test(t, test_yield_who_is_parked_is_not_stuck);
	tcase_add_test(t, test_yield_the_watch_goes_on_after_a_fault);
	tcase_add_test(t, test_yield_each_domain_has_its_own_watch);
	tcase_add_test(t, test_yield_a_timer_of_somebody_else_is_not_ours);
	tcase_add_test(t, test_yield_a_watch_that_ends_when_it_fires_leaves_no_signal);
	suite_add_tcase(s, t);
	return s;
}
