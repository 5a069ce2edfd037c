/*
 * options_set.h - capabilities and parameters are set by QEMU's names, from text
 *
 * A setter that fails has changed nothing.
 */
#ifndef ENGINE_OPTIONS_OPTIONS_SET_H
#define ENGINE_OPTIONS_OPTIONS_SET_H

#include <stdbool.h>

struct err;
struct options;

/** options_init - everything at its default */
void options_init(struct options *ret_opts);

/**
 * options_set_capability - on or off; off is always right for a known name
 * Return: 0; -ENOENT unknown, the text has the name nearest to it; -ENOTSUP refused, the text says why.
 */
int options_set_capability(struct options *opts, const char *name, bool on, struct err *err);

/**
 * options_set_parameter - from text; every row's default is accepted for it, whatever its support
 * Return: as options_set_capability; -EINVAL not of the expected form, -ERANGE beyond the range; the text names both.
 */
int options_set_parameter(struct options *opts, const char *name, const char *value, struct err *err);

#endif
