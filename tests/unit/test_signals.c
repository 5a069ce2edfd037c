/* tests/support/signals.h: however a test program was started, its tests have the signals that they expect. */
#include "tests/support/check_main.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOTHING_RUNS 9

TEST_CASE("first", 4);

/* Not SIG_DFL in all cases: Check has some handlers of its own. */
TEST(test_none_is_ignored_or_blocked)
{
	sigset_t blocked;

	sigprocmask(SIG_SETMASK, NULL, &blocked);
	for (int sig = 1; sig < NSIG; sig++) {
		struct sigaction act;

		if (sigaction(sig, NULL, &act) < 0)
			continue; /* of the C library */
		ck_assert_msg(act.sa_handler != SIG_IGN, "signal %d is ignored", sig);
		ck_assert_msg(sigismember(&blocked, sig) == 0, "signal %d is blocked", sig);
	}
}

static void ignore_and_block_all(void)
{
	sigset_t all;

	for (int sig = 1; sig < NSIG; sig++)
		signal(sig, SIG_IGN);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
}

static void again(const char *test_case)
{
	char path[4096];
	ssize_t bytes;

	setenv("CK_RUN_CASE", test_case, 1);
	unsetenv("TEST_COUNTS");
	/* By its name: valgrind is what runs here, and is not to be started without its own arguments. */
	bytes = readlink("/proc/self/exe", path, sizeof(path) - 1);
	if (bytes > 0) {
		path[bytes] = 0;
		execl(path, "test_signals", NULL);
	}
	_exit(NOTHING_RUNS);
}

TEST_CASE("again", 4);

TEST(test_none_is_ignored_or_blocked_where_the_parent_has_all_ignored_and_blocked)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		ignore_and_block_all();
		again("first");
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status 0x%x", (unsigned)status);
}

TEST_CASE("hangup", 4);

/* Only below the test after it, where SIGHUP is ignored: for the program, not for its tests. */
TEST_EACH(test_the_program_itself_does_not_hear_a_hangup, getenv("TEST_BELOW_NOHUP") ? 1 : 0)
{
	pid_t main_process = getppid();
	struct sigaction act;

	sigaction(SIGHUP, NULL, &act);
	ck_assert(act.sa_handler == SIG_DFL);
	ck_assert_int_eq(kill(main_process, SIGHUP), 0);
	usleep(100000);
	ck_assert_int_eq(getppid(), main_process);
}

TEST_CASE("again", 4);

TEST(test_below_nohup_a_run_outlives_the_terminal)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		signal(SIGHUP, SIG_IGN);
		setenv("TEST_BELOW_NOHUP", "1", 1);
		again("hangup");
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status 0x%x", (unsigned)status);
}
