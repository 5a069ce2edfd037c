/* What stands after "touch=" in --guest: touch_parse of touch.h. */
#include "programs/guest/touch.h"

#include "base/parse.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const pattern_names[] = {
	[TOUCH_SEQ] = "seq", [TOUCH_STRIDE] = "stride", [TOUCH_RANDOM] = "random", [TOUCH_HOT] = "hot"
};

static const char *const access_names[] = { [TOUCH_READ] = "read", [TOUCH_WRITE] = "write", [TOUCH_MIXED] = "mixed" };

const char *touch_pattern_name(enum touch_pattern pattern)
{
	return pattern_names[pattern];
}

const char *touch_access_name(enum touch_access access)
{
	return access_names[access];
}

static int parse_pattern(struct touch_options *o, const char *value)
{
	int found;

	if (strncmp(value, "stride:", 7) == 0) {
		o->pattern = TOUCH_STRIDE;
		if (parse_size(value + 7, &o->stride_bytes) < 0 || o->stride_bytes == 0 ||
		    o->stride_bytes % TOUCH_PAGE_BYTES)
			return -EINVAL;
		return 0;
	}
	found = parse_name(value, pattern_names, 4);
	if (found < 0 || found == TOUCH_STRIDE)
		return -EINVAL;
	o->pattern = (enum touch_pattern)found;
	return 0;
}

static int parse_access(struct touch_options *o, const char *value)
{
	int found = parse_name(value, access_names, 3);

	if (found < 0)
		return -EINVAL;
	o->access = (enum touch_access)found;
	return 0;
}

static int parse_block(struct touch_options *o, const char *value)
{
	if (!*value || strlen(value) >= sizeof(o->block))
		return -EINVAL;
	strcpy(o->block, value);
	return 0;
}

static int parse_seconds(struct touch_options *o, const char *value)
{
	char *end;
	double seconds = strtod(value, &end);

	if (*end || end == value || !(seconds > 0) || seconds > 1e9)
		return -EINVAL;
	o->duration_ns = (uint64_t)(seconds * 1e9);
	return o->duration_ns ? 0 : -EINVAL;
}

static int parse_seed(struct touch_options *o, const char *value)
{
	return parse_u64(value, &o->seed);
}

static int parse_span(struct touch_options *o, const char *value)
{
	return parse_size(value, &o->span_bytes) < 0 || o->span_bytes < TOUCH_PAGE_BYTES ? -EINVAL : 0;
}

static int parse_passes(struct touch_options *o, const char *value)
{
	return parse_u64(value, &o->passes) < 0 || o->passes == 0 ? -EINVAL : 0;
}

static const struct {
	const char *name;
	int (*parse)(struct touch_options *o, const char *value);
	const char *expected;
} settings[] = {
	{ "pattern", parse_pattern, "seq, stride:BYTES (whole pages), random or hot" },
	{ "access", parse_access, "read, write or mixed" },
	{ "block", parse_block, "the name of a RAM block" },
	{ "seconds", parse_seconds, "a number of seconds above 0" },
	{ "seed", parse_seed, "a number" },
	{ "span", parse_span, "a size of at least a page" },
	{ "passes", parse_passes, "a number above 0" },
};

static int parse_setting(struct touch_options *o, char *word, char ret_why[static 160])
{
	char *value = strchr(word, '=');

	if (value)
		*value++ = '\0';
	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
		if (strcmp(word, settings[i].name))
			continue;
		if (value && settings[i].parse(o, value) == 0)
			return 0;
		snprintf(ret_why, 160, "%s: %s is expected", settings[i].name, settings[i].expected);
		return -EINVAL;
	}
	snprintf(ret_why, 160, "there is no '%.40s'; pattern, access, block, seconds, seed, span or passes is expected",
	         word);
	return -EINVAL;
}

int touch_parse(struct touch_options *ret_opts, const char *text, char ret_why[static 160])
{
	struct touch_options o = { .pattern = TOUCH_RANDOM, .access = TOUCH_MIXED, .seed = 1 };
	char *copy = strdup(text), *save = NULL, *word;
	uint64_t threads = 0;
	int r = 0;

	if (!copy) {
		snprintf(ret_why, 160, "no memory");
		return -EINVAL;
	}
	word = strtok_r(copy, ",", &save);
	if (!word || parse_u64(word, &threads) < 0 || threads == 0 || threads > TOUCH_THREADS_MAX) {
		snprintf(ret_why, 160, "a number of threads from 1 to %u is expected", TOUCH_THREADS_MAX);
		r = -EINVAL;
	}
	o.threads = (unsigned)threads;
	while (r == 0 && (word = strtok_r(NULL, ",", &save)))
		r = parse_setting(&o, word, ret_why);
	free(copy);
	if (r == 0)
		*ret_opts = o;
	return r;
}
