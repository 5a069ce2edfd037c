/*
 * report.h - how a migration went: for people, and as JSON
 */
#ifndef PROGRAMS_REPORT_H
#define PROGRAMS_REPORT_H

#include "inmigrate.h"
#include "programs/guest_ram.h"

void report_print(const struct inm *inm, const struct guest_ram *ram);

/** report_write - --stats FILE. Return: 0, or -1 after saying why. */
int report_write(const struct inm *inm, const struct guest_ram *ram, const char *path);

#endif
