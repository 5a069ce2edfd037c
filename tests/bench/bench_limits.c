/*
 * bench_limits - what the kernel can do at most: a bare receive loop and memcpy, into memory of each kind
 *
 *   bench_limits [--quick] [--bytes N] [--runs N]            the table, medians
 *   bench_limits --sink tcp|unix:PATH [--into KIND] [--bytes N]   take one connection, then say "cpu_seconds X"
 *
 * A destination of a migration cannot be faster than the row that fits its memory, nor use less CPU. The sender is
 * another process and sends from a small warm buffer. GB are 10^9 bytes; CPU is the receiver's alone, and only while it
 * receives: neither prefaulting nor unmapping is in it. As a sink it stands in for a destination, and shows how fast a
 * real source can send (tests/bench/run).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KIB 1024u
#define MIB (1024u * KIB)
#define SEND_BYTES (256 * KIB)
#define RUNS_MAX 99

enum {
	MEM_MEMFD = 1 << 0,     /* else anonymous */
	MEM_HUGE = 1 << 1,      /* transparent huge pages wanted; else refused, so that rows differ by one thing */
	MEM_PREFAULT = 1 << 2,  /* there before the clock starts */
	MEM_DISCARD = 1 << 3,   /* one buffer again and again */
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

struct result {
	double seconds, cpu_seconds;
};

struct target {
	uint8_t *base;
	size_t bytes; /* that one run fills */
	bool discard;
};

static void die(const char *what)
{
	fprintf(stderr, "bench_limits: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- memory ---- */

static void target_init(struct target *t, const struct kind *kind, size_t bytes)
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
static void warm_free_memory(size_t bytes)
{
	static const struct kind warm = { "", "", MEM_HUGE | MEM_PREFAULT };
	struct target t;

	target_init(&t, &warm, bytes + bytes / 4);
	munmap(t.base, t.bytes);
}

static void target_fini(struct target *t)
{
	munmap(t->base, t->bytes);
}

/* ---- a pair of sockets ---- */

static int listen_tcp(struct sockaddr_in *ret_addr)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 1) < 0 ||
	    getsockname(fd, (struct sockaddr *)&addr, &length) < 0)
		die("listen");
	*ret_addr = addr;
	return fd;
}

static int listen_unix(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(addr.sun_path)) {
		errno = ENAMETOOLONG;
		die(path);
	}
	strcpy(addr.sun_path, path);
	unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 1) < 0)
		die(path);
	return fd;
}

static int accept_one(int listener)
{
	int fd;

	do
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	while (fd < 0 && errno == EINTR);
	if (fd < 0)
		die("accept");
	close(listener);
	return fd;
}

static void socket_pair(bool tcp, int ret_fd[2])
{
	struct sockaddr_in addr;
	int listener;

	if (!tcp) {
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ret_fd) < 0)
			die("socketpair");
		return;
	}
	listener = listen_tcp(&addr);
	ret_fd[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (ret_fd[1] < 0 || connect(ret_fd[1], (struct sockaddr *)&addr, sizeof(addr)) < 0)
		die("connect");
	ret_fd[0] = accept_one(listener);
}

/* ---- one run ---- */

/* The sender waits for one byte, so that fork and its own page faults are not in anybody's time. */
static pid_t start_sender(int fd, int other, size_t bytes)
{
	static uint8_t buf[SEND_BYTES];
	pid_t parent = getpid(), pid = fork();
	uint8_t go;

	if (pid < 0)
		die("fork");
	if (pid > 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	close(other);
	memset(buf, 0xa5, sizeof(buf));
	if (recv(fd, &go, 1, 0) != 1)
		_exit(1);
	while (bytes) {
		ssize_t n = send(fd, buf, bytes < sizeof(buf) ? bytes : sizeof(buf), MSG_NOSIGNAL);

		if (n < 0)
			_exit(1);
		bytes -= (size_t)n;
	}
	_exit(0);
}

/* Until the end of the stream, or until as much has come as `bytes` says; 0: until its end. A full target is filled
 * once more. */
static void receive(int fd, struct target *t, size_t recv_bytes, size_t bytes)
{
	size_t at = 0, total = 0;

	while (!bytes || total < bytes) {
		size_t want = recv_bytes;
		ssize_t n;

		if (want > t->bytes - at)
			want = t->bytes - at;
		if (bytes && want > bytes - total)
			want = bytes - total;
		n = recv(fd, t->base + at, want, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			die("recv");
		if (n == 0)
			break;
		total += (size_t)n;
		at += t->discard ? 0 : (size_t)n;
		if (at == t->bytes)
			at = 0;
	}
	if (bytes && total < bytes) {
		errno = EPIPE;
		die("the sender ended early");
	}
}

static struct result run_recv(bool tcp, const struct kind *kind, size_t recv_bytes, size_t bytes)
{
	struct target t;
	struct result r;
	int fd[2], status;
	pid_t pid;

	warm_free_memory(bytes);
	socket_pair(tcp, fd);
	pid = start_sender(fd[1], fd[0], bytes);
	close(fd[1]);
	/* After fork: a child that shares the pages would make every one a copy on write. */
	target_init(&t, kind, bytes);
	r.seconds = now(CLOCK_MONOTONIC);
	r.cpu_seconds = now(CLOCK_THREAD_CPUTIME_ID);
	if (send(fd[0], "", 1, MSG_NOSIGNAL) != 1)
		die("send");
	receive(fd[0], &t, recv_bytes, bytes);
	r.cpu_seconds = now(CLOCK_THREAD_CPUTIME_ID) - r.cpu_seconds;
	r.seconds = now(CLOCK_MONOTONIC) - r.seconds;
	target_fini(&t);
	close(fd[0]);
	if (waitpid(pid, &status, 0) != pid || status != 0)
		die("the sender");
	return r;
}

static struct result run_copy(const struct kind *kind, size_t bytes)
{
	static uint8_t from[SEND_BYTES];
	struct target t;
	struct result r;

	warm_free_memory(bytes);
	memset(from, 0xa5, sizeof(from));
	target_init(&t, kind, bytes);
	r.seconds = now(CLOCK_MONOTONIC);
	r.cpu_seconds = now(CLOCK_THREAD_CPUTIME_ID);
	for (size_t at = 0; at < bytes; at += sizeof(from))
		memcpy(t.base + (t.discard ? 0 : at), from, bytes - at < sizeof(from) ? bytes - at : sizeof(from));
	r.cpu_seconds = now(CLOCK_THREAD_CPUTIME_ID) - r.cpu_seconds;
	r.seconds = now(CLOCK_MONOTONIC) - r.seconds;
	target_fini(&t);
	return r;
}

/* ---- the table ---- */

static int compare_double(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *v, size_t n)
{
	qsort(v, n, sizeof(v[0]), compare_double);
	return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* recv_bytes 0: memcpy. */
static void print_cell(bool tcp, const struct kind *kind, size_t recv_bytes, size_t bytes, unsigned runs)
{
	double rate[RUNS_MAX], cpu[RUNS_MAX];

	for (unsigned i = 0; i < runs; i++) {
		struct result r = recv_bytes ? run_recv(tcp, kind, recv_bytes, bytes) : run_copy(kind, bytes);

		rate[i] = (double)bytes / 1e9 / r.seconds;
		cpu[i] = r.cpu_seconds / ((double)bytes / 1e9);
	}
	printf("   %6.2f", median(rate, runs));
	printf(" (%5.2f-%5.2f) %6.3f", rate[0], rate[runs - 1], median(cpu, runs));
	fflush(stdout);
}

static void print_table(const char *name, bool tcp, const size_t *sizes, size_t bytes, unsigned runs)
{
	printf("%-34s", name);
	for (size_t i = 0; sizes[i]; i++)
		printf("   recv of %4zu KiB: CPU-s/GB", sizes[i] / KIB);
	printf("\n");
	for (size_t k = 0; k < KINDS; k++) {
		printf("  %-32s", kinds[k].text);
		for (size_t i = 0; sizes[i]; i++)
			print_cell(tcp, &kinds[k], sizes[i], bytes, runs);
		printf("\n");
	}
}

static void print_all(bool quick, size_t bytes, unsigned runs)
{
	static const size_t many[] = { 64 * KIB, 256 * KIB, MIB, 0 }, one[] = { 256 * KIB, 0 };
	const size_t *sizes = quick ? one : many;

	printf("bare limits: GB/s, median (min-max) of %u, %zu MiB each; CPU-s/GB of the receiver\n", runs,
	       bytes / MIB);
	print_table("TCP over loopback, into", true, sizes, bytes, runs);
	print_table("unix socket, into", false, sizes, bytes, runs);
	printf("memcpy from a warm buffer, into\n");
	for (size_t k = 0; k < KINDS; k++) {
		printf("  %-32s", kinds[k].text);
		print_cell(false, &kinds[k], 0, bytes, runs);
		printf("\n");
	}
}

/* ---- the sink ---- */

static const struct kind *find_kind(const char *name)
{
	for (size_t k = 0; k < KINDS; k++) {
		if (!strcmp(kinds[k].name, name))
			return &kinds[k];
	}
	return NULL;
}

static void sink(const char *where, const struct kind *kind, size_t bytes)
{
	struct sockaddr_in addr;
	struct target t;
	double cpu;
	int fd;

	target_init(&t, kind, bytes);
	if (!strncmp(where, "unix:", 5)) {
		fd = listen_unix(where + 5);
		printf("listening on %s\n", where);
	} else {
		fd = listen_tcp(&addr);
		printf("listening on tcp:127.0.0.1:%u\n", ntohs(addr.sin_port));
	}
	fflush(stdout);
	fd = accept_one(fd);
	cpu = now(CLOCK_THREAD_CPUTIME_ID);
	receive(fd, &t, 256 * KIB, 0);
	printf("cpu_seconds %.6f\n", now(CLOCK_THREAD_CPUTIME_ID) - cpu);
	fflush(stdout);
	close(fd);
	target_fini(&t);
}

static int usage(void)
{
	fprintf(stderr, "usage: bench_limits [--quick] [--bytes N] [--runs N]\n"
			"       bench_limits --sink tcp|unix:PATH [--into KIND] [--bytes N]\n"
			"KIND:");
	for (size_t k = 0; k < KINDS; k++)
		fprintf(stderr, " %s", kinds[k].name);
	fprintf(stderr, "\n");
	return 2;
}

int main(int argc, char **argv)
{
	const struct kind *kind = &kinds[0];
	const char *where = NULL;
	size_t bytes = 256 * MIB;
	unsigned runs = 0;
	bool quick = false;

	for (int i = 1; i < argc; i++) {
		const char *value = argv[i + 1];

		if (!strcmp(argv[i], "--quick")) {
			quick = true;
			continue;
		}
		if (!value)
			return usage();
		i++;
		if (!strcmp(argv[i - 1], "--bytes"))
			bytes = strtoul(value, NULL, 0);
		else if (!strcmp(argv[i - 1], "--runs"))
			runs = (unsigned)strtoul(value, NULL, 0);
		else if (!strcmp(argv[i - 1], "--sink"))
			where = value;
		else if (!strcmp(argv[i - 1], "--into"))
			kind = find_kind(value);
		else
			return usage();
	}
	if (runs == 0)
		runs = quick ? 3 : 5;
	if (!kind || runs > RUNS_MAX || bytes < 2 * MIB)
		return usage();
	if (where)
		sink(where, kind, bytes);
	else
		print_all(quick, bytes, runs);
	return 0;
}
