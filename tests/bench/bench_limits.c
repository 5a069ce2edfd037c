/*
 * bench_limits - what the kernel can do at most: a bare receive loop and memcpy, into memory of each kind
 *
 *   bench_limits [--quick] [--bytes N] [--runs N]            the table, medians
 *   bench_limits --parallel N [--bytes N] [--runs N]         the same bytes through N TCP connections at once
 *   bench_limits --sink tcp|unix:PATH [--into KIND] [--bytes N] [--parallel N]
 *                            take one connection, or N; when all have ended, say "cpu_seconds X"
 *
 * A destination of a migration cannot be faster than the row that fits its memory, nor use less CPU. The sender is
 * another process and sends from a small warm buffer. GB are 10^9 bytes. CPU is only the receiver's, and only while it
 * receives: it includes neither prefaulting nor unmapping. As a sink this replaces a destination, and shows how fast a
 * real source can send (tests/bench/run).
 *
 * It receives several connections in three ways: with a thread for each; with one thread and one io_uring, where a
 * receive runs on that thread as soon as there is data; and the same with IOSQE_ASYNC, where it runs on the kernel's
 * workers. CPU then counts all threads, including the kernel's workers for us. Each connection has its own sender.
 */
#include "tests/bench/limits.h"

#include <liburing.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define SEND_BYTES (256 * KIB)
#define RUNS_MAX 99
#define LANES_MAX 64
#define LANE_RECV_BYTES (512 * KIB) /* the payload of a multifd packet as QEMU makes them: 128 pages */

struct result {
	double seconds, cpu_seconds;
};

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

/* ---- several connections at once ---- */

enum way { WAY_THREADS, WAY_RING, WAY_RING_ASYNC };

static const char *const way_names[] = { "a thread each", "one io_uring", "io_uring, IOSQE_ASYNC" };

struct lane {
	int fd;
	struct target part; /* its share of the target */
	size_t at;
	size_t bytes; /* as for receive() */
	pid_t sender;
	pthread_t thread;
};

static void lanes_share(struct lane *lanes, unsigned n, const struct target *t)
{
	for (unsigned i = 0; i < n; i++)
		lanes[i].part = (struct target){ t->base + t->bytes / n * i, t->bytes / n, t->discard };
}

static void *lane_run(void *arg)
{
	struct lane *lane = arg;

	receive(lane->fd, &lane->part, LANE_RECV_BYTES, lane->bytes);
	return NULL;
}

static void receive_threads(struct lane *lanes, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		errno = pthread_create(&lanes[i].thread, NULL, lane_run, &lanes[i]);
		if (errno)
			die("pthread_create");
	}
	for (unsigned i = 0; i < n; i++)
		pthread_join(lanes[i].thread, NULL);
}

static void lane_submit(struct lane *lane, struct io_uring *ring, bool async)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	size_t left = lane->bytes - lane->at;

	io_uring_prep_recv(sqe, lane->fd, lane->part.base + lane->at, left < LANE_RECV_BYTES ? left : LANE_RECV_BYTES,
	                   MSG_WAITALL);
	io_uring_sqe_set_data(sqe, lane);
	if (async)
		io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
}

static void receive_ring(struct lane *lanes, unsigned n, struct io_uring *ring, bool async)
{
	struct io_uring_cqe *cqe;
	unsigned busy = n;

	for (unsigned i = 0; i < n; i++)
		lane_submit(&lanes[i], ring, async);
	while (busy) {
		int r = io_uring_submit_and_wait(ring, 1);

		if (r < 0 && r != -EINTR) {
			errno = -r;
			die("io_uring");
		}
		while (io_uring_peek_cqe(ring, &cqe) == 0) {
			struct lane *lane = io_uring_cqe_get_data(cqe);

			errno = cqe->res < 0 ? -cqe->res : EPIPE;
			if (cqe->res <= 0)
				die("recv");
			lane->at += (size_t)cqe->res;
			io_uring_cqe_seen(ring, cqe);
			if (lane->at == lane->bytes)
				busy--;
			else
				lane_submit(lane, ring, async);
		}
	}
}

static void lanes_connect(struct lane *lanes, unsigned n, size_t bytes)
{
	for (unsigned i = 0; i < n; i++) {
		int fd[2];

		socket_pair(true, fd);
		lanes[i] = (struct lane){ .fd = fd[0], .bytes = bytes / n };
		lanes[i].sender = start_sender(fd[1], fd[0], bytes / n);
		close(fd[1]);
	}
}

static void lanes_end(struct lane *lanes, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		int status;

		close(lanes[i].fd);
		if (waitpid(lanes[i].sender, &status, 0) != lanes[i].sender || status != 0)
			die("the sender");
	}
}

static struct result run_parallel(enum way way, const struct kind *kind, unsigned n, size_t bytes)
{
	struct io_uring_params params = { .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN };
	struct lane lanes[LANES_MAX];
	struct io_uring ring;
	struct target t;
	struct result r;

	warm_free_memory(bytes);
	lanes_connect(lanes, n, bytes);
	target_init(&t, kind, bytes);
	lanes_share(lanes, n, &t);
	errno = -io_uring_queue_init_params(LANES_MAX, &ring, &params);
	if (errno)
		die("io_uring");
	r.seconds = now(CLOCK_MONOTONIC);
	r.cpu_seconds = now(CLOCK_PROCESS_CPUTIME_ID);
	for (unsigned i = 0; i < n; i++) {
		if (send(lanes[i].fd, "", 1, MSG_NOSIGNAL) != 1)
			die("send");
	}
	if (way == WAY_THREADS)
		receive_threads(lanes, n);
	else
		receive_ring(lanes, n, &ring, way == WAY_RING_ASYNC);
	r.cpu_seconds = now(CLOCK_PROCESS_CPUTIME_ID) - r.cpu_seconds;
	r.seconds = now(CLOCK_MONOTONIC) - r.seconds;
	io_uring_queue_exit(&ring);
	target_fini(&t);
	lanes_end(lanes, n);
	return r;
}

/* ---- memcpy ---- */

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

static void print_results(const struct result *results, size_t bytes, unsigned runs)
{
	double rate[RUNS_MAX], cpu[RUNS_MAX];

	for (unsigned i = 0; i < runs; i++) {
		rate[i] = (double)bytes / 1e9 / results[i].seconds;
		cpu[i] = results[i].cpu_seconds / ((double)bytes / 1e9);
	}
	printf("   %6.2f", median(rate, runs));
	printf(" (%5.2f-%5.2f) %6.3f", rate[0], rate[runs - 1], median(cpu, runs));
	fflush(stdout);
}

/* recv_bytes 0: memcpy. */
static void print_cell(bool tcp, const struct kind *kind, size_t recv_bytes, size_t bytes, unsigned runs)
{
	struct result results[RUNS_MAX];

	for (unsigned i = 0; i < runs; i++)
		results[i] = recv_bytes ? run_recv(tcp, kind, recv_bytes, bytes) : run_copy(kind, bytes);
	print_results(results, bytes, runs);
}

static void print_parallel(unsigned n, size_t bytes, unsigned runs)
{
	static const char *const names[] = { "thp", "memfd", "thp-there", "memfd-there" };

	printf("%u TCP connections at once: GB/s, median (min-max) of %u, %zu MiB each; CPU-s/GB of the receiver\n%34s",
	       n, runs, bytes / MIB, "");
	for (int way = WAY_THREADS; way <= WAY_RING_ASYNC; way++)
		printf("   %26s", way_names[way]);
	printf("\n");
	for (size_t k = 0; k < sizeof(names) / sizeof(names[0]); k++) {
		const struct kind *kind = find_kind(names[k]);

		printf("  %-32s", kind->text);
		for (int way = WAY_THREADS; way <= WAY_RING_ASYNC; way++) {
			struct result results[RUNS_MAX];

			for (unsigned i = 0; i < runs; i++)
				results[i] = run_parallel((enum way)way, kind, n, bytes);
			print_results(results, bytes, runs);
		}
		printf("\n");
	}
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

static int listen_at(const char *where, unsigned connections)
{
	struct sockaddr_in addr;
	int fd;

	if (!strncmp(where, "unix:", 5)) {
		fd = listen_unix((int)connections, where + 5);
		printf("listening on %s\n", where);
	} else {
		fd = listen_tcp((int)connections, &addr);
		printf("listening on tcp:127.0.0.1:%u\n", ntohs(addr.sin_port));
	}
	fflush(stdout);
	return fd;
}

static void sink(const char *where, const struct kind *kind, size_t bytes, unsigned connections)
{
	struct lane lanes[LANES_MAX] = { 0 };
	struct target t;
	double cpu;
	int listener;

	target_init(&t, kind, bytes);
	lanes_share(lanes, connections, &t);
	listener = listen_at(where, connections);
	for (unsigned i = 0; i < connections; i++)
		lanes[i].fd = accept_one(listener);
	cpu = now(CLOCK_PROCESS_CPUTIME_ID);
	if (connections == 1)
		receive(lanes[0].fd, &t, SEND_BYTES, 0);
	else
		receive_threads(lanes, connections);
	printf("cpu_seconds %.6f\n", now(CLOCK_PROCESS_CPUTIME_ID) - cpu);
	fflush(stdout);
	for (unsigned i = 0; i < connections; i++)
		close(lanes[i].fd);
	close(listener);
	target_fini(&t);
}

static int usage(void)
{
	fprintf(stderr, "usage: bench_limits [--quick] [--bytes N] [--runs N]\n"
	                "       bench_limits --parallel N [--bytes N] [--runs N]\n"
	                "       bench_limits --sink tcp|unix:PATH [--into KIND] [--bytes N] [--parallel N]\n"
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
	unsigned runs = 0, parallel = 0;
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
		else if (!strcmp(argv[i - 1], "--parallel"))
			parallel = (unsigned)strtoul(value, NULL, 0);
		else if (!strcmp(argv[i - 1], "--sink"))
			where = value;
		else if (!strcmp(argv[i - 1], "--into"))
			kind = find_kind(value);
		else
			return usage();
	}
	if (runs == 0)
		runs = quick ? 3 : 5;
	if (!kind || runs > RUNS_MAX || bytes < 2 * MIB || parallel > LANES_MAX)
		return usage();
	if (where)
		sink(where, kind, bytes, parallel ? parallel : 1);
	else if (parallel)
		print_parallel(parallel, bytes, runs);
	else
		print_all(quick, bytes, runs);
	return 0;
}
