/*
 * bench_postcopy_floor - what a page fault costs when it is answered at once
 *
 *   bench_postcopy_floor [ROUNDS]     a line for each kind of round trip
 *   bench_postcopy_floor --tsc        only how many ticks the TSC has a second
 *
 * A migration's fault is a round trip through userfaultfd around a round trip over the network. This measures each by
 * itself, and one inside the other, answered by a thread that does nothing else: no destination can be faster. It does
 * so once with threads that poll without end (only the one that faults ever needs waking), and once with threads that
 * sleep in the kernel. The clock is the toucher's: from before the access to after it.
 */
#include "base/clock.h"
#include "base/err.h"
#include "postcopy/uffd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define PAGE_BYTES 4096u
#define REQUEST_BYTES 20u /* of one page, at the most common (doc/wire/stream.md 3) */
#define ROUNDS_DEFAULT 5000u
#define ROUNDS_MAX (1u << 20)
#define WARM_UP 200u

static uint32_t *took_ns; /* of each round */
static size_t rounds;

_Noreturn static void die(const char *what)
{
	fprintf(stderr, "bench_postcopy_floor: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* ---- the other end of the network ---- */

static int client, server;
static bool spins;

static void connect_both(void)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(addr);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 || client < 0 || bind(listener, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    listen(listener, 1) < 0 || getsockname(listener, (struct sockaddr *)&addr, &length) < 0 ||
	    connect(client, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		die("connect");
	server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (server < 0)
		die("accept");
	close(listener);
	setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

/* Return: false at the end of the stream. */
static bool receive(int fd, void *buf, size_t bytes)
{
	size_t have = 0;

	while (have < bytes) {
		ssize_t n = recv(fd, (char *)buf + have, bytes - have, spins ? MSG_DONTWAIT : 0);

		if (n == 0)
			return false;
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			die("recv");
		have += n > 0 ? (size_t)n : 0;
	}
	return true;
}

static void send_all(int fd, const void *buf, size_t bytes)
{
	if (send(fd, buf, bytes, MSG_NOSIGNAL) != (ssize_t)bytes)
		die("send");
}

static void *answer_network(void *arg)
{
	char request[REQUEST_BYTES], page[PAGE_BYTES];

	(void)arg;
	memset(page, 1, sizeof(page));
	while (receive(server, request, sizeof(request)))
		send_all(server, page, sizeof(page));
	return NULL;
}

static void ask_network(void *ret_page)
{
	static const char request[REQUEST_BYTES] = "a page";

	send_all(client, request, sizeof(request));
	if (!receive(client, ret_page, PAGE_BYTES))
		die("the server's end");
}

/* ---- memory in which every page is missing ---- */

enum memory { ANONYMOUS, MEMFD };

static struct uffd uffd;
static uint8_t *guest, *landing; /* landing: the same memory, not registered; NULL when it is anonymous */
static size_t memory_bytes;
static bool through_network;

static void *map(int fd)
{
	void *p = mmap(NULL, memory_bytes, PROT_READ | PROT_WRITE,
	               (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED) | MAP_NORESERVE, fd, 0);

	if (p == MAP_FAILED)
		die("mmap");
	madvise(p, memory_bytes, MADV_NOHUGEPAGE);
	return p;
}

static void memory_init(enum memory kind)
{
	uint64_t modes = UFFDIO_REGISTER_MODE_MISSING;
	struct err err = ERR_NONE;
	int fd = -1;

	memory_bytes = (rounds + WARM_UP) * PAGE_BYTES;
	if (kind == MEMFD) {
		fd = memfd_create("floor", MFD_CLOEXEC);
		if (fd < 0 || ftruncate(fd, (off_t)memory_bytes) < 0)
			die("memfd");
		modes |= UFFDIO_REGISTER_MODE_MINOR;
	}
	guest = map(fd);
	landing = fd < 0 ? NULL : map(fd);
	if (fd >= 0)
		close(fd);
	if (uffd_open(&uffd, kind == MEMFD ? UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM : 0, 0, &err) < 0) {
		puts(err.text);
		exit(77);
	}
	errno = -uffd_register(&uffd, guest, memory_bytes, modes);
	if (errno)
		die("register");
}

static void memory_fini(void)
{
	uffd_close(&uffd);
	munmap(guest, memory_bytes);
	if (landing)
		munmap(landing, memory_bytes);
}

/* ---- who answers ---- */

static void place(uint8_t *at)
{
	static uint8_t page[PAGE_BYTES] = { 1 };
	struct uffd_done done;

	if (landing) {
		uint8_t *into = landing + (at - guest);

		if (through_network)
			ask_network(into);
		else
			memcpy(into, page, PAGE_BYTES);
		done = uffd_continue(&uffd, at, PAGE_BYTES);
	} else {
		if (through_network)
			ask_network(page);
		done = uffd_copy(&uffd, at, page, PAGE_BYTES);
	}
	errno = -done.error;
	if (done.bytes != PAGE_BYTES)
		die("place");
}

static void *answer_faults(void *arg)
{
	struct pollfd pollfd = { .fd = uffd.fd, .events = POLLIN };
	struct uffd_msg msg;

	(void)arg;
	for (size_t left = rounds + WARM_UP; left > 0;) {
		ssize_t n = uffd_read(&uffd, &msg, 1);

		if (n == 0 && !spins && poll(&pollfd, 1, -1) < 0 && errno != EINTR)
			die("poll");
		if (n <= 0)
			continue;
		place(guest + (msg.arg.pagefault.address - (uintptr_t)guest) / PAGE_BYTES * PAGE_BYTES);
		left--;
	}
	return NULL;
}

/* ---- what is measured ---- */

static int by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static void report(const char *name)
{
	double sum = 0;

	for (size_t i = 0; i < rounds; i++)
		sum += took_ns[i];
	qsort(took_ns, rounds, sizeof(*took_ns), by_size);
	printf("%-44s %-9s mean %6.1f us  median %6.1f  p99 %6.1f  least %6.1f\n", name,
	       spins ? "spinning" : "blocking", sum / (double)rounds / 1e3, took_ns[rounds / 2] / 1e3,
	       took_ns[rounds - 1 - rounds / 100] / 1e3, took_ns[0] / 1e3);
	fflush(stdout);
}

static void measure(const char *name, void (*once)(size_t i), void *(*answer)(void *))
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, answer, NULL) != 0)
		die("pthread_create");
	for (size_t i = 0; i < rounds + WARM_UP; i++) {
		uint64_t begin_ns = clock_now_ns();

		once(i);
		if (i >= WARM_UP)
			took_ns[i - WARM_UP] = (uint32_t)(clock_now_ns() - begin_ns);
	}
	/* The network's thread ends with the stream, the other one after so many answers. */
	if (answer == answer_network)
		shutdown(client, SHUT_WR);
	pthread_join(thread, NULL);
	report(name);
}

static void touch(size_t i)
{
	(void)*(volatile uint8_t *)(guest + i * PAGE_BYTES);
}

static void ask(size_t i)
{
	char page[PAGE_BYTES];

	(void)i;
	ask_network(page);
}

static void network_alone(void)
{
	connect_both();
	measure("TCP over loopback, 20 bytes for 4 KiB", ask, answer_network);
	close(client);
	close(server);
}

static void fault_alone(const char *name, enum memory kind)
{
	memory_init(kind);
	measure(name, touch, answer_faults);
	memory_fini();
}

static void fault_through_network(const char *name, enum memory kind)
{
	pthread_t thread;

	connect_both();
	if (pthread_create(&thread, NULL, answer_network, NULL) != 0)
		die("pthread_create");
	through_network = true;
	fault_alone(name, kind);
	through_network = false;
	shutdown(client, SHUT_WR);
	pthread_join(thread, NULL);
	close(client);
	close(server);
}

static uint64_t tsc(void)
{
#if defined(__x86_64__) || defined(__i386__)
	return __builtin_ia32_rdtsc();
#else
	return 0;
#endif
}

static void print_tsc_hz(void)
{
	uint64_t begin_ns = clock_now_ns(), begin = tsc(), now_ns;

	do
		now_ns = clock_now_ns();
	while (now_ns - begin_ns < 200 * NS_PER_MS);
	printf("%.0f\n", (double)(tsc() - begin) * 1e9 / (double)(now_ns - begin_ns));
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "--tsc")) {
		print_tsc_hz();
		return 0;
	}
	rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : ROUNDS_DEFAULT;
	if (argc > 2 || rounds < 100 || rounds > ROUNDS_MAX) {
		fprintf(stderr, "usage: bench_postcopy_floor [ROUNDS] | --tsc\n");
		return 2;
	}
	took_ns = calloc(rounds, sizeof(*took_ns));
	if (!took_ns)
		die("calloc");
	for (int i = 0; i < 2; i++) {
		spins = i == 0;
		fault_alone("a fault answered here, memfd and continue", MEMFD);
		fault_alone("a fault answered here, anonymous and copy", ANONYMOUS);
		network_alone();
		fault_through_network("a fault answered over TCP, memfd", MEMFD);
		fault_through_network("a fault answered over TCP, anonymous", ANONYMOUS);
	}
	free(took_ns);
	return 0;
}
