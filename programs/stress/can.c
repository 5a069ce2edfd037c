#include "programs/stress/can.h"

#include "postcopy/uffd.h"
#include "programs/stress/kinds.h"
#include "programs/stress/kvm.h"
#include "programs/stress/options.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define HUGE_2M_BYTES (2ull << 20)
#define HUGE_1G_BYTES (1ull << 30)

/* What a kind of memory needs, by the names of uffd_probe. */
static const struct {
	const char *needs[3];
} memory_needs[MEMORY_COUNT] = {
	[MEMORY_ANON] = { { "missing" } },
	[MEMORY_THP] = { { "missing" } },
	[MEMORY_MEMFD] = { { "missing", "missing-shmem", "minor-shmem" } },
	[MEMORY_HUGE_2M] = { { "missing", "missing-hugetlbfs", "minor-hugetlbfs" } },
	[MEMORY_HUGE_1G] = { { "missing", "missing-hugetlbfs", "minor-hugetlbfs" } },
};

static const char *const event_needs[EVENT_COUNT] = { [EVENT_REMOVE] = "event-remove",
	                                              [EVENT_UNMAP] = "event-unmap",
	                                              [EVENT_REMAP] = "event-remap",
	                                              [EVENT_FORK] = NULL };

static bool has(const struct uffd_probe *p, const char *name, char ret_why[static 200])
{
	for (size_t i = 0; name && i < p->count; i++) {
		if (strcmp(p->findings[i].name, name))
			continue;
		if (!p->findings[i].there)
			snprintf(ret_why, 200, "no %s: %s", name, p->findings[i].why_not);
		return p->findings[i].there;
	}
	return true;
}

static bool has_pool(const struct stress_options *opts, enum stress_memory memory, char ret_why[static 200])
{
	unsigned long long hpage_bytes = memory == MEMORY_HUGE_2M ? HUGE_2M_BYTES : HUGE_1G_BYTES;
	unsigned long long needed, free_pages = 0;
	char path[128];
	FILE *f;

	needed = (opts->bytes + hpage_bytes - 1) / hpage_bytes;
	/* What is unplugged and what is moved come on top, rounded up. */
	needed += (opts->event_rate[EVENT_UNMAP] > 0) * ((needed + 3) / 4);
	needed += (opts->event_rate[EVENT_REMAP] > 0) * ((needed + 3) / 4);
	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%llukB/free_hugepages", hpage_bytes >> 10);
	f = fopen(path, "re");
	if (!f) {
		snprintf(ret_why, 200, "this kernel or processor has no huge pages of that size");
		return false;
	}
	if (fscanf(f, "%llu", &free_pages) != 1)
		free_pages = 0;
	fclose(f);
	if (free_pages >= needed)
		return true;
	snprintf(ret_why, 200,
	         "not enough huge pages are free, %llu; more: echo N >/sys/kernel/mm/hugepages/"
	         "hugepages-%llukB/nr_hugepages",
	         free_pages, hpage_bytes >> 10);
	return false;
}

static bool is_anonymous(unsigned memory)
{
	return memory == MEMORY_ANON || memory == MEMORY_THP;
}

/* What the library does with a kind of memory is no matter of choice. */
static bool fits(const struct stress_options *opts, enum stress_place place, char ret_why[static 200])
{
	bool some = false;

	for (unsigned m = 0; m < MEMORY_COUNT; m++)
		some |= opts->memories & 1u << m && is_anonymous(m) == (place != PLACE_CONTINUE);
	if (some || place == PLACE_ZERO)
		return true;
	snprintf(ret_why, 200,
	         place == PLACE_CONTINUE ?
	                 "UFFDIO_CONTINUE shows what is in a file, and there is none behind anonymous memory" :
	         place == PLACE_COPY ?
	                 "the library writes a file's pages into the file and shows them by UFFDIO_CONTINUE" :
	                 "UFFDIO_MOVE is for anonymous memory");
	return false;
}

static bool has_file_memory(const struct stress_options *opts)
{
	for (unsigned m = 0; m < MEMORY_COUNT; m++)
		if (opts->memories & 1u << m && !is_anonymous(m))
			return true;
	return false;
}

bool stress_can(const struct stress_options *opts, char ret_why[static 200])
{
	struct uffd_probe p;
	bool ok = true;

	uffd_probe(&p);
	if (p.error < 0) {
		snprintf(ret_why, 200, "%.199s", p.error_text);
		return false;
	}
	for (unsigned m = 0; ok && m < MEMORY_COUNT; m++) {
		if (!(opts->memories & 1u << m))
			continue;
		for (unsigned i = 0; ok && i < 3; i++)
			ok = has(&p, memory_needs[m].needs[i], ret_why);
		if (ok && (m == MEMORY_HUGE_2M || m == MEMORY_HUGE_1G))
			ok = has_pool(opts, (enum stress_memory)m, ret_why);
	}
	for (unsigned place = 0; ok && place < PLACE_COUNT; place++)
		if (opts->places & 1u << place)
			ok = fits(opts, (enum stress_place)place, ret_why);
	if (ok && opts->places & 1u << PLACE_MOVE)
		ok = has(&p, "move", ret_why);
	for (unsigned e = 0; ok && e < EVENT_COUNT; e++)
		if (opts->event_rate[e] > 0)
			ok = has(&p, event_needs[e], ret_why);
	if (ok && opts->own_faults > 0)
		ok = has(&p, "sigbus", ret_why);
	if (ok && opts->own_faults > 0 && !has_file_memory(opts)) {
		snprintf(ret_why, 200, "anonymous memory is there once: there is no engine view of it to touch");
		ok = false;
	}
	return ok && (!opts->kvm || (kvm_can(ret_why) && has(&p, "kernel-faults", ret_why)));
}
