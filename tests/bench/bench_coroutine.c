/*
 * What coroutines cost: numbers with units, medians of several runs; nothing passes or fails. The cost of a plain
 * thread or a plain system call is printed beside them, because machines differ and ratios are easier to compare.
 */
#include "base/clock.h"
#include "coroutine/group.h"
#include "coroutine/io.h"
#include "coroutine/reactor.h"
#include "coroutine/wait.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <ucontext.h>
#include <unistd.h>

#define RUNS 7

static struct reactor *reactor;
static long rounds;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void print(const char *what, double value, const char *unit)
{
	printf("%-56s %10.1f %s\n", what, value, unit);
	fflush(stdout);
}

/* @once does @n rounds and returns how long that took. */
static void bench(const char *what, uint64_t (*once)(long n), long n)
{
	double ns[RUNS];

	once(n / 10 + 1);
	for (int i = 0; i < RUNS; i++)
		ns[i] = (double)once(n) / (double)n;
	qsort(ns, RUNS, sizeof(ns[0]), by_value);
	print(what, ns[RUNS / 2], "ns");
}

/* ---- the switch itself ---- */

static struct ctx here, there;

static void bounce(void *arg)
{
	(void)arg;
	for (;;)
		ctx_switch(&there, &here);
}

/* One call site for both directions, as in the scheduler. */
static struct ctx ring_of_two[2];

static __attribute__((noinline)) void hop(int from)
{
	ctx_switch(&ring_of_two[from], &ring_of_two[!from]);
}

static void hops(void *arg)
{
	(void)arg;
	for (;;)
		hop(1);
}

static void *new_stack(void)
{
	void *p = mmap(NULL, STACK_BYTES_DEFAULT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		die("mmap");
	return p;
}

static uint64_t switch_one_site(long n)
{
	void *stack = new_stack();
	uint64_t began;

	ctx_init(&ring_of_two[1], stack, STACK_BYTES_DEFAULT, hops, NULL);
	began = clock_now_ns();
	for (long i = 0; i < n; i += 2)
		hop(0);
	began = clock_now_ns() - began;
	munmap(stack, STACK_BYTES_DEFAULT);
	return began;
}

static uint64_t switch_two_sites(long n)
{
	void *stack = new_stack();
	uint64_t began;

	ctx_init(&there, stack, STACK_BYTES_DEFAULT, bounce, NULL);
	began = clock_now_ns();
	for (long i = 0; i < n; i += 2)
		ctx_switch(&here, &there);
	began = clock_now_ns() - began;
	munmap(stack, STACK_BYTES_DEFAULT);
	return began;
}

static ucontext_t uc_here, uc_there;

static void uc_bounce(void)
{
	for (;;)
		swapcontext(&uc_there, &uc_here);
}

static uint64_t switch_ucontext(long n)
{
	void *stack = new_stack();
	uint64_t began;

	getcontext(&uc_there);
	uc_there.uc_stack.ss_sp = stack;
	uc_there.uc_stack.ss_size = STACK_BYTES_DEFAULT;
	makecontext(&uc_there, uc_bounce, 0);
	began = clock_now_ns();
	for (long i = 0; i < n; i += 2)
		swapcontext(&uc_here, &uc_there);
	began = clock_now_ns() - began;
	munmap(stack, STACK_BYTES_DEFAULT);
	return began;
}

/* ---- through the scheduler ---- */

static void spawn(struct group *g, co_fn *fn, void *arg)
{
	if (group_spawn(g, "bench", fn, arg) < 0)
		die("group_spawn");
}

static uint64_t run(struct group *g)
{
	uint64_t began = clock_now_ns();
	int r = reactor_run(reactor, g, DEADLINE_NEVER); /* each benchmark ends */

	if (r < 0) {
		fprintf(stderr, "reactor_run: %s\n", strerror(-r));
		exit(1);
	}
	return clock_now_ns() - began;
}

static int yields(void *arg)
{
	(void)arg;
	for (long i = 0; i < rounds; i++)
		co_yield(&reactor->sched);
	return 0;
}

static uint64_t yield_of_many(long n)
{
	struct group g;

	group_init(&g, &reactor->sched, "bench");
	rounds = n / 100;
	for (int i = 0; i < 100; i++)
		spawn(&g, yields, NULL);
	return run(&g);
}

static int nothing(void *arg)
{
	(void)arg;
	return 0;
}

static int spawns_and_joins(void *arg)
{
	struct group g;

	(void)arg;
	for (long i = 0; i < rounds; i++) {
		group_init(&g, &reactor->sched, "bench");
		spawn(&g, nothing, NULL);
		group_join(&g);
	}
	return 0;
}

static uint64_t one_coroutine(co_fn *fn, long n)
{
	struct group g;

	group_init(&g, &reactor->sched, "bench");
	rounds = n;
	spawn(&g, fn, NULL);
	return run(&g);
}

static uint64_t spawn_and_join(long n)
{
	return one_coroutine(spawns_and_joins, n);
}

/* ---- through the ring ---- */

static int nops(void *arg)
{
	(void)arg;
	for (long i = 0; i < rounds; i++) {
		struct ring_op op = { .kind = RING_NOP, .fd = -1 };

		io_run(reactor, &op, DEADLINE_NEVER); /* completes at once */
	}
	return 0;
}

static uint64_t nop(long n)
{
	return one_coroutine(nops, n);
}

static uint64_t nop_of_many(long n)
{
	struct group g;

	group_init(&g, &reactor->sched, "bench");
	rounds = n / 100;
	for (int i = 0; i < 100; i++)
		spawn(&g, nops, NULL);
	return run(&g);
}

static int sv[2];

static int ping(void *arg)
{
	char c = 0;

	(void)arg;
	for (long i = 0; i < rounds; i++) {
		io_send(reactor, sv[0], &c, 1, 0, DEADLINE_NEVER); /* the peer answers */
		io_recv(reactor, sv[0], &c, 1, 0, DEADLINE_NEVER);
	}
	return 0;
}

static int pong(void *arg)
{
	char c = 0;

	(void)arg;
	for (long i = 0; i < rounds; i++) {
		io_recv(reactor, sv[1], &c, 1, 0, DEADLINE_NEVER);
		io_send(reactor, sv[1], &c, 1, 0, DEADLINE_NEVER);
	}
	return 0;
}

static uint64_t ping_pong(long n)
{
	struct group g;

	group_init(&g, &reactor->sched, "bench");
	rounds = n;
	spawn(&g, ping, NULL);
	spawn(&g, pong, NULL);
	return run(&g);
}

static void *thread_pong(void *arg)
{
	char c;

	for (long i = 0; i < *(long *)arg; i++) {
		if (recv(sv[1], &c, 1, 0) != 1 || send(sv[1], &c, 1, 0) != 1)
			die("pong");
	}
	return NULL;
}

static uint64_t thread_ping_pong(long n)
{
	pthread_t thread;
	uint64_t began = clock_now_ns();
	char c = 0;

	if (pthread_create(&thread, NULL, thread_pong, &n) != 0)
		die("pthread_create");
	for (long i = 0; i < n; i++) {
		if (send(sv[0], &c, 1, 0) != 1 || recv(sv[0], &c, 1, 0) != 1)
			die("ping");
	}
	pthread_join(thread, NULL);
	return clock_now_ns() - began;
}

static uint64_t bare_system_calls(long n)
{
	uint64_t began = clock_now_ns();
	char c = 0;

	for (long i = 0; i < n; i++) {
		if (send(sv[0], &c, 1, 0) != 1 || recv(sv[1], &c, 1, 0) != 1 || send(sv[1], &c, 1, 0) != 1 ||
		    recv(sv[0], &c, 1, 0) != 1)
			die("bare");
	}
	return clock_now_ns() - began;
}

/* ---- very many ---- */

static double memory_of(const char *key)
{
	FILE *f = fopen("/proc/self/status", "r");
	char line[256];
	double kib = 0;

	while (f && fgets(line, sizeof(line), f)) {
		if (strncmp(line, key, strlen(key)) == 0)
			kib = atof(line + strlen(key) + 1);
	}
	if (f)
		fclose(f);
	return kib;
}

static struct event wake_all;

static int parks(void *arg)
{
	(void)arg;
	return event_wait(&wake_all, DEADLINE_NEVER); /* the benchmark wakes it */
}

static void very_many(size_t stack_bytes)
{
	const int n = 100000;
	double rss, vm;
	uint64_t began;
	struct sched *s = malloc(sizeof(*s));
	struct group g;

	if (!s)
		die("malloc");
	sched_init(s, stack_bytes, STACK_IDLE_MAX_DEFAULT);
	group_init(&g, s, "many");
	event_init(&wake_all, s, "wake all");
	printf("\n%d coroutines with stacks of %zu KiB (asked for: %zu)\n", n, s->stacks.stack_bytes >> 10,
	       stack_bytes >> 10);
	rss = memory_of("VmRSS:");
	vm = memory_of("VmSize:");
	began = clock_now_ns();
	for (int i = 0; i < n; i++)
		spawn(&g, parks, NULL);
	sched_run_ready(s);
	print("  spawn and park each", (double)(clock_now_ns() - began) / n, "ns");
	print("  resident each", (memory_of("VmRSS:") - rss) / n, "KiB");
	print("  virtual each", (memory_of("VmSize:") - vm) / n, "KiB");
	began = clock_now_ns();
	event_set(&wake_all);
	print("  wake all", (double)(clock_now_ns() - began) / 1e6, "ms");
	sched_run_ready(s);
	print("  wake all, run to their ends, unmap", (double)(clock_now_ns() - began) / 1e6, "ms");
	sched_fini(s);
	free(s);
}

int main(void)
{
	int r = reactor_new(&reactor, &ring_uring, 0);

	if (r < 0) {
		fprintf(stderr, "reactor_new: %s\n", strerror(-r));
		return 77;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sv) < 0)
		die("socketpair");
	printf("medians of %d runs, each\n\n", RUNS);
	bench("ctx_switch, one call site", switch_one_site, 10000000);
	bench("ctx_switch, between two call sites", switch_two_sites, 10000000);
	bench("swapcontext (ucontext)", switch_ucontext, 1000000);
	bench("yield through the ready queue, 100 coroutines", yield_of_many, 10000000);
	bench("spawn and join, stack from the cache", spawn_and_join, 1000000);
	bench("park and wake through the ring: one NOP", nop, 200000);
	bench("park and wake through the ring: NOP of 100 coroutines", nop_of_many, 1000000);
	bench("1-byte ping-pong, two coroutines, round trip", ping_pong, 100000);
	bench("1-byte ping-pong, two threads, round trip", thread_ping_pong, 50000);
	bench("the same four system calls bare", bare_system_calls, 200000);
	very_many(STACK_BYTES_MIN);
	very_many(STACK_BYTES_DEFAULT);
	close(sv[0]);
	close(sv[1]);
	reactor_free(reactor);
	return 0;
}
