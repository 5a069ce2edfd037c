/*
 * made.h - device states made by hand, and what every way of splitting is measured by
 */
#ifndef TESTS_UNIT_DATA_MADE_H
#define TESTS_UNIT_DATA_MADE_H

#include <time.h>

#include "base/be.h"
#include "tests/unit/data/tails.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

struct out {
	uint8_t *p;
	size_t n, room;
};

static inline void put(struct out *o, const void *p, size_t n)
{
	while (o->room - o->n < n) {
		o->room = o->room ? 2 * o->room : 4096;
		o->p = realloc(o->p, o->room);
	}
	if (n)
		memcpy(o->p + o->n, p, n);
	o->n += n;
}

static inline void put8(struct out *o, unsigned v)
{
	put(o, &(uint8_t){ (uint8_t)v }, 1);
}

static inline void put16(struct out *o, unsigned v)
{
	put8(o, v >> 8);
	put8(o, v & 255);
}

static inline void put32(struct out *o, uint32_t v)
{
	uint8_t b[4];

	be32_store(b, v);
	put(o, b, 4);
}

static inline void head(struct out *o, unsigned type, uint32_t id, const char *name, uint32_t instance,
                        uint32_t version)
{
	put8(o, type);
	put32(o, id);
	put8(o, (unsigned)strlen(name));
	put(o, name, strlen(name));
	put32(o, instance);
	put32(o, version);
}

static inline void footer(struct out *o, uint32_t id)
{
	put8(o, 0x7e);
	put32(o, id);
}

static inline void full(struct out *o, uint32_t id, const char *name, uint32_t instance, const void *body, size_t n)
{
	head(o, 4, id, name, instance, 1);
	put(o, body, n);
	footer(o, id);
}

static inline void command(struct out *o, unsigned cmd, const void *payload, unsigned n)
{
	put8(o, 8);
	put16(o, cmd);
	put16(o, n);
	put(o, payload, n);
}

static inline void eof_and(struct out *o, const char *json)
{
	put8(o, 0);
	put8(o, 6);
	put32(o, (uint32_t)strlen(json));
	put(o, json, strlen(json));
}

#define DEV(name, instance, size) \
	"{\"name\": \"" name "\", \"instance_id\": " instance ", \"size\": " size \
	", \"fields\": [{\"name\": \"data\", \"size\": " size ", \"type\": \"buffer\"}]}"
#define TOP(devices) "{\"page_size\": 4096, \"devices\": [" devices "]}"

__attribute__((unused)) static const struct split_opts plain = { .footers = true };

static inline int try_all(struct out *o, const struct split_opts *opts, struct split_result *ret,
                          struct split_tail *state, struct err *err)
{
	uint8_t *copy = malloc(o->n);
	int r;

	memcpy(copy, o->p, o->n);
	r = split_try_tail(state, ret, copy, o->n, opts, err);
	free(copy);
	return r;
}

static inline double cpu_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static inline void check_result(const struct split_result *r, const uint8_t *buf, size_t bytes)
{
	size_t at = 0;

	for (size_t i = 0; i < r->section_count; i++) {
		const struct split_section *s = &r->sections[i];

		ck_assert_uint_ge(s->off, at);
		ck_assert_uint_eq(buf[s->off], 4);
		ck_assert_uint_eq(s->name_off, s->off + 6);
		ck_assert_uint_eq(s->body_off, s->name_off + s->name_bytes + 8);
		at = s->body_off + s->body_bytes;
		ck_assert_uint_le(at, bytes);
	}
	ck_assert_uint_le(r->eof_off, bytes);
}

static inline void same_sections(const struct split_result *a, const struct split_result *b)
{
	ck_assert_uint_eq(a->section_count, b->section_count);
	for (size_t i = 0; i < a->section_count; i++) {
		ck_assert_uint_eq(a->sections[i].off, b->sections[i].off);
		ck_assert_uint_eq(a->sections[i].body_off, b->sections[i].body_off);
		ck_assert_uint_eq(a->sections[i].body_bytes, b->sections[i].body_bytes);
		ck_assert_uint_eq(a->sections[i].section_id, b->sections[i].section_id);
		ck_assert_uint_eq(a->sections[i].version_id, b->sections[i].version_id);
	}
}

static inline uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static inline void took(const char *what, double start, double limit_s)
{
	double s = cpu_s() - start;

	if (getenv("SHOW_TIMES"))
		printf("%s: %.1f ms\n", what, s * 1e3);
	ck_assert_msg(s < limit_s, "%s took %.3f s", what, s);
}

#endif
