/*
 * tails.h - the captured device states of this folder, for the unit tests (see make-tails)
 *
 * TAILS_DIR in the environment names another folder, for example one made with make-tails --all.
 */
#ifndef TESTS_UNIT_DATA_TAILS_H
#define TESTS_UNIT_DATA_TAILS_H

#include <check.h>
#include <glob.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/devices/split.h"

struct tail {
	char path[512];
	uint8_t *buf; /* exactly as long as the data, so that ASan sees a step too far */
	size_t bytes;
	struct split_opts opts;
	struct split_handler early;
	char early_name[256];
};

static inline const char *tails_dir(void)
{
	static char dir[400];
	const char *src = getenv("TEST_SRCDIR");

	if (getenv("TAILS_DIR"))
		return getenv("TAILS_DIR");
	snprintf(dir, sizeof(dir), "%s/tests/unit/data", src ? src : ".");
	return dir;
}

static inline void tail_read_early(struct tail *t)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%.*s.early", (int)(strlen(t->path) - strlen(".tail")), t->path);
	f = fopen(path, "r");
	if (!f)
		return;
	ck_assert_int_eq(fscanf(f, "%u %u %zu %255s", &t->early.section_id, &t->early.instance_id, &t->early.body_bytes,
	                        t->early_name),
	                 4);
	fclose(f);
	t->early.name = t->early_name;
	t->opts.early = &t->early;
	t->opts.early_count = 1;
}

static inline struct tail *tail_read(const char *path)
{
	struct tail *t = calloc(1, sizeof(*t));
	FILE *f = fopen(path, "rb");
	long bytes;

	ck_assert_msg(t && f, "%s", path);
	snprintf(t->path, sizeof(t->path), "%s", path);
	fseek(f, 0, SEEK_END);
	bytes = ftell(f);
	ck_assert_int_gt(bytes, 0);
	rewind(f);
	t->bytes = (size_t)bytes;
	t->buf = malloc(t->bytes);
	ck_assert_ptr_nonnull(t->buf);
	ck_assert_uint_eq(fread(t->buf, 1, t->bytes, f), t->bytes);
	fclose(f);
	t->opts.footers = !strstr(path, "nofooter");
	tail_read_early(t);
	return t;
}

static inline void tail_free(struct tail *t)
{
	free(t->buf);
	free(t);
}

static inline struct tail *tail_named(const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", tails_dir(), name);
	return tail_read(path);
}

/* Calls @test with each file of that ending whose name does not say nodesc. */
static inline void for_each_tail(const char *ending, void (*test)(struct tail *t))
{
	char pattern[512];
	size_t seen = 0;
	glob_t g;

	snprintf(pattern, sizeof(pattern), "%s/*%s", tails_dir(), ending);
	ck_assert_msg(glob(pattern, 0, NULL, &g) == 0, "no %s", pattern);
	for (size_t i = 0; i < g.gl_pathc; i++) {
		struct tail *t;

		if (strstr(g.gl_pathv[i], "nodesc"))
			continue;
		t = tail_read(g.gl_pathv[i]);
		test(t);
		tail_free(t);
		seen++;
	}
	ck_assert_uint_gt(seen, 0);
	globfree(&g);
}

/* The section of that name and instance 0, or NULL. */
static inline const struct split_section *tail_section(const struct split_result *r, const uint8_t *buf,
                                                       const char *name)
{
	char buffer[256];

	for (size_t i = 0; i < r->section_count; i++)
		if (r->sections[i].instance_id == 0 && !strcmp(split_name(buffer, buf, &r->sections[i]), name))
			return &r->sections[i];
	return NULL;
}

/* What split_try_tail says to the whole, which must be "complete". */
static inline struct split_result tail_split(const struct tail *t)
{
	struct split_result r = SPLIT_RESULT_NONE;
	struct split_tail state = { 0 };
	struct err err = ERR_NONE;
	int got = split_try_tail(&state, &r, t->buf, t->bytes, &t->opts, &err);

	ck_assert_msg(got == 1, "%s: %d %s / %s", t->path, got, err.text, state.miss.text);
	return r;
}

#endif
