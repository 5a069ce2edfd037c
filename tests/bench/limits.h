#ifndef TESTS_BENCH_LIMITS_H
#define TESTS_BENCH_LIMITS_H

/*
 * limits.h - what bench_limits fills, and through what: memory of each kind, pairs of sockets, clocks
 *
 * For that one program. Nothing here returns an error: it says why, and ends the program.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define KIB 1024u
#define MIB (1024u * KIB)

enum {
	MEM_MEMFD = 1 << 0,    /* else anonymous */
	MEM_HUGE = 1 << 1,     /* transparent huge pages wanted; else refused, so that rows differ by one thing */
	MEM_PREFAULT = 1 << 2, /* there before the clock starts */
	MEM_DISCARD = 1 << 3,  /* one buffer again and again */
};

struct kind {
	const char *name;
	const char *text;
	unsigned flags;
};

static const struct kind kinds[] = {
	{ "discard", "one small buffer", MEM_DISCARD },
	{ "anon", "anonymous, fresh", 0 },
	{ "thp", "anonymous, huge pages, fresh", MEM_HUGE },
	{ "anon-there", "anonymous, prefaulted", MEM_PREFAULT },
	{ "thp-there", "anonymous, huge pages, prefaulted", MEM_HUGE | MEM_PREFAULT },
	{ "memfd", "memfd, fresh", MEM_MEMFD },
	{ "memfd-thp", "memfd, huge pages, fresh", MEM_MEMFD | MEM_HUGE },
	{ "memfd-there", "memfd, prefaulted", MEM_MEMFD | MEM_PREFAULT },
};

#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static inline const struct kind *find_kind(const char *name)
{
	for (size_t k = 0; k < KINDS; k++) {
		if (!strcmp(kinds[k].name, name))
			return &kinds[k];
	}
	return NULL;
}

struct target {
	uint8_t *base;
	size_t bytes; /* that one run fills */
	bool discard;
};

static inline void die(const char *what)
{
	fprintf(stderr, "bench_limits: %s: %s\n", what, strerror(errno));
	exit(1);
}

static inline double now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- memory ---- */

static inline void target_init(struct target *t, const struct kind *kind, size_t bytes)
{
	int fd = -1, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

	if (kind->flags & MEM_MEMFD) {
		fd = memfd_create("limits", MFD_CLOEXEC);
		if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
			die("memfd");
		flags = MAP_SHARED;
	}
	t->bytes = bytes;
	t->discard = kind->flags & MEM_DISCARD;
	t->base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (t->base == MAP_FAILED)
		die("mmap");
	if (fd >= 0)
		close(fd);
	/* Fails where the kernel has no such pages: then the rows are alike, which is what there is. */
	madvise(t->base, bytes, kind->flags & MEM_HUGE ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	if (kind->flags & MEM_PREFAULT)
		memset(t->base, 1, bytes);
}

/* Where a host takes free memory back (free page reporting of virtio-balloon), its first touch costs ten times as much
 * as any other, and it is chance which run pays. So what the next run takes is touched and given back first. */
static inline void warm_free_memory(size_t bytes)
{
	static const struct kind warm = { "", "", MEM_HUGE | MEM_PREFAULT };
	struct target t;

	target_init(&t, &warm, bytes + bytes / 4);
	munmap(t.base, t.bytes);
}

static inline void target_fini(struct target *t)
{
	munmap(t->base, t->bytes);
}

/* ---- a pair of sockets ---- */

static inline int listen_tcp(int backlog, struct sockaddr_in *ret_addr)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, backlog) < 0 ||
	    getsockname(fd, (struct sockaddr *)&addr, &length) < 0)
		die("listen");
	*ret_addr = addr;
	return fd;
}

static inline int listen_unix(int backlog, const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(addr.sun_path)) {
		errno = ENAMETOOLONG;
		die(path);
	}
	strcpy(addr.sun_path, path);
	unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, backlog) < 0)
		die(path);
	return fd;
}

static inline int accept_one(int listener)
{
	int fd;

	do
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	while (fd < 0 && errno == EINTR);
	if (fd < 0)
		die("accept");
	return fd;
}

static inline void socket_pair(bool tcp, int ret_fd[2])
{
	struct sockaddr_in addr;
	int listener;

	if (!tcp) {
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ret_fd) < 0)
			die("socketpair");
		return;
	}
	listener = listen_tcp(1, &addr);
	ret_fd[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (ret_fd[1] < 0 || connect(ret_fd[1], (struct sockaddr *)&addr, sizeof(addr)) < 0)
		die("connect");
	ret_fd[0] = accept_one(listener);
	close(listener);
}

#endif
