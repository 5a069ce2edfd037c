#include "tests/support/huge_pool.h"
#include "tests/support/check_main.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

#define POOL "/sys/kernel/mm/hugepages/hugepages-2048kB/"

static long pages_before = -1; /* to be restored; -1: nothing was changed */
static int lock = -1;

static long read_number(const char *path)
{
	FILE *f = fopen(path, "re");
	long n = -1;

	if (f && fscanf(f, "%ld", &n) != 1)
		n = -1;
	if (f)
		fclose(f);
	return n;
}

static void write_pages(long pages)
{
	FILE *f = fopen(POOL "nr_hugepages", "we");

	if (!f)
		return;
	fprintf(f, "%ld\n", pages);
	fclose(f);
}

bool huge_pool_exists(void)
{
	return read_number(POOL "nr_hugepages") >= 0;
}

long huge_pool_free(void)
{
	return read_number(POOL "free_hugepages");
}

bool huge_pool_grows(void)
{
	return read_number(POOL "nr_overcommit_hugepages") != 0;
}

void huge_pool_fill(long pages)
{
	/* No deadline of its own: the runner has one for each program. */
	lock = open(POOL "nr_hugepages", O_RDONLY | O_CLOEXEC);
	if (lock < 0)
		return;
	if (flock(lock, LOCK_EX) < 0)
		perror("flock of " POOL "nr_hugepages");
	if (huge_pool_free() >= pages)
		return;
	pages_before = read_number(POOL "nr_hugepages");
	write_pages(pages_before + pages);
}

void huge_pool_restore(void)
{
	if (pages_before >= 0)
		write_pages(pages_before);
	pages_before = -1;
	if (lock >= 0)
		close(lock);
	lock = -1;
}

void huge_pool_begin(void)
{
	huge_pool_fill(HUGE_POOL_PAGES);
}

void huge_pool_need(uint64_t pages)
{
	long there = huge_pool_free();

	if (there < 0 || (uint64_t)there < pages)
		test_skip("no huge pages of 2 MiB");
}
