/*
 * document.h - what is written for programs to read: JSON, by jansson
 */
#ifndef PROGRAMS_CLI_DOCUMENT_H
#define PROGRAMS_CLI_DOCUMENT_H

#include "programs/cli/out_file.h"

#include <jansson.h>
#include <stdint.h>

/* A count, and a time in microseconds. */
json_t *document_count(uint64_t n);
double document_us(uint64_t ns);

/** document_write - @doc, NULL where there was no memory for it. Return: 0, or a negative errno after saying why. */
int document_write(const json_t *doc, struct out_file *file);

#endif
