/*
 * bench_postcopy_idle.c - what the engine's thread uses while nobody touches, and while somebody touches now and then
 *
 * The engine looks again for some microseconds before it sleeps (postcopy/fault.c, coroutine/look.h). This measures
 * what that costs when it finds nothing: with a postcopy that listens and that nobody touches, and with a thread that
 * touches a missing page every so often, in memory whose pages come at once, 0.1 ms later, or 1 ms later.
 */
#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "coroutine/io.h"
#include "coroutine/reactor.h"
#include "memory/block.h"
#include "postcopy/place.h"
#include "postcopy/postcopy.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define TPAGE_BYTES 4096u
#define PAGES 8192u
#define RUN_NS NS_PER_S

struct world {
	struct reactor *reactor;
	struct ram ram;
	struct block *b;
	struct postcopy pc;
	uint8_t *guest;
	uint64_t every_ns, answer_ns; /* of the touches; 0: none */
	struct group answers;
	_Atomic bool over;
	uint64_t touches, waited_ns;
};

static _Noreturn void die(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t thread_cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

struct answer {
	struct world *w;
	size_t tpage;
};

static may_park int answer(void *arg)
{
	static uint8_t bytes[TPAGE_BYTES];
	struct answer a = *(struct answer *)arg;
	struct iovec page = { bytes, sizeof(bytes) };
	struct err err = ERR_NONE;

	free(arg);
	if (a.w->answer_ns > 0)
		io_sleep_until(a.w->reactor, deadline_after_ns(a.w->answer_ns));
	return place_pages(&a.w->pc, a.w->b, a.tpage, &page, 1, &err);
}

static int request(void *opaque, const struct page_request *list, size_t count)
{
	struct world *w = opaque;

	for (size_t i = 0; i < count; i++)
		for (uint64_t off = 0; off < list[i].bytes; off += TPAGE_BYTES) {
			struct answer *a = malloc(sizeof(*a));

			if (!a)
				die("malloc");
			*a = (struct answer){ .w = w, .tpage = (list[i].start + off) / TPAGE_BYTES };
			if (group_spawn(&w->answers, "answer", answer, a) < 0)
				die("group_spawn");
		}
	return 0;
}

static void *touch(void *arg)
{
	struct world *w = arg;
	uint64_t next_ns = clock_now_ns(), begin_ns;

	for (uint64_t i = 0; i < PAGES; i++) {
		struct timespec ts;

		next_ns += w->every_ns;
		ts = (struct timespec){ (time_t)(next_ns / NS_PER_S), (long)(next_ns % NS_PER_S) };
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
		if (atomic_load(&w->over))
			break;
		begin_ns = clock_now_ns();
		/* No two of them are neighbours: nothing is asked for ahead. */
		(void)*(volatile uint8_t *)(w->guest + i * 4057 % PAGES * TPAGE_BYTES);
		w->waited_ns += clock_now_ns() - begin_ns;
		w->touches++;
	}
	return NULL;
}

static may_park int conduct(void *arg)
{
	struct world *w = arg;
	struct err err = ERR_NONE;
	pthread_t thread;
	uint64_t cpu_ns;

	if (postcopy_discard(&w->pc, w->b, 0, PAGES) < 0 || postcopy_listen(&w->pc, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		exit(1);
	}
	if (w->every_ns > 0 && pthread_create(&thread, NULL, touch, w) != 0)
		die("pthread_create");
	cpu_ns = thread_cpu_ns();
	io_sleep_until(w->reactor, deadline_after_ns(RUN_NS));
	cpu_ns = thread_cpu_ns() - cpu_ns;
	atomic_store(&w->over, true);
	/* It waits for one page at most, and that comes before it is joined. */
	io_sleep_until(w->reactor, deadline_after_ns(120 * NS_PER_MS));
	if (w->every_ns > 0)
		pthread_join(thread, NULL);
	group_join(&w->answers);
	printf("a touch every %6.1f ms, answered after %5.1f ms:  %6.3f %% of a CPU", (double)w->every_ns / 1e6,
	       (double)w->answer_ns / 1e6, 100 * (double)cpu_ns / (double)RUN_NS);
	if (w->touches > 0)
		printf(", %5.1f us a fault, which took %7.1f us", (double)cpu_ns / 1e3 / (double)w->touches,
		       (double)w->waited_ns / 1e3 / (double)w->touches);
	putchar('\n');
	fflush(stdout);
	postcopy_end(&w->pc);
	return 0;
}

static void ignore_log(void *opaque, enum log_level level, const char *text)
{
	(void)opaque;
	(void)level;
	(void)text;
}

static void measure(uint64_t every_ns, uint64_t answer_ns)
{
	struct world *w = calloc(1, sizeof(*w));
	struct log log = { .write = ignore_log, .level_max = LOG_WARN };
	struct block_source source = { .fd = memfd_create("idle", MFD_CLOEXEC) };
	struct group g;
	int r;

	if (!w || source.fd < 0 || ftruncate(source.fd, (off_t)PAGES * TPAGE_BYTES) < 0 ||
	    reactor_new(&w->reactor, &ring_uring, 0) < 0)
		die("memory and a ring");
	w->guest = mmap(NULL, (size_t)PAGES * TPAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, source.fd, 0);
	if (w->guest == MAP_FAILED)
		die("mmap");
	source.addr = w->guest;
	ram_init(&w->ram, 12);
	if (ram_add(&w->ram, "idle", 4, (uint64_t)PAGES * TPAGE_BYTES, &source, &w->b) < 0)
		die("ram_add");
	w->every_ns = every_ns;
	w->answer_ns = answer_ns;
	w->pc = (struct postcopy){
		.ram = &w->ram, .reactor = w->reactor, .log = &log, .request = request, .opaque = w
	};
	group_init(&w->answers, &w->reactor->sched, "answers");
	group_init(&g, &w->reactor->sched, "idle");
	r = group_spawn(&g, "conductor", conduct, w);
	if (r == 0)
		r = reactor_run(w->reactor, &g, DEADLINE_NEVER); /* it ends after a second */
	if (r < 0) {
		fprintf(stderr, "the reactor: %s\n", strerror(-r));
		exit(1);
	}
	ram_fini(&w->ram);
	munmap(w->guest, (size_t)PAGES * TPAGE_BYTES);
	close(source.fd);
	reactor_free(w->reactor);
	free(w);
}

int main(int argc, char **argv)
{
	static const uint64_t every_ns[] = { 100 * NS_PER_MS, 10 * NS_PER_MS, NS_PER_MS, 200 * NS_PER_US };
	static const uint64_t answer_ns[] = { 0, 100 * NS_PER_US, NS_PER_MS };

	if (argc == 3) {
		measure(strtoull(argv[1], NULL, 10) * NS_PER_US, strtoull(argv[2], NULL, 10) * NS_PER_US);
		return 0;
	}
	if (argc != 1) {
		fprintf(stderr, "usage: bench_postcopy_idle [EVERY_US ANSWER_US]\n");
		return 2;
	}
	measure(0, 0);
	for (size_t a = 0; a < sizeof(answer_ns) / sizeof(answer_ns[0]); a++)
		for (size_t e = 0; e < sizeof(every_ns) / sizeof(every_ns[0]); e++)
			measure(every_ns[e], answer_ns[a]);
	return 0;
}
