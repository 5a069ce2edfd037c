/* What the programs about userfaultfd share: a descriptor or a skip, a thread that touches, and the bare ioctls with
 * what they leave behind. */
#ifndef TESTS_PLATFORM_UFFD_KIT_H
#define TESTS_PLATFORM_UFFD_KIT_H

#include "base/clock.h"
#include "base/err.h"
#include "postcopy/uffd.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define BOTH_MODES (UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR)

/* How long something must not happen to count as "does not"; and must happen within to count as "does". */
#define NEVER_MS 150
#define SOON_MS 10000

/* Ends the program when the kernel does something else. */
#define CLAIM(cond, ...) \
	do { \
		bool claim_holds = (cond); \
		printf("%s: ", claim_holds ? "true" : "FALSE"); \
		printf(__VA_ARGS__); \
		putchar('\n'); \
		fflush(stdout); \
		if (!claim_holds) \
			exit(1); \
	} while (0)

_Noreturn static inline void broken(const char *what)
{
	perror(what);
	exit(1);
}

/* Ends the program as skipped where there is no such descriptor. */
static inline struct uffd uffd_or_skip(uint64_t features)
{
	struct err err = ERR_NONE;
	struct uffd u;

	if (uffd_open(&u, features, 0, &err) < 0) {
		puts(err.text);
		exit(77);
	}
	return u;
}

static inline size_t page_size(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

static inline int memory_file(size_t bytes)
{
	int fd = memfd_create("memory", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
		broken("memfd");
	return fd;
}

/* A shared mapping of @fd, or private anonymous memory with -1. */
static inline uint8_t *map(int fd, size_t bytes)
{
	int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags | MAP_NORESERVE, fd, 0);

	if (p == MAP_FAILED)
		broken("mmap");
	/* One page must not come with its neighbours. */
	madvise(p, bytes, MADV_NOHUGEPAGE);
	return p;
}

static inline void watch(const struct uffd *u, void *p, size_t bytes, uint64_t modes)
{
	int r = uffd_register(u, p, bytes, modes);

	if (r < 0) {
		errno = -r;
		broken("UFFDIO_REGISTER");
	}
}

/* ---- the bare ioctls: 0 or the errno; @ret_field is what copy, zeropage or mapped holds afterwards -------------- */

static inline int bare_copy(const struct uffd *u, void *dst, const void *src, size_t bytes, uint64_t mode,
                            int64_t *ret_field)
{
	struct uffdio_copy c = { .dst = (uintptr_t)dst, .src = (uintptr_t)src, .len = bytes, .mode = mode };
	int r = ioctl(u->fd, UFFDIO_COPY, &c) < 0 ? -errno : 0;

	*ret_field = c.copy;
	return r;
}

static inline int bare_zeropage(const struct uffd *u, void *dst, size_t bytes, int64_t *ret_field)
{
	struct uffdio_zeropage z = { .range = { (uintptr_t)dst, bytes } };
	int r = ioctl(u->fd, UFFDIO_ZEROPAGE, &z) < 0 ? -errno : 0;

	*ret_field = z.zeropage;
	return r;
}

static inline int bare_continue(const struct uffd *u, void *dst, size_t bytes, uint64_t mode, int64_t *ret_field)
{
	struct uffdio_continue c = { .range = { (uintptr_t)dst, bytes }, .mode = mode };
	int r = ioctl(u->fd, UFFDIO_CONTINUE, &c) < 0 ? -errno : 0;

	*ret_field = c.mapped;
	return r;
}

/* ---- events --------------------------------------------------------------------------------------------------- */

static inline bool event_comes(const struct uffd *u, int ms)
{
	struct pollfd p = { .fd = u->fd, .events = POLLIN };

	return poll(&p, 1, ms) == 1 && (p.revents & POLLIN);
}

/* The next one; none in a long time ends the program. */
static inline struct uffd_msg next_event(const struct uffd *u)
{
	struct uffd_msg msg;

	if (!event_comes(u, SOON_MS) || uffd_read(u, &msg, 1) != 1) {
		puts("FALSE: an event comes");
		exit(1);
	}
	return msg;
}

/* ---- a thread that reads one byte, and may wait in there ------------------------------------------------------- */

struct toucher {
	pthread_t thread;
	const volatile uint8_t *addr;
	uint8_t saw;
	atomic_bool over;
};

static inline void *toucher_main(void *arg)
{
	struct toucher *t = arg;

	t->saw = *t->addr;
	atomic_store(&t->over, true);
	return NULL;
}

static inline void touch(struct toucher *t, const void *addr)
{
	*t = (struct toucher){ .addr = addr };
	if (pthread_create(&t->thread, NULL, toucher_main, t) != 0)
		broken("pthread_create");
}

static inline bool touch_ends(struct toucher *t, unsigned ms)
{
	uint64_t deadline_ns = deadline_after_ns(ms * NS_PER_MS);

	while (!atomic_load(&t->over)) {
		if (clock_now_ns() > deadline_ns)
			return false;
		usleep(1000);
	}
	pthread_join(t->thread, NULL);
	return true;
}

/* The fault has been read, and the thread sleeps in it: it looks once more between the report and the sleep, and a
 * page that is placed just then needs no wake. */
static inline struct uffd_msg touch_sleeps(struct toucher *t, const struct uffd *u, const void *addr)
{
	struct uffd_msg msg;

	touch(t, addr);
	msg = next_event(u);
	if (touch_ends(t, NEVER_MS)) {
		puts("FALSE: a thread that touches a missing page waits");
		exit(1);
	}
	return msg;
}

#endif
