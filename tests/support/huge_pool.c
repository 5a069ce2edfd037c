#include "tests/support/huge_pool.h"
#include "base/clock.h"
#include "tests/support/check_main.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#define POOL "/sys/kernel/mm/hugepages/hugepages-2048kB/"
#define RECORD "/run/inmigrate-huge-pages"

static long pages_before = -1; /* to be restored; -1: nothing is held */
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

/* Less than the time that scripts/run-tests gives the whole program: so there is an error that says why. */
static double patient_seconds(void)
{
	const char *all = getenv("TEST_SECONDS");

	return 0.8 * (all ? atof(all) : 300);
}

static bool read_record(int *ret_pid, long *ret_pages)
{
	FILE *f = fopen(RECORD, "re");
	bool whole = f && fscanf(f, "%d %ld", ret_pid, ret_pages) == 2;

	if (f)
		fclose(f);
	return whole;
}

/* An ordinary user may neither write this nor change the pool. */
static void write_record(long pages)
{
	FILE *f = fopen(RECORD, "we");

	if (!f)
		return;
	fprintf(f, "%d %ld\n", (int)getpid(), pages);
	fclose(f);
}

static void take_lock(void)
{
	uint64_t end_ns = clock_now_ns() + (uint64_t)(patient_seconds() * 1e9);
	char who[64] = "a process that has left no record";
	int pid;
	long pages;

	while (flock(lock, LOCK_EX | LOCK_NB) < 0) {
		if (clock_now_ns() > end_ns) {
			if (read_record(&pid, &pages))
				snprintf(who, sizeof(who), "process %d", pid);
			fprintf(stderr, "waited %.0f s for the pool of huge pages, which is held by %s\n",
			        patient_seconds(), who);
			exit(1);
		}
		usleep(20000);
	}
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
	int pid;
	long left;

	lock = open(POOL "nr_hugepages", O_RDONLY | O_CLOEXEC);
	if (lock < 0)
		return;
	take_lock();
	if (read_record(&pid, &left))
		write_pages(left);
	pages_before = read_number(POOL "nr_hugepages");
	write_record(pages_before);
	if (huge_pool_free() < pages)
		write_pages(pages_before + pages);
}

void huge_pool_restore(void)
{
	if (pages_before >= 0) {
		write_pages(pages_before);
		unlink(RECORD);
	}
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
