/*
 * settings.h - what one direction of the link does to packets, and how a person writes it
 *
 * The same words are options on the command line (--loss 50%) and commands at run time (loss 50%).
 */
#ifndef TESTS_NETEM_SETTINGS_H
#define TESTS_NETEM_SETTINGS_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* Chances are 0 to 1. */
struct settings {
	double loss;
	/* Gilbert-Elliott: p good to bad, r bad to good; h and k what is delivered in the bad and in the good state. */
	double burst_p, burst_r, burst_h, burst_k;
	double duplicate, corrupt, reorder;
	uint64_t delay_ns, jitter_ns;
	uint64_t rate_bits;   /* a second; 0: as fast as the machine */
	uint64_t queue_bytes; /* what may wait for the rate */
};

/* A window in which nothing comes through. */
struct blackout {
	uint64_t at_ns, for_ns;
};

#define BLACKOUTS_MAX 64

/** settings_default - a wire: everything passes at once */
struct settings settings_default(void);

/** settings_known - whether @name is one of these words, "loss", "delay", ... */
bool settings_known(const char *name);

/**
 * settings_set - one of them, from text
 * Return: 0 or -EINVAL; then @s is unchanged, and @err says what would be right.
 */
int settings_set(struct settings *s, const char *name, const char *text, struct err *err);

/** settings_check - what each setting cannot know alone. Return: 0 or -EINVAL. */
int settings_check(const struct settings *s, struct err *err);

/**
 * blackouts_parse - "FOR", "AT+FOR", or several with commas
 * @list: BLACKOUTS_MAX of them
 * Return: how many, or -EINVAL.
 */
int blackouts_parse(const char *text, struct blackout *list, struct err *err);

#endif
