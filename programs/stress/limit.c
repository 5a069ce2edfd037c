#include "programs/stress/limit.h"

#include "base/clock.h"
#include "base/err.h"
#include "postcopy/uffd.h"
#include "programs/stress/kinds.h"
#include "programs/stress/move.h"
#include "programs/stress/options.h"
#include "programs/stress/result.h"

#include <errno.h>
#include <linux/memfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LIMIT_NS (200 * NS_PER_MS)
#define LIMIT_BYTES (8ul << 20)
#define EVENTS_MAX 64

struct limit {
	enum stress_place place;
	struct uffd u;
	int fd;
	size_t page, bytes;
	uint8_t *guest, *other; /* other: landing, or where pages are copied or moved from */
	unsigned touchers;
	pthread_barrier_t barrier;
	_Atomic bool stop, round_over;
	uint64_t faults, busy_ns;
};

struct limit_toucher {
	struct limit *l;
	pthread_t thread;
	unsigned index;
};

static void *touch_all(void *arg)
{
	struct limit_toucher *t = arg;
	struct limit *l = t->l;
	size_t pages = l->bytes / l->page;

	for (;;) {
		pthread_barrier_wait(&l->barrier);
		if (atomic_load(&l->stop))
			return NULL;
		for (size_t i = t->index; i < pages; i += l->touchers)
			(void)*(volatile uint8_t *)(l->guest + i * l->page);
		pthread_barrier_wait(&l->barrier);
	}
}

static int resolve(struct limit *l, uint64_t addr)
{
	uint8_t *at = l->guest + ((addr - (uintptr_t)l->guest) & ~(l->page - 1)), *src = l->other + (at - l->guest);

	switch (l->place) {
	case PLACE_COPY:
		return uffd_copy(&l->u, at, l->other, l->page).error;
	case PLACE_CONTINUE:
		return uffd_continue(&l->u, at, l->page).error;
	case PLACE_ZERO:
		return uffd_zeropage(&l->u, at, l->page).error;
	default:
		return move_ioctl(l->u.fd, at, src, l->page);
	}
}

/* Until all faults of a round are answered. Return: 0 or the errno. */
static int answer(struct limit *l)
{
	struct uffd_msg events[EVENTS_MAX];
	struct pollfd pfd = { .fd = l->u.fd, .events = POLLIN };
	size_t left = l->bytes / l->page;
	ssize_t n;
	int r;

	while (left > 0) {
		if (poll(&pfd, 1, 1000) <= 0)
			return -EIO;
		n = uffd_read(&l->u, events, EVENTS_MAX);
		for (ssize_t i = 0; i < n; i++) {
			r = resolve(l, events[i].arg.pagefault.address);
			if (r < 0 && r != -EEXIST)
				return r;
			left--;
		}
	}
	return 0;
}

static int begin_round(struct limit *l)
{
	/* Gone from the guest view alone: what CONTINUE shows stays in the file. */
	int r = madvise(l->guest, l->bytes, MADV_DONTNEED) < 0 ? -errno : 0;

	if (l->place == PLACE_ZERO && l->fd >= 0)
		r = madvise(l->other, l->bytes, MADV_REMOVE) < 0 ? -errno : 0;
	if (l->place == PLACE_MOVE)
		for (size_t off = 0; off < l->bytes; off += l->page)
			l->other[off] = 1;
	return r;
}

static int measure(struct limit *l)
{
	uint64_t end_ns = clock_now_ns() + LIMIT_NS, begin_ns;
	int r = 0;

	while (r == 0 && clock_now_ns() < end_ns) {
		r = begin_round(l);
		if (r < 0)
			break;
		begin_ns = clock_now_ns();
		pthread_barrier_wait(&l->barrier);
		r = answer(l);
		/* Threads that still wait read zeros. */
		if (r < 0)
			uffd_unregister(&l->u, l->guest, l->bytes);
		l->busy_ns += clock_now_ns() - begin_ns;
		l->faults += l->bytes / l->page;
		pthread_barrier_wait(&l->barrier);
	}
	return r;
}

static int with_touchers(struct limit *l)
{
	struct limit_toucher *all = calloc(l->touchers, sizeof(*all));
	unsigned made = 0;
	int r = all ? 0 : -ENOMEM;

	if (r < 0)
		return r;
	pthread_barrier_init(&l->barrier, NULL, l->touchers + 1);
	for (; r == 0 && made < l->touchers; made += r == 0) {
		all[made] = (struct limit_toucher){ .l = l, .index = made };
		r = -pthread_create(&all[made].thread, NULL, touch_all, &all[made]);
	}
	if (r == 0)
		r = measure(l);
	/* Fewer than the barrier waits for: they wait there forever, and this is the end of the process. */
	if (made < l->touchers)
		return r;
	atomic_store(&l->stop, true);
	pthread_barrier_wait(&l->barrier);
	for (unsigned i = 0; i < made; i++)
		pthread_join(all[i].thread, NULL);
	pthread_barrier_destroy(&l->barrier);
	free(all);
	return r;
}

static int map_both(struct limit *l, enum stress_memory memory)
{
	bool anonymous = memory == MEMORY_ANON || memory == MEMORY_THP;
	unsigned flags = memory == MEMORY_HUGE_2M ? MFD_HUGETLB | MFD_HUGE_2MB : 0;
	int shared = anonymous ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;

	if (!anonymous) {
		l->fd = memfd_create("limit", MFD_CLOEXEC | flags);
		if (l->fd < 0 || ftruncate(l->fd, (off_t)l->bytes) < 0)
			return -errno;
	}
	l->guest = mmap(NULL, l->bytes, PROT_READ | PROT_WRITE, shared, l->fd, 0);
	l->other = mmap(NULL, l->bytes, PROT_READ | PROT_WRITE, shared, l->fd, 0);
	if (l->guest == MAP_FAILED || l->other == MAP_FAILED)
		return -ENOMEM;
	/* One page is moved away at a time. */
	if (anonymous)
		madvise(l->other, l->bytes, MADV_NOHUGEPAGE);
	if (memory == MEMORY_THP)
		madvise(l->guest, l->bytes, MADV_HUGEPAGE);
	if (l->place != PLACE_ZERO || anonymous)
		memset(l->other, 1, l->bytes);
	return 0;
}

static int watch(struct limit *l, enum stress_memory memory)
{
	uint64_t features = memory == MEMORY_MEMFD   ? UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM :
	                    memory == MEMORY_HUGE_2M ? UFFD_FEATURE_MISSING_HUGETLBFS | UFFD_FEATURE_MINOR_HUGETLBFS :
	                                               0;
	uint64_t modes = UFFDIO_REGISTER_MODE_MISSING | (l->fd >= 0 ? UFFDIO_REGISTER_MODE_MINOR : 0);
	struct err err = ERR_NONE;
	int r = uffd_open(&l->u, features, 0, &err);

	return r < 0 ? r : uffd_register(&l->u, l->guest, l->bytes, modes);
}

int limit_measure(const struct stress_options *opts, enum stress_memory memory, enum stress_place place,
                  struct stress_limit *ret)
{
	struct limit l = { .place = place, .fd = -1, .u = UFFD_NONE, .touchers = opts->touchers };
	int r;

	l.page = memory == MEMORY_HUGE_2M ? 2ul << 20 : 4096;
	l.bytes = LIMIT_BYTES;
	if (memory == MEMORY_HUGE_1G || (place == PLACE_CONTINUE) == (memory == MEMORY_ANON || memory == MEMORY_THP) ||
	    (place == PLACE_COPY && memory == MEMORY_HUGE_2M))
		if (place != PLACE_ZERO)
			return -EINVAL;
	if (place == PLACE_ZERO && (memory == MEMORY_HUGE_2M || memory == MEMORY_HUGE_1G))
		return -EINVAL;
	r = map_both(&l, memory);
	if (r == 0)
		r = watch(&l, memory);
	if (r == 0)
		r = with_touchers(&l);
	uffd_close(&l.u);
	if (l.guest && l.guest != MAP_FAILED)
		munmap(l.guest, l.bytes);
	if (l.other && l.other != MAP_FAILED)
		munmap(l.other, l.bytes);
	if (l.fd >= 0)
		close(l.fd);
	if (r < 0)
		return r;
	*ret = (struct stress_limit){ .faults_rate = l.busy_ns ? (double)l.faults * 1e9 / (double)l.busy_ns : 0,
		                      .mean_ns = l.faults ? l.busy_ns * l.touchers / l.faults : 0 };
	return 0;
}
