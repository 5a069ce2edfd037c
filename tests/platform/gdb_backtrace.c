/*
 * A debugger sees a coroutine's whole stack, and its end: inside ctx_switch on the way out and on the way in, at the
 * very first activation, and in the coroutine's own function. Without arguments it runs gdb on itself.
 */
#include "config.h"
#include "coroutine/co.h"
#include "coroutine/group.h"
#include "tests/support/temp.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int inferior_function(void *arg);
void inferior_inner(struct sched *s);

static struct sched sched;

__attribute__((noinline)) void inferior_inner(struct sched *s)
{
	co_yield(s);
	co_yield(s);
	__asm__ volatile("");
}

__attribute__((noinline)) int inferior_function(void *arg)
{
	inferior_inner(arg);
	__asm__ volatile("");
	return 0;
}

static int inferior(void)
{
	struct group g;

	sched_init(&sched, STACK_BYTES_DEFAULT, 4);
	group_init(&g, &sched, "inferior");
	for (int i = 0; i < 2; i++)
		group_spawn(&g, "inferior", inferior_function, &sched);
	while (sched_has_ready(&sched))
		sched_run_ready(&sched);
	sched_fini(&sched);
	return 0;
}

#if defined(__x86_64__) && !PORTABLE_SWITCH
/* Backtraces in gdb's words: the instruction before `ret` in ctx_switch, each time it is reached; and a yield. */
static const char script[] = "set confirm off\n"
                             "set pagination off\n"
                             "set debuginfod enabled off\n"
                             "break ctx_switch\n"
                             "run inferior\n"
                             "bt 30\n"
                             "delete\n"
                             "python\n"
                             "i = gdb.execute('disassemble ctx_switch', to_string=True).splitlines()\n"
                             "at = [l.split()[0] for l in i if '\\tret' in l or '\\trepz ret' in l][0]\n"
                             "gdb.execute('break *' + at)\n"
                             "for n in range(6):\n"
                             "    gdb.execute('continue')\n"
                             "    print('AT RETURN')\n"
                             "    gdb.execute('bt 30')\n"
                             "gdb.execute('delete')\n"
                             "gdb.execute('break inferior_inner')\n"
                             "end\n"
                             "kill\n"
                             "break inferior_inner\n"
                             "run inferior\n"
                             "echo IN THE FUNCTION\\n\n"
                             "bt 30\n"
                             "kill\n";

static bool gdb_works(void)
{
	return system("gdb -batch -ex 'python print(1)' >/dev/null 2>&1") == 0;
}

/* Nothing invented, nothing broken off; and the named function is followed by the two that lead to it. */
static int judge(FILE *f)
{
	static const char *const bad[] = { "corrupt stack", "??", "Backtrace stopped", "Cannot access memory",
		                           "More stack frames" };
	int ends = 0, functions = 0, starts = 0, wrong = 0;
	char line[1024], last[1024] = "";

	while (fgets(line, sizeof(line), f)) {
		bool frame = line[0] == '#';

		for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
			if (strstr(line, bad[i])) {
				wrong++;
				printf("gdb says: %s", line);
			}
		}
		functions += frame && strstr(line, "inferior_function") != NULL;
		/* A stack ends where the next frame is number 0, or no frame: in main or in ctx_start. */
		if (last[0] == '#' && (!frame || strncmp(line, "#0", 2) == 0)) {
			bool start = strstr(last, "ctx_start") != NULL;

			ends++;
			starts += start;
			if (!start && !strstr(last, " main ")) {
				wrong++;
				printf("a stack ends with: %s", last);
			}
		}
		strcpy(last, line);
	}
	printf("%d backtraces, %d of coroutines, %d frames of their function\n", ends, starts, functions);
	return wrong == 0 && ends >= 8 && starts >= 5 && functions >= 3 ? 0 : 1;
}

static int run_gdb(const char *self)
{
	char path[TEMP_NAME_BYTES], command[512];
	int fd, status;
	FILE *f;

	temp_name(path, "gdb");
	fd = mkstemp(path);
	f = fd < 0 ? NULL : fdopen(fd, "w");
	if (!f || fputs(script, f) < 0 || fclose(f) != 0)
		return 1;
	snprintf(command, sizeof(command), "gdb -nx -batch -x '%s' '%s' 2>&1", path, self);
	f = popen(command, "r");
	if (!f)
		return 1;
	status = judge(f);
	pclose(f);
	remove(path);
	return status;
}
#endif

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "inferior") == 0)
		return inferior();
#if defined(__x86_64__) && !PORTABLE_SWITCH
	if (!gdb_works()) {
		printf("no gdb with python here\n");
		return 77;
	}
	return run_gdb(argv[0]);
#else
	printf("written for the x86-64 switch\n");
	return 77;
#endif
}
