#include "tests/support/census.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#elif defined(__has_feature)
#define SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define SANITIZED false
#endif

/* Long enough for a worker of the ring to notice that its ring is gone; short enough for a test. */
#define WORKERS_WAIT_NS (2 * NS_PER_S)

static void add(struct census *c, const char *line)
{
	if (c->count == CENSUS_LINES_MAX) {
		c->overflowed = true;
		return;
	}
	c->lines[c->count] = strdup(line);
	ASSERT(c->lines[c->count]);
	c->count++;
}

static void take_fds(struct census *c)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *ent;

	ASSERT(dir);
	while ((ent = readdir(dir))) {
		char path[300], target[256], line[600];
		ssize_t n;

		if (ent->d_name[0] == '.' || atoi(ent->d_name) == dirfd(dir))
			continue;
		snprintf(path, sizeof(path), "/proc/self/fd/%s", ent->d_name);
		n = readlink(path, target, sizeof(target) - 1);
		target[n < 0 ? 0 : n] = 0;
		snprintf(line, sizeof(line), "fd %s -> %s", ent->d_name, target);
		add(c, line);
	}
	closedir(dir);
}

/* "memfd:x (deleted)" but not "[heap]", a library, or private anonymous memory: those are the allocator's business. */
static bool counts(const char *name, const char *perms)
{
	if (!name[0] && !strncmp(perms, "---p", 4))
		return !SANITIZED; /* the guard below a coroutine's stack; sanitizers have some of their own */
	if (!name[0] || name[0] == '[')
		return perms[3] == 's';
	return !strstr(name, ".so") && !strstr(name, "/usr/lib/") && !strstr(name, "/locale");
}

static void take_maps(struct census *c)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char *text = NULL;
	size_t cap = 0;

	ASSERT(f);
	while (getline(&text, &cap, f) > 0) {
		uint64_t from, to;
		char perms[8], line[512];
		int at = 0;

		if (sscanf(text, "%" SCNx64 "-%" SCNx64 " %7s %*s %*s %*s %n", &from, &to, perms, &at) < 3 || !at)
			continue;
		text[strcspn(text, "\n")] = 0;
		if (!counts(text + at, perms))
			continue;
		snprintf(line, sizeof(line), "map %s %" PRIu64 " KiB %s", perms, (to - from) / 1024, text + at);
		add(c, line);
	}
	free(text);
	fclose(f);
}

/* Return: how many of them are workers of a ring. */
static unsigned take_threads(struct census *c)
{
	DIR *dir = opendir("/proc/self/task");
	unsigned workers = 0;
	struct dirent *ent;

	ASSERT(dir);
	while ((ent = readdir(dir))) {
		char path[300], comm[64] = "", line[400];
		FILE *f;

		snprintf(path, sizeof(path), "/proc/self/task/%s/comm", ent->d_name);
		if (ent->d_name[0] == '.' || !(f = fopen(path, "re")))
			continue;
		if (fgets(comm, sizeof(comm), f))
			comm[strcspn(comm, "\n")] = 0;
		fclose(f);
		workers += !strncmp(comm, "iou-", 4);
		snprintf(line, sizeof(line), "thread %s", comm);
		if (c)
			add(c, line);
	}
	closedir(dir);
	return workers;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

void census_take(struct census *ret_census)
{
	uint64_t deadline_ns = deadline_after_ns(WORKERS_WAIT_NS);

	while (take_threads(NULL) && clock_now_ns() < deadline_ns)
		usleep(1000);
	*ret_census = (struct census){ 0 };
	take_fds(ret_census);
	take_maps(ret_census);
	take_threads(ret_census);
	qsort(ret_census->lines, ret_census->count, sizeof(char *), by_text);
}

void census_free(struct census *c)
{
	for (unsigned i = 0; i < c->count; i++)
		free(c->lines[i]);
	*c = (struct census){ 0 };
}

unsigned census_compare(const struct census *before, const struct census *after)
{
	unsigned a = 0, b = 0, differences = before->overflowed || after->overflowed;

	while (a < before->count || b < after->count) {
		int order = a == before->count ? 1 : b == after->count ? -1 : strcmp(before->lines[a], after->lines[b]);

		if (order)
			fprintf(stderr, "%c %s\n", order < 0 ? '-' : '+',
			        order < 0 ? before->lines[a] : after->lines[b]);
		differences += order != 0;
		a += order <= 0;
		b += order >= 0;
	}
	return differences;
}

unsigned census_differs(const struct census *before)
{
	struct census now;
	unsigned differences;

	census_take(&now);
	differences = census_compare(before, &now);
	census_free(&now);
	return differences;
}

size_t census_rss_kib(void)
{
	FILE *f = fopen("/proc/self/statm", "re");
	size_t total = 0, resident = 0;

	ASSERT(f);
	ASSERT(fscanf(f, "%zu %zu", &total, &resident) == 2);
	fclose(f);
	return resident * (size_t)sysconf(_SC_PAGESIZE) / 1024;
}
