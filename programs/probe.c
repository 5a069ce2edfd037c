/*
 * probe.c - `inmigrate probe`: what this machine offers to a migration, and what would offer more
 *
 * All is tried, only the pools of huge pages are looked up: what a kernel has and a policy forbids is a "no".
 */
#include "programs/program.h"

#include "base/err.h"
#include "coroutine/ring.h"
#include "postcopy/uffd.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const char help_text[] =
	"usage: inmigrate probe [OPTION]...\n"
	"\n"
	"Says what the kernel offers here and to this user: a line each with yes or no, and for a no why,\n"
	"and what would change it. The last line says how postcopy would be done.\n"
	"\n"
	"  --json  one JSON object instead\n"
	"  --help  this text\n"
	"\n"
	"Exit status: 0 postcopy is possible, 1 it is not, 2 usage.\n";

#define FINDINGS_MAX (UFFD_FINDINGS_MAX + 4)

struct machine {
	struct uffd_probe uffd;
	struct uffd_finding findings[FINDINGS_MAX];
	size_t count;
	char verdict[400]; /* how postcopy will be done, or why not */
	bool possible;
};

static struct uffd_finding *add(struct machine *m, const char *name)
{
	struct uffd_finding *f = &m->findings[m->count++];

	*f = (struct uffd_finding){ .name = name };
	return f;
}

static bool has(const struct machine *m, const char *name)
{
	for (size_t i = 0; i < m->count; i++) {
		if (strcmp(m->findings[i].name, name) == 0)
			return m->findings[i].there;
	}
	return false;
}

/* ---- what is not userfaultfd's ------------------------------------------------------------------------------ */

static void never_done(struct ring_op *op)
{
	(void)op;
}

static void find_ring(struct machine *m)
{
	struct uffd_finding *f = add(m, "io_uring");
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
	                        "a limit of the process or the machine");
}

static void find_memfd(struct machine *m)
{
	struct uffd_finding *f = add(m, "memfd");
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

/* Free means: not in use, and not promised to a mapping that has not touched its pages so far. */
static void find_huge_pages(struct machine *m, const char *name, unsigned kib)
{
	struct uffd_finding *f = add(m, name);
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

/* ---- the verdict -------------------------------------------------------------------------------------------- */

static void judge(struct machine *m)
{
	bool file = has(m, "memfd") && has(m, "missing-shmem") && has(m, "minor-shmem");
	char *v = m->verdict;
	size_t size = sizeof(m->verdict);

	if (m->uffd.error < 0) {
		snprintf(v, size, "not possible: %s", m->uffd.error_text);
		return;
	}
	if (!has(m, "io_uring")) {
		snprintf(v, size, "not possible: the library needs io_uring for any migration");
		return;
	}
	m->possible = true;
	snprintf(v, size, "will use %s; %s; %s%s", uffd_door_name(m->uffd.door),
	         file ? "memory with a descriptor, placed by UFFDIO_CONTINUE" :
	                "anonymous memory only, placed by UFFDIO_COPY",
	         file && has(m, "sigbus") ? "device callbacks park on a missing page" :
	                                    "device callbacks must await the pages they touch",
	         has(m, "kernel-faults") ? "" : "; not for guests under KVM, nor with vhost");
}

static void examine(struct machine *m)
{
	uffd_probe(&m->uffd);
	for (size_t i = 0; i < m->uffd.count; i++)
		m->findings[m->count++] = m->uffd.findings[i];
	find_ring(m);
	find_memfd(m);
	find_huge_pages(m, "huge-2m", 2048);
	find_huge_pages(m, "huge-1g", 1048576);
	judge(m);
}

/* ---- saying it ---------------------------------------------------------------------------------------------- */

static int print_text(const struct machine *m)
{
	if (m->uffd.error < 0)
		printf("%-20s %-4s %s\n", "userfaultfd", "no", m->uffd.error_text);
	else
		printf("%-20s %-4s through %s\n", "userfaultfd", "yes", uffd_door_name(m->uffd.door));
	for (size_t i = 0; i < m->count; i++) {
		const struct uffd_finding *f = &m->findings[i];

		printf("%-20s %s%s%s\n", f->name, f->there ? "yes" : "no", f->there ? "" : "   ", f->why_not);
	}
	printf("postcopy: %s\n", m->verdict);
	return ferror(stdout) || fflush(stdout) ? -1 : 0;
}

static json_t *finding_json(const struct uffd_finding *f)
{
	return f->there ? json_pack("{s:b}", "there", 1) : json_pack("{s:b, s:s}", "there", 0, "why", f->why_not);
}

static int print_json(const struct machine *m)
{
	json_t *doc, *list = json_object();
	int r = -1;

	for (size_t i = 0; i < m->count; i++)
		json_object_set_new(list, m->findings[i].name, finding_json(&m->findings[i]));
	doc = json_pack("{s:b, s:s, s:s?, s:s?, s:o}", "postcopy", m->possible, "verdict", m->verdict, "door",
	                m->uffd.error < 0 ? NULL : uffd_door_name(m->uffd.door), "error",
	                m->uffd.error < 0 ? m->uffd.error_text : NULL, "features", list);
	if (doc && json_dumpf(doc, stdout, JSON_INDENT(2)) == 0 && putchar('\n') != EOF)
		r = fflush(stdout);
	json_decref(doc);
	return r;
}

static const struct option long_options[] = {
	{ "json", no_argument, NULL, 'j' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

int cmd_probe(int argc, char **argv)
{
	struct machine m = { 0 };
	bool json = false;
	int opt, r;

	while ((opt = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (opt == 'h') {
			fputs(help_text, stdout);
			return EXIT_LANDED;
		}
		if (opt != 'j')
			return EXIT_USAGE;
		json = true;
	}
	if (optind < argc)
		return usage_error("probe", "one argument too many: '%s'", argv[optind]);
	examine(&m);
	r = json ? print_json(&m) : print_text(&m);
	if (r < 0)
		return fail("standard output: %s", strerror(errno));
	return m.possible ? EXIT_LANDED : EXIT_FAILED;
}
