#include "tests/support/check_main.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Check's way out of a failed test when it does not fork (CK_FORK=no, in a debugger). It is in every libcheck, though
 * in no header; taking it without reporting a failure leaves the test as one that passed. */
extern jmp_buf error_jmp_buffer __attribute__((weak));

/* TEST(name) defines a function name_body. */
static int name_len(const char *func)
{
	static const char end[] = "_body";
	size_t len = strlen(func), end_len = sizeof(end) - 1;

	return (int)(len > end_len && strcmp(func + len - end_len, end) == 0 ? len - end_len : len);
}

/* Here an exit would end the program, and the tests that have not run would be missed by nobody. */
static bool is_main_process(void)
{
	const char *pid = getenv("TEST_MAIN_PID");

	return pid && atoi(pid) == (int)getpid();
}

void test_skip_in(const char *func, const char *why)
{
	const char *path = getenv("TEST_SKIPS"), *mode = getenv("CK_FORK");
	bool forked = !mode || strcmp(mode, "no") != 0;
	char line[512];
	int fd, len;

	len = snprintf(line, sizeof(line), "SKIP %.*s: %s\n", name_len(func), func, why);
	if (len >= (int)sizeof(line)) {
		len = sizeof(line) - 1;
		line[len - 1] = '\n';
	}
	/* One write to a file opened for appending: lines do not mix, even if others write. */
	fd = path ? open(path, O_WRONLY | O_APPEND | O_CLOEXEC) : -1;
	if (fd < 0 || write(fd, line, (size_t)len) != len)
		ck_abort_msg("cannot skip (%s): TEST_SKIPS names no file to write to", why);
	close(fd);
	fputs(line, stdout);
	fflush(stdout);
	if (forked && is_main_process())
		ck_abort_msg("only a test can be skipped, not an unchecked fixture: %s", why);
	if (forked)
		exit(0);
	if (!&error_jmp_buffer)
		ck_abort_msg("this Check cannot skip without CK_FORK: %s", why);
	longjmp(error_jmp_buffer, 1);
}

void test_need_files_in(const char *func, unsigned count)
{
	struct rlimit files;
	char why[100];

	if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur >= count)
		return;
	snprintf(why, sizeof(why), "it needs %u open files, and RLIMIT_NOFILE is %llu", count,
	         (unsigned long long)files.rlim_cur);
	test_skip_in(func, why);
}
