/*
 * report.h - how a migration went: for people, and as JSON
 */
#ifndef PROGRAMS_REPORT_H
#define PROGRAMS_REPORT_H

#include "inmigrate.h"
#include "programs/guest_ram.h"
#include "programs/guest_touch.h"
#include "programs/out_file.h"

#include <stddef.h>
#include <stdint.h>

/* @touch: with 0 threads, nothing is said of it. */
void report_print(const struct inm *inm, const struct guest_ram *ram, const struct touch *touch);

/** report_write - --stats FILE. Return: 0, or a negative errno after saying why. */
int report_write(const struct inm *inm, const struct guest_ram *ram, const struct touch *touch, struct out_file *file);

/* "31.2 us"; @buf of 32 bytes. Return: @buf. */
const char *human_time(char buf[static 32], double ns);

/** report_histogram - @counts[i] took 2^i up to 2^(i+1) ns: a line each, from the first that holds something on */
void report_histogram(const uint64_t *counts, size_t buckets);

#endif
