#include "programs/cli/process.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

void process_start(void)
{
	int got;

	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		if (fcntl(fd, F_GETFD) >= 0)
			continue;
		/* The lowest number that is free is this one. */
		got = open("/dev/null", O_RDWR);
		if (got < 0)
			got = open("/", O_RDONLY | O_DIRECTORY); /* no /dev: to write there fails, and that is all */
		/* So that "fd:0" is not taken for something inherited. What exec: starts has an input of its own. */
		if (got == STDIN_FILENO)
			fcntl(got, F_SETFD, FD_CLOEXEC);
	}
}

/*
 * Nobody's wish to end this: a reader of ours that has gone, a limit of size or time that a write or the clock met, a
 * background process that writes to its terminal, a timer that a parent set before it became this program.
 */
static const int ignored[] = { SIGPIPE,   SIGXFSZ, SIGXCPU, SIGTTOU, SIGTTIN, SIGALRM,
	                       SIGVTALRM, SIGPROF, SIGUSR2, SIGIO,   SIGPWR,  SIGSTKFLT };

/* A parent that waits for its children by itself may have it ignored, and then nobody learns how exec: has ended; and
 * the ones that say that we are wrong must be able to. */
static const int defaults[] = { SIGCHLD, SIGBUS, SIGSEGV, SIGABRT, SIGILL, SIGFPE };

void process_hold_guest(void)
{
	struct rlimit files;
	sigset_t none;

	for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
		signal(ignored[i], SIG_IGN);
	for (int sig = SIGRTMIN; sig <= SIGRTMAX; sig++)
		signal(sig, SIG_IGN);
	for (size_t i = 0; i < sizeof(defaults) / sizeof(defaults[0]); i++)
		signal(defaults[i], SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
}

void process_catch(int sig, void (*handler)(int sig))
{
	struct sigaction sa = { .sa_handler = handler }, before;

	if (sigaction(sig, NULL, &before) == 0 && before.sa_handler == SIG_IGN && sig != SIGUSR1)
		return;
	sigaction(sig, &sa, NULL);
}

/* inetd(8) gives one socket as 0, 1 and 2: what is printed would go to the source. */
static bool is_output_too(int fd)
{
	struct stat in, out;

	if (fstat(fd, &in) < 0 || !S_ISSOCK(in.st_mode))
		return false;
	for (int i = STDOUT_FILENO; i <= STDERR_FILENO; i++)
		if (fstat(i, &out) == 0 && in.st_dev == out.st_dev && in.st_ino == out.st_ino)
			return true;
	return false;
}

int process_check_descriptor(const char *uri, char ret_why[static 160])
{
	unsigned long fd;
	char *end;
	int flags;

	if (strncmp(uri, "fd:", 3) || !uri[3])
		return 0;
	fd = strtoul(uri + 3, &end, 10);
	if (*end || fd > INT32_MAX)
		return 0; /* not a number: the library says so */
	if (fd == STDOUT_FILENO || fd == STDERR_FILENO || is_output_too((int)fd)) {
		snprintf(ret_why, 160, "descriptor %lu is where this program prints", fd);
		return -EBADF;
	}
	flags = fcntl((int)fd, F_GETFD);
	if (flags < 0 || flags & FD_CLOEXEC) {
		snprintf(ret_why, 160,
		         "descriptor %lu was not inherited (EBADF): the parent has closed it, or has "
		         "left it close-on-exec",
		         fd);
		return -EBADF;
	}
	return 0;
}

static const struct limit {
	int error;
	int resource;
	const char *name, *how;
} limits[] = {
	{ EMFILE, RLIMIT_NOFILE, "RLIMIT_NOFILE", "ulimit -n" },
	{ EFBIG, RLIMIT_FSIZE, "RLIMIT_FSIZE", "ulimit -f, in KiB" },
	{ EAGAIN, RLIMIT_NPROC, "RLIMIT_NPROC", "ulimit -u" },
	{ ENOMEM, RLIMIT_AS, "RLIMIT_AS", "ulimit -v, in KiB" },
	{ ENOMEM, RLIMIT_DATA, "RLIMIT_DATA", "ulimit -d, in KiB" },
};

const char *process_limit_hint(char buf[static 160], int error)
{
	size_t used = 0;
	struct rlimit r;
	int n;

	buf[0] = '\0';
	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		const struct limit *l = &limits[i];

		if (l->error != (error < 0 ? -error : error) || getrlimit(l->resource, &r) < 0 ||
		    r.rlim_cur == RLIM_INFINITY)
			continue;
		n = snprintf(buf + used, 160 - used, "%s%s is %" PRIu64 ": %s", used ? "; " : " (", l->name,
		             (uint64_t)r.rlim_cur, l->how);
		if (n < 0 || (size_t)n >= 158 - used)
			break;
		used += (size_t)n;
	}
	if (used)
		snprintf(buf + used, 160 - used, ")");
	return buf;
}
