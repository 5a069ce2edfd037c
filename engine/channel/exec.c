#include "engine/channel/exec.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "coroutine/io.h"
#include "engine/channel/file.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* A killed command is gone at once, unless the kernel holds it in a system call. */
#define KILL_WAIT_NS (5 * NS_PER_S)

static int spawn_shell(pid_t *ret_pid, const char *command, int out_fd)
{
	char *argv[] = { "/bin/sh", "-c", (char *)command, NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none, all;
	int r;

	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attr);
	posix_spawn_file_actions_adddup2(&actions, out_fd, STDOUT_FILENO);
	posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	/*
	 * A group of its own, so that what the shell starts ends with it; and no signals masked or ignored for the
	 * embedder's reasons.
	 */
	sigemptyset(&none);
	sigfillset(&all);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &all);
	posix_spawnattr_setpgroup(&attr, 0);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	r = posix_spawn(ret_pid, argv[0], &actions, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return -r;
}

static int reap(pid_t pid, int options, int *ret_status)
{
	pid_t r;

	do
		r = waitpid(pid, ret_status, options);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : (int)r;
}

void exec_kill(struct exec *x)
{
	int status;

	kill(-x->pid, SIGKILL);
	reap(x->pid, 0, &status);
	if (x->pidfd >= 0)
		close(x->pidfd);
	x->pidfd = -1;
}

int exec_start(struct exec *x, struct reactor *r, const struct log *log, const char *command, struct chan **ret_chan,
               struct err *err)
{
	int pipe_fd[2], e;
	char name[96];

	*x = (struct exec){ .reactor = r, .log = log, .pidfd = -1 };
	if (pipe2(pipe_fd, O_CLOEXEC) < 0)
		return err_set(err, -errno, "pipe: %s", strerror(errno));
	e = spawn_shell(&x->pid, command, pipe_fd[1]);
	close(pipe_fd[1]);
	if (e < 0) {
		close(pipe_fd[0]);
		return err_set(err, e, "starting /bin/sh: %s", strerror(-e));
	}
	x->pidfd = (int)syscall(SYS_pidfd_open, x->pid, 0);
	if (x->pidfd < 0) {
		e = err_set(err, -errno, "pidfd_open: %s", strerror(errno));
		close(pipe_fd[0]);
		exec_kill(x);
		return e;
	}
	snprintf(name, sizeof(name), "exec:%.80s", command);
	e = file_chan_new(ret_chan, r, pipe_fd[0], 0, name);
	if (e < 0) {
		exec_kill(x);
		return err_set(err, e, "no memory for a channel");
	}
	return 0;
}

static void report(const struct exec *x, int status)
{
	if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
		log_warn(x->log, "the command of exec: ended with status %d", WEXITSTATUS(status));
	else if (WIFSIGNALED(status))
		log_warn(x->log, "the command of exec: was ended by signal %d", WTERMSIG(status));
}

int exec_wait(void *arg)
{
	struct exec *x = arg;
	int status = 0, result = io_poll(x->reactor, x->pidfd, POLLIN, DEADLINE_NEVER);

	if (result < 0) {
		kill(-x->pid, SIGKILL);
		io_poll(x->reactor, x->pidfd, POLLIN, deadline_after_ns(KILL_WAIT_NS));
	}
	if (reap(x->pid, WNOHANG, &status) > 0 && result >= 0)
		report(x, status);
	close(x->pidfd);
	x->pidfd = -1;
	return result < 0 ? result : 0;
}
