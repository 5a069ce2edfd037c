/*
 * census.h - what this process holds, to compare before and after
 *
 * A census lists descriptors with what they point to, mappings by name and size, and threads by name. Of the private
 * nameless mappings it lists only those without any access, which guard stacks: the others belong to the allocator, and
 * come and go. Workers of the ring (iou-wrk-*, iou-sqp-*) are threads of the process and end a moment after their ring,
 * so census_take waits for them.
 */
#ifndef TESTS_SUPPORT_CENSUS_H
#define TESTS_SUPPORT_CENSUS_H

#include <stdbool.h>
#include <stddef.h>

#define CENSUS_LINES_MAX 512

struct census {
	unsigned count;
	char *lines[CENSUS_LINES_MAX]; /* sorted; owned */
	bool overflowed;               /* more than fit */
};

void census_take(struct census *ret_census);
void census_free(struct census *c);

/* Return: the number of differences; each is printed to stderr as "+ fd 7 -> socket:[123]" or "- ...". */
unsigned census_compare(const struct census *before, const struct census *after);

/* Take one now and compare it with @before. Return: as census_compare. */
unsigned census_differs(const struct census *before);

/* Kilobytes resident (VmRSS). */
size_t census_rss_kib(void);

#endif
