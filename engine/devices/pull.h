/*
 * pull.h - JSON of a stranger, read piece by piece
 *
 * The caller asks for what must come next and says what it does not want; there is no tree. It is stricter than JSON
 * where that costs nothing: strings are valid UTF-8 without a NUL, numbers asked for are non-negative integers.
 *
 * All functions return 0 (or what they say), -EPROTO with the offset in the text, -E2BIG nested too deep, or -ENOMEM.
 * Parks: pull_more does, where p->sched is set: -ECANCELED, which stays pending (turn_spend_pending).
 */
#ifndef ENGINE_DEVICES_PULL_H
#define ENGINE_DEVICES_PULL_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Objects and arrays within each other: real descriptions have about 20. All of them need some 30 KiB of stack. */
#define PULL_DEPTH_MAX 128

/*
 * Memory for a byte of text. A field in its shortest form, 30 bytes of text, takes 112; everything else takes less.
 * What a caller takes beyond that is refused, so that it cannot come to more by mistake.
 */
#define PULL_MULTIPLE 5
#define PULL_CHUNK_BYTES 65536u

/* Keys that are longer are none that anybody asks for; what is kept of them is cut. */
#define PULL_KEY_BYTES_MAX 31

struct pull_chunk;
struct sched;

struct pull {
	const char *text;
	size_t bytes, at;
	unsigned depth;
	struct pull_chunk *chunks; /* owned by the caller: pull_free */
	size_t taken_bytes;
	char key[PULL_KEY_BYTES_MAX + 1];
	struct err *err;
	struct sched *sched; /* whose turns the work is; NULL: nobody's */
	size_t spent_at;     /* up to here it was spent */
};

struct pull_str {
	const char *s; /* NUL-terminated, no NUL inside; lives until pull_free */
	size_t bytes;
};

#define PULL_FAIL(p, fmt, ...) \
	err_set((p)->err, -EPROTO, "description at 0x%zx: " fmt, (p)->at __VA_OPT__(, ) __VA_ARGS__)

int pull_no_memory(struct pull *p);

/** pull_take - zeroed memory that lives until pull_free; NULL without, and beyond PULL_MULTIPLE */
void *pull_take(struct pull *p, size_t bytes);
void pull_free(struct pull_chunk *chunks);

/** pull_peek - the next byte that is not white space, -1 at the end. A zero byte is never white space. */
int pull_peek(struct pull *p);
int pull_expect(struct pull *p, char want);

/** pull_enter - the brace or bracket that opens; pull_more after it returns 0 when it is closed */
int pull_enter(struct pull *p, char open);

/** pull_more - before each element. @first: true before the first call. Return: 1 there is one, 0 it was the end. */
int pull_more(struct pull *p, bool *first, char close);

int pull_string(struct pull *p, struct pull_str *ret);
int pull_number(struct pull *p, uint64_t max, uint64_t *ret);

/** pull_key - a string and the colon after it. It lives until the next one is read, also one inside its value. */
int pull_key(struct pull *p, struct pull_str *ret);

/** pull_skip - one value of any kind */
int pull_skip(struct pull *p);

#endif
