#include "tests/support/held.h"

#include "config.h"
#include "tests/support/check_main.h"

#include <malloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#if HAVE_VALGRIND
#include <valgrind/valgrind.h>
#else
#define RUNNING_ON_VALGRIND 0
#endif

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

size_t held_field(pid_t pid, const char *name)
{
	char path[64], line[256];
	size_t name_bytes = strlen(name), kib = 0;
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "r");
	ck_assert_ptr_nonnull(f);
	while (!found && fgets(line, sizeof(line), f))
		found = !strncmp(line, name, name_bytes) && sscanf(line + name_bytes, ": %zu kB", &kib) == 1;
	fclose(f);
	ck_assert_msg(found, "no %s in %s", name, path);
	return kib << 10;
}

void held_begin(struct held *h)
{
	FILE *f;
	bool ok;

	if (SANITIZED || RUNNING_ON_VALGRIND)
		test_skip("resident memory says nothing under a sanitizer or valgrind");
	/* What is free and resident would hide what comes next. */
	malloc_trim(0);
	f = fopen("/proc/self/clear_refs", "w");
	ok = f && fputs("5", f) >= 0;
	ok = f && fclose(f) == 0 && ok;
	if (!ok)
		test_skip("the peak of resident memory cannot be reset: /proc/self/clear_refs");
	h->base_bytes = held_field(getpid(), "VmHWM");
}

size_t held_bytes(const struct held *h)
{
	size_t peak_bytes = held_field(getpid(), "VmHWM");

	return peak_bytes > h->base_bytes ? peak_bytes - h->base_bytes : 0;
}

void held_within(const struct held *h, size_t max_bytes, const char *what)
{
	size_t bytes = held_bytes(h);

	printf("%s: %.1f MiB held, %.1f allowed\n", what, (double)bytes / 1048576, (double)max_bytes / 1048576);
	ck_assert_msg(bytes <= max_bytes, "%s: %zu bytes held, %zu allowed", what, bytes, max_bytes);
}
