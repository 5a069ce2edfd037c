#include "tests/support/signals.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/resource.h>

#define FILES_ENOUGH 65536u

static const int of_the_user[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM };

/* Which of these were ignored. A test's own SIG_IGN is not undone in what it forks: only (2). */
static bool ignored[sizeof(of_the_user) / sizeof(*of_the_user)];

static bool is_ignored(int sig)
{
	struct sigaction act;

	return sigaction(sig, NULL, &act) == 0 && act.sa_handler == SIG_IGN;
}

/* Once for the whole family: a child of a child has what its parent has made of them. */
static void in_a_child(void)
{
	for (size_t i = 0; i < sizeof(of_the_user) / sizeof(*of_the_user); i++) {
		if (ignored[i])
			signal(of_the_user[i], SIG_DFL);
		ignored[i] = false;
	}
}

/* By (3); not to a number for which somebody might make a table. */
static void raise_file_limit(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_cur >= FILES_ENOUGH)
		return;
	files.rlim_cur = files.rlim_max < FILES_ENOUGH ? files.rlim_max : FILES_ENOUGH;
	setrlimit(RLIMIT_NOFILE, &files);
}

__attribute__((constructor)) void signals_as_expected(void)
{
	sigset_t none;

	for (size_t i = 0; i < sizeof(of_the_user) / sizeof(*of_the_user); i++)
		ignored[i] = is_ignored(of_the_user[i]);
	for (int sig = 1; sig < NSIG; sig++) {
		bool users = false;

		for (size_t i = 0; i < sizeof(of_the_user) / sizeof(*of_the_user); i++)
			users |= sig == of_the_user[i];
		if (!users && is_ignored(sig))
			signal(sig, SIG_DFL);
	}
	raise_file_limit();
	pthread_atfork(NULL, NULL, in_a_child);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}
