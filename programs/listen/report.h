/*
 * report.h - how a migration went: for people, and as JSON
 */
#ifndef PROGRAMS_LISTEN_REPORT_H
#define PROGRAMS_LISTEN_REPORT_H

#include "inmigrate.h"
#include "programs/cli/out_file.h"
#include "programs/guest/ram.h"
#include "programs/guest/touch.h"

/* @touch: with 0 threads, nothing is said of it. */
void report_print(const struct inm *inm, const struct guest_ram *ram, const struct touch *touch);

/** report_write - --stats FILE. Return: 0, or a negative errno after saying why. */
int report_write(const struct inm *inm, const struct guest_ram *ram, const struct touch *touch, struct out_file *file);

#endif
