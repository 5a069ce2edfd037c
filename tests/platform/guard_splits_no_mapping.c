/* MADV_GUARD_INSTALL (Linux 6.13) guards a page without splitting its mapping: coroutine/stack.h relies on it to have
 * more stacks than vm.max_map_count allows mappings. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

static int count_mappings(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	int c, n = 0;

	while (f && (c = getc(f)) != EOF)
		n += c == '\n';
	if (f)
		fclose(f);
	return n;
}

int main(void)
{
	enum { GUARDS = 1000 };
	size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = 2 * GUARDS * page;
	char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int before, after, status;
	pid_t pid;

	if (p == MAP_FAILED)
		return 1;
	if (madvise(p, page, MADV_GUARD_INSTALL) < 0) {
		printf("no MADV_GUARD_INSTALL here: %s\n", strerror(errno));
		return 77;
	}
	before = count_mappings();
	for (size_t i = 1; i < GUARDS; i++) {
		if (madvise(p + 2 * i * page, page, MADV_GUARD_INSTALL) < 0)
			return 1;
	}
	after = count_mappings();
	printf("%d guards: %d mappings before, %d after\n", GUARDS, before, after);
	memset(p + page, 1, page);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		p[2 * page] = 1;
		_exit(0);
	}
	waitpid(pid, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
		printf("a guard page can be written\n");
		return 1;
	}
	return after <= before + 2 ? 0 : 1;
}
