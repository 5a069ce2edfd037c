#include "tests/support/mutations.h"

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/support/scene.h"

#define STUCK_NS (30 * NS_PER_S) /* the whole of a run, on a machine that does much else */
#define RSS_GROWTH_KIB_MAX (96 * 1024)

/* Written by the child that runs, read by the parent. */
struct shared {
	uint64_t at; /* the seed of the run that goes on */
	uint64_t landed;
};

static size_t rss_max_kib(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (size_t)usage.ru_maxrss;
}

_Noreturn static void runs(const struct mutations *m, uint64_t first, unsigned long count, volatile struct shared *ret)
{
	size_t rss_kib = 0;

	m->begin();
	for (unsigned long i = 0; i < count; i++) {
		bool landed = false;
		const char *wrong;

		ret->at = first + i;
		wrong = m->run(first + i, &landed);
		ret->landed += landed;
		if (!wrong && (i % m->look_every == 0 || i + 1 == count))
			wrong = m->look();
		if (i == 100)
			rss_kib = rss_max_kib();
		if (!wrong && rss_kib && rss_max_kib() > rss_kib + RSS_GROWTH_KIB_MAX)
			wrong = "takes too much memory";
		if (wrong) {
			fprintf(stderr, "%s: %s\n", wrong, m->story());
			_exit(1);
		}
	}
	_exit(0);
}

/* Return: as waitpid's status; a child that makes no progress is killed. */
static int wait_with_progress(pid_t pid, const volatile struct shared *shared)
{
	uint64_t seen = 0, since_ns = clock_now_ns();
	int status;

	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (shared->at != seen) {
			seen = shared->at;
			since_ns = clock_now_ns();
		} else if (clock_now_ns() - since_ns > STUCK_NS) {
			kill(pid, SIGKILL);
		}
		usleep(5000);
	}
	return status;
}

void mutations_play(const struct mutations *m)
{
	unsigned long count = scene_env("MUTATIONS", m->count), first = scene_env("MUTATION_FIRST", 1);
	volatile struct shared *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status;
	pid_t pid;

	ck_assert_ptr_ne((void *)shared, MAP_FAILED);
	if (getenv("MUTATION_SEED")) {
		first = scene_env("MUTATION_SEED", 1);
		count = 1;
	}
	fflush(NULL);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		runs(m, first, count, shared);
	status = wait_with_progress(pid, shared);
	ck_assert_msg(status == 0, "MUTATION_SEED=%llu: status 0x%x", (unsigned long long)shared->at, status);
	/* Damage that is never noticed, or always at once, would be damage to this test. */
	if (count >= 500)
		ck_assert_msg(shared->landed > count / 100 && shared->landed < count * m->landed_percent_max / 100,
		              "%llu of %lu landed", (unsigned long long)shared->landed, count);
	printf("%lu mutations, of which %llu landed\n", count, (unsigned long long)shared->landed);
	munmap((void *)shared, 4096);
}
