/*
 * A SIGBUS handler may switch stacks: it runs on the stack of the coroutine that faulted and parks it; others run and
 * may fault too; and when it returns, the instruction runs again. It needs SA_NODEFER (SIGBUS must not stay blocked for
 * the others), no SA_ONSTACK, a restored errno, and a stack with room for the signal frame. The signal mask is the
 * thread's, and sigreturn restores the one from before the fault: code that changes it meanwhile must patch it into the
 * frame.
 *
 * The missing page is past the end of a file, which another coroutine then extends.
 */
#include "base/clock.h"
#include "coroutine/group.h"
#include "coroutine/wait.h"

#include <errno.h>
#include <fenv.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FAULTERS 20

static struct sched sched;
static struct event landed;
static char *view;
static size_t page;
static int faults, wrong;

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	int saved = errno;
	sigset_t set;

	(void)sig;
	(void)context;
	/* Only for ThreadSanitizer, which puts a full mask in place of ours: the next fault would end the process. */
	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	if (sched.current == &sched.main || (char *)info->si_addr < view)
		_exit(2);
	faults++;
	event_wait(&landed, DEADLINE_NEVER); /* the other coroutine sets it */
	errno = saved;
}

static int touches(void *arg)
{
	size_t n = (size_t)arg;
	volatile double third = 1.0 / 3.0, before, after; /* volatile: no product moves over a change of the mode */

	before = third * (double)n;

	errno = (int)n;
	fesetround(n % 2 ? FE_UPWARD : FE_TONEAREST);
	wrong += view[n * page] != (char)('a' + n); /* parks */
	wrong += errno != (int)n || fegetround() != (n % 2 ? FE_UPWARD : FE_TONEAREST);
	fesetround(FE_TONEAREST);
	after = third * (double)n;
	wrong += after != before;
	return 0;
}

static int lands(void *arg)
{
	int fd = *(int *)arg;
	sigset_t mask;

	for (int i = 0; i < 3; i++)
		co_yield(&sched);
	sigprocmask(SIG_SETMASK, NULL, &mask);
	wrong += sigismember(&mask, SIGBUS);
	if (ftruncate(fd, (off_t)(FAULTERS * page)) < 0)
		return -errno;
	for (int n = 0; n < FAULTERS; n++) {
		char c = (char)('a' + n);

		wrong += pwrite(fd, &c, 1, (off_t)((size_t)n * page)) != 1;
	}
	event_set(&landed);
	return 0;
}

int main(void)
{
	struct sigaction act = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER };
	int fd = memfd_create("view", MFD_CLOEXEC);
	struct group g;

	page = (size_t)sysconf(_SC_PAGESIZE);
	view = mmap(NULL, FAULTERS * page, PROT_READ, MAP_SHARED, fd, 0);
	if (fd < 0 || view == MAP_FAILED || sigaction(SIGBUS, &act, NULL) < 0)
		return 1;
	sched_init(&sched, STACK_BYTES_DEFAULT, 4);
	group_init(&g, &sched, "faulters");
	event_init(&landed, &sched, "landed");
	for (size_t n = 0; n < FAULTERS; n++)
		group_spawn(&g, "faulter", touches, (void *)n);
	group_spawn(&g, "lander", lands, &fd);
	while (sched_has_ready(&sched))
		sched_run_ready(&sched);
	printf("%d faults parked, %zu coroutines left, %d things wrong\n", faults, sched.count, wrong);
	if (sched.count > 0 || faults != FAULTERS || wrong > 0)
		return 1;
	sched_fini(&sched);
	return 0;
}
