/* main() of a test program. See check_main.h. */
#include "tests/support/check_main.h"
#include "inmigrate.h"
#include "tests/support/cases.h"
#include "tests/support/temp.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NOT_HERE_STATUS 77

static unsigned count_lines(FILE *f)
{
	unsigned n = 0;
	int c;

	while ((c = getc(f)) != EOF)
		n += c == '\n';
	return n;
}

static void write_counts(int passed, int failed, int skipped)
{
	const char *path = getenv("TEST_COUNTS");
	FILE *f;

	if (!path)
		return;
	f = fopen(path, "w");
	if (!f || fprintf(f, "%d %d %d\n", passed, failed, skipped) < 0 || fclose(f) != 0) {
		perror(path);
		exit(2);
	}
}

/*
 * Nearly every test needs a reactor, for which an ordinary user must be allowed to lock some memory (RLIMIT_MEMLOCK).
 * Why there can be none for another reason is for the tests to find out.
 */
static bool may_lock_too_little(void)
{
	struct inm_reactor *reactor;
	int e = inm_reactor_new(&reactor, NULL);

	if (e == 0)
		inm_reactor_free(reactor);
	else if (e == -ENOMEM)
		printf("no reactor: %s\n", inm_last_error());
	return e == -ENOMEM;
}

int main(void)
{
	char skips[TEMP_NAME_BYTES], pid[16];
	int failed, run, skipped, fd;
	SRunner *runner;
	FILE *f;

	if (may_lock_too_little())
		return NOT_HERE_STATUS;
	temp_name(skips, "skips");
	fd = mkstemp(skips);
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	if (fd < 0 || setenv("TEST_SKIPS", skips, 1) < 0 || setenv("TEST_MAIN_PID", pid, 1) < 0) {
		perror(skips);
		return 2;
	}
	f = fdopen(fd, "r");
	if (!f) {
		perror(skips);
		return 2;
	}
	setlinebuf(stdout); /* what a test prints is in order with what Check says of it, also in a log */

	runner = srunner_create(cases_suite());
	srunner_run_all(runner, CK_ENV);
	run = srunner_ntests_run(runner);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);

	skipped = (int)count_lines(f);
	fclose(f);
	unlink(skips);
	write_counts(run - failed - skipped, failed, skipped);
	return failed == 0 ? 0 : 1;
}
