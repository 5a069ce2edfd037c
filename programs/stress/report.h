/*
 * report.h - what a run found, for people and for programs
 */
#ifndef PROGRAMS_STRESS_REPORT_H
#define PROGRAMS_STRESS_REPORT_H

struct stress_options;
struct stress_result;

void stress_print(const struct stress_options *opts, const struct stress_result *r);

/* "memfd+anon, continue, 4 touchers, random, remove"; @buf of 200 bytes. Return: @buf. */
const char *stress_words(char buf[static 200], const struct stress_options *opts);

struct json_t;

/* The whole as a value of jansson; and written to a file, which takes @root away. Return: 0, or -1 after saying why. */
struct json_t *stress_json(const struct stress_options *opts, const struct stress_result *r);
int stress_dump(struct json_t *root, const char *path);
int stress_write_json(const struct stress_options *opts, const struct stress_result *r, const char *path);

#endif
