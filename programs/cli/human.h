/*
 * human.h - numbers as a person reads them
 */
#ifndef PROGRAMS_CLI_HUMAN_H
#define PROGRAMS_CLI_HUMAN_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* "12.3 MiB"; @buf of 32 bytes. Return: @buf. */
const char *human_bytes(char buf[static 32], double bytes);

/* "31.2 us"; @buf of 32 bytes. Return: @buf. */
const char *human_time(char buf[static 32], double ns);

/** human_histogram - @counts[i] took 2^i up to 2^(i+1) ns: a line each, from the first that holds something on */
void human_histogram(FILE *out, const uint64_t *counts, size_t buckets);

#endif
