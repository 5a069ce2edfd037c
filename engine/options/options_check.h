/*
 * options_check.h - what capabilities and parameters ask of each other
 */
#ifndef ENGINE_OPTIONS_OPTIONS_CHECK_H
#define ENGINE_OPTIONS_OPTIONS_CHECK_H

struct err;
struct options;

/**
 * options_check - does everything fit together?
 * Return: 0; -EINVAL, the text names the options and their conflict; -ENOTSUP: they are those of a stream that cannot
 * be landed.
 * Source: doc/wire/control.md 4
 */
int options_check(const struct options *opts, struct err *err);

#endif
