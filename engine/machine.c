/*
 * machine.c - inm_probe: what this machine offers to a migration, and what would offer more
 *
 * All is tried, only the pools of huge pages are looked up: what a kernel has and a policy forbids is a "no".
 */
#include "inmigrate.h"

#include "base/err.h"
#include "coroutine/ring.h"
#include "postcopy/uffd.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

_Static_assert(UFFD_FINDINGS_MAX + 4 <= INM_FINDINGS_MAX, "room for all of userfaultfd's, and for ours");

static struct inm_finding *add(struct inm_probe *p, const char *name)
{
	struct inm_finding *f = &p->findings[p->finding_count++];

	snprintf(f->name, sizeof(f->name), "%s", name);
	return f;
}

static bool has(const struct inm_probe *p, const char *name)
{
	for (size_t i = 0; i < p->finding_count; i++) {
		if (strcmp(p->findings[i].name, name) == 0)
			return p->findings[i].there;
	}
	return false;
}

/* ---- userfaultfd ---- */

static void find_userfaultfd(struct inm_probe *p)
{
	struct uffd_probe u;

	uffd_probe(&u);
	p->uffd_features = u.features;
	snprintf(p->error, sizeof(p->error), "%s", u.error_text);
	if (u.error == 0)
		snprintf(p->door, sizeof(p->door), "%s", uffd_door_name(u.door));
	for (size_t i = 0; i < u.count; i++) {
		struct inm_finding *f = add(p, u.findings[i].name);

		f->there = u.findings[i].there;
		snprintf(f->why_not, sizeof(f->why_not), "%s", u.findings[i].why_not);
	}
}

/* ---- the rest ---- */

static void never_done(struct ring_op *op)
{
	(void)op;
}

static void find_ring(struct inm_probe *p)
{
	struct inm_finding *f = add(p, "io_uring");
	struct ring *ring;
	int r = ring_uring.open(&ring, never_done);

	if (r == 0) {
		f->there = true;
		ring_uring.close(ring);
		return;
	}
	/* The kernel says EPERM for its sysctl and for a seccomp policy alike. */
	snprintf(f->why_not, sizeof(f->why_not), "%s: %s", err_name(r),
	         r == -EPERM  ? "sysctl kernel.io_uring_disabled=0, and permit it in the container's seccomp policy" :
	         r == -ENOSYS ? "needs a kernel with CONFIG_IO_URING, and a seccomp policy that shows it" :
	         r == -EINVAL ? "needs Linux 6.1" :
	         r == -ENOMEM ? "raise the limit of locked memory of this user (RLIMIT_MEMLOCK, ulimit -l), or give "
	                        "CAP_IPC_LOCK" :
	         r == -EMFILE ? "raise the limit of open files (RLIMIT_NOFILE, ulimit -n)" :
	                        "a limit of the process or the machine");
}

static void find_memfd(struct inm_probe *p)
{
	struct inm_finding *f = add(p, "memfd");
	int fd = memfd_create("probe", MFD_CLOEXEC), error = errno;

	f->there = fd >= 0;
	if (fd >= 0)
		close(fd);
	else
		snprintf(f->why_not, sizeof(f->why_not),
		         "%s: needs CONFIG_MEMFD_CREATE, and a seccomp policy that permits it", err_name(-error));
}

/* -1: the file is not there. */
static long pool_number(unsigned kib, const char *what)
{
	char path[100];
	long n = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%ukB/%s", kib, what);
	f = fopen(path, "re");
	if (!f)
		return -1;
	if (fscanf(f, "%ld", &n) != 1)
		n = -1;
	fclose(f);
	return n;
}

/* Free means: not in use, and not promised to a mapping that has not touched its pages yet. */
static void find_huge_pages(struct inm_probe *p, const char *name, unsigned kib)
{
	struct inm_finding *f = add(p, name);
	long all = pool_number(kib, "nr_hugepages"), unused = pool_number(kib, "free_hugepages");
	long promised = pool_number(kib, "resv_hugepages"), more = pool_number(kib, "nr_overcommit_hugepages");
	long surplus = pool_number(kib, "surplus_hugepages");

	f->there = all >= 0 && (unused - promised > 0 || more - surplus > 0);
	if (f->there)
		return;
	if (all < 0)
		snprintf(f->why_not, sizeof(f->why_not), "this kernel or processor has none of this size");
	else
		snprintf(f->why_not, sizeof(f->why_not),
		         "%ld of %ld are free; more: echo N > /sys/kernel/mm/hugepages/hugepages-%ukB/nr_hugepages",
		         unused - promised, all, kib);
}

/* ---- the verdict ---- */

static void judge(struct inm_probe *p)
{
	char *v = p->verdict;
	size_t size = sizeof(p->verdict);

	p->migration = has(p, "io_uring");
	p->postcopy = p->migration && p->door[0];
	p->kernel_faults = p->postcopy && has(p, "kernel-faults");
	p->shared_memory = p->postcopy && has(p, "missing-shmem") && has(p, "minor-shmem");
	p->huge_pages = p->postcopy && has(p, "missing-hugetlbfs") && has(p, "minor-hugetlbfs");
	p->callbacks_park = (p->shared_memory || p->huge_pages) && has(p, "sigbus");
	if (!p->door[0])
		snprintf(v, size, "not possible: %s", p->error);
	else if (!p->migration)
		snprintf(v, size, "not possible: the library needs io_uring for any migration");
	else
		snprintf(v, size, "will use %s; %s; %s%s", p->door,
		         p->shared_memory ? "memory with a descriptor, placed by UFFDIO_CONTINUE" :
		                            "anonymous memory only, placed by UFFDIO_COPY",
		         p->callbacks_park ? "device callbacks park on a missing page" :
		                             "device callbacks must await the pages they touch",
		         p->kernel_faults ? "" : "; not for guests under KVM, nor with vhost");
}

int inm_probe(struct inm_probe *ret)
{
	struct inm_probe p = { .size = 0 };
	struct utsname un = { 0 };
	size_t bytes;

	if (!ret || ret->size < sizeof(ret->size))
		return -EINVAL;
	bytes = ret->size;
	uname(&un);
	snprintf(p.kernel, sizeof(p.kernel), "%s", un.release);
	find_userfaultfd(&p);
	find_ring(&p);
	find_memfd(&p);
	find_huge_pages(&p, "huge-2m", 2048);
	find_huge_pages(&p, "huge-1g", 1048576);
	judge(&p);
	/* A newer caller's structure is longer: what is not known here is zero. */
	p.size = bytes;
	memset(ret, 0, bytes);
	memcpy(ret, &p, bytes < sizeof(p) ? bytes : sizeof(p));
	return 0;
}
