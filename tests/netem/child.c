#include "tests/netem/child.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

/* A millisecond each. */
#define END_ROUNDS_MAX 5000

static const int passed_on[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2 };

static sigset_t signals_of_interest(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	for (size_t n = 0; n < sizeof passed_on / sizeof *passed_on; n++)
		sigaddset(&set, passed_on[n]);
	return set;
}

int child_signals(struct child *c, struct err *err)
{
	sigset_t set = signals_of_interest();
	int r;

	*c = (struct child){ .pid = -1 };
	/* A SIGCHLD that is ignored, as we may have been started, would take the status of COMMAND with it. */
	signal(SIGCHLD, SIG_DFL);
	sigprocmask(SIG_BLOCK, &set, NULL);
	/* A process below us that loses its parent becomes our child. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	c->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (c->signals < 0) {
		r = -errno;
		return err_set(err, r, "signalfd (%s)", strerror(-r));
	}
	return 0;
}

static void into_namespace(int ns)
{
	sigset_t set = signals_of_interest();

	if (ns >= 0 && setns(ns, CLONE_NEWNET) < 0) {
		fprintf(stderr, "link: setns: %s\n", strerror(errno));
		_exit(125);
	}
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

_Noreturn static void execute(char *const *argv)
{
	int r;

	execvp(argv[0], argv);
	r = errno;
	fprintf(stderr, "link: %s: %s\n", argv[0], strerror(r));
	_exit(r == ENOENT ? 127 : 126);
}

int child_start(struct child *c, char **argv, int ns, struct err *err)
{
	pid_t parent = getpid();
	int r;

	c->pid = fork();
	if (c->pid < 0) {
		r = -errno;
		return err_set(err, r, "fork (%s)", strerror(-r));
	}
	if (c->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(125);
		into_namespace(ns);
		execute(argv);
	}
	return 0;
}

static void reap(struct child *c)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == c->pid) {
			c->ended = true;
			c->status = status;
		}
	}
}

void child_serve(struct child *c)
{
	struct signalfd_siginfo info;

	while (read(c->signals, &info, sizeof info) == sizeof info) {
		if (info.ssi_signo == SIGCHLD)
			reap(c);
		/* What a terminal sends (Ctrl-C) the whole foreground group has, COMMAND included. */
		else if (info.ssi_code != SI_KERNEL && !c->ended)
			kill(c->pid, (int)info.ssi_signo);
	}
}

/* Kill whom this process is the parent of. Return: whether there was anybody. */
static bool kill_children(void)
{
	char path[64];
	bool any = false;
	FILE *f;
	int pid;

	snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
	f = fopen(path, "re");
	while (f && fscanf(f, "%d", &pid) == 1) {
		any = true;
		kill(pid, SIGKILL);
	}
	if (f)
		fclose(f);
	return any;
}

void child_end_all(void)
{
	/* Each round the grandchildren of the last have become our children: by (2), until there are none. Bounded, for
	 * there are processes that cannot be killed: those of another user. */
	for (int rounds = 0; rounds < END_ROUNDS_MAX && kill_children(); rounds++) {
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		usleep(1000);
	}
}

_Noreturn void child_repeat_end(const struct child *c)
{
	const struct rlimit none = { 0, 0 };
	sigset_t set;
	int number;

	if (WIFEXITED(c->status))
		exit(WEXITSTATUS(c->status));
	number = WTERMSIG(c->status);
	/* A core of the link explains nothing. */
	setrlimit(RLIMIT_CORE, &none);
	fflush(NULL);
	signal(number, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, number);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	raise(number);
	exit(128 + number);
}

int child_run(const char *const *argv, int ns, bool quiet)
{
	pid_t pid = fork();
	int status;

	if (pid < 0)
		return -errno;
	if (pid == 0) {
		int null = quiet ? open("/dev/null", O_RDWR | O_CLOEXEC) : -1;

		if (null >= 0)
			dup2(null, STDERR_FILENO);
		into_namespace(ns);
		execute((char *const *)argv);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -ECHILD;
}
