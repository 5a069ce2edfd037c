/*
 * json_pull.h - JSON of a stranger, read piece by piece
 *
 * The caller asks for what must come next and says what it does not want; there is no tree. It is stricter than JSON
 * where that costs nothing: strings are valid UTF-8 without a NUL, numbers asked for are non-negative integers.
 *
 * A reader of our own, beside jansson, which only the program uses: measured with jansson 2.14 and the worst texts of
 * the 8 MiB that a description may have, json_loadb() takes 79 bytes of memory for each byte of text ([{},{},...]: 629
 * MiB), and up to 0.5 s of CPU time in one piece ({"0":0,"1":0,...}), as it cannot yield. The budgets (SECURITY.md) are
 * 6 bytes and 10 ms. Here it is at most JSON_PULL_MULTIPLE, and a turn given between any two values.
 *
 * All functions return 0 (or what they say), -EPROTO with the offset in the text, -E2BIG nested too deep, or -ENOMEM.
 * Parks: json_pull_more does, where p->sched is set: -ECANCELED, which stays pending (turn_spend_pending).
 */
#ifndef ENGINE_STREAM_JSON_PULL_H
#define ENGINE_STREAM_JSON_PULL_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Objects and arrays within each other: real descriptions have about 20. All of them need some 30 KiB of stack. */
#define JSON_PULL_DEPTH_MAX 128

/*
 * Memory for a byte of text. A field in its shortest form, 30 bytes of text, takes 112; everything else takes less.
 * What a caller takes beyond that is refused, so that it cannot come to more by mistake.
 */
#define JSON_PULL_MULTIPLE 5
#define JSON_PULL_CHUNK_BYTES 65536u

/* Keys that are longer are none that anybody asks for; what is kept of them is cut. */
#define JSON_PULL_KEY_BYTES_MAX 31

struct json_pull_chunk;
struct sched;

struct json_pull {
	const char *text;
	size_t bytes, at;
	unsigned depth;
	struct json_pull_chunk *chunks; /* owned by the caller: json_pull_free */
	size_t taken_bytes;
	char key[JSON_PULL_KEY_BYTES_MAX + 1];
	struct err *err;
	struct sched *sched; /* whose turns the work is; NULL: nobody's */
	size_t spent_at;     /* up to here it was spent */
};

struct json_pull_str {
	const char *s; /* NUL-terminated, no NUL inside; lives until json_pull_free */
	size_t bytes;
};

#define JSON_PULL_FAIL(p, fmt, ...) \
	err_set((p)->err, -EPROTO, "description at 0x%zx: " fmt, (p)->at __VA_OPT__(, ) __VA_ARGS__)

int json_pull_no_memory(struct json_pull *p);

/** json_pull_take - zeroed memory that lives until json_pull_free; NULL without, and beyond JSON_PULL_MULTIPLE */
void *json_pull_take(struct json_pull *p, size_t bytes);
void json_pull_free(struct json_pull_chunk *chunks);

/** json_pull_peek - the next byte that is not white space, -1 at the end. A zero byte is never white space. */
int json_pull_peek(struct json_pull *p);
int json_pull_expect(struct json_pull *p, char want);

/** json_pull_enter - the brace or bracket that opens; json_pull_more after it returns 0 when it is closed */
int json_pull_enter(struct json_pull *p, char open);

/** json_pull_more - before each element. @first: true before the first. Return: 1 there is one, 0 it was the end. */
int json_pull_more(struct json_pull *p, bool *first, char close);

int json_pull_string(struct json_pull *p, struct json_pull_str *ret);
int json_pull_number(struct json_pull *p, uint64_t max, uint64_t *ret);

/** json_pull_key - a string and the colon after it. It lives until the next one is read, also one inside its value. */
int json_pull_key(struct json_pull *p, struct json_pull_str *ret);

/** json_pull_skip - one value of any kind */
int json_pull_skip(struct json_pull *p);

#endif
