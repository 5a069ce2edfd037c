#include "engine/stream/json_pull.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coroutine/turn.h"

/* What was taken lives until json_pull_free: no need to free one alone. */
struct json_pull_chunk {
	struct json_pull_chunk *next;
	size_t used, bytes;
	_Alignas(16) unsigned char data[];
};

int json_pull_no_memory(struct json_pull *p)
{
	return err_set(p->err, -ENOMEM, "description: no memory, or more than %u times its text is needed",
	               JSON_PULL_MULTIPLE);
}

void *json_pull_take(struct json_pull *p, size_t bytes)
{
	struct json_pull_chunk *c = p->chunks;

	bytes = (bytes + 15) & ~(size_t)15;
	if (bytes > JSON_PULL_CHUNK_BYTES + JSON_PULL_MULTIPLE * p->bytes - p->taken_bytes)
		return NULL;
	if (!c || c->bytes - c->used < bytes) {
		size_t room = bytes > JSON_PULL_CHUNK_BYTES ? bytes : JSON_PULL_CHUNK_BYTES;

		c = malloc(sizeof(*c) + room);
		if (!c)
			return NULL;
		c->next = p->chunks;
		c->used = 0;
		c->bytes = room;
		p->chunks = c;
	}
	memset(c->data + c->used, 0, bytes);
	c->used += bytes;
	p->taken_bytes += bytes;
	return c->data + c->used - bytes;
}

/* Where json_pull_take stands: what was taken since can be given back. */
struct mark {
	struct json_pull_chunk *chunk;
	size_t used, taken_bytes;
};

static struct mark set_mark(const struct json_pull *p)
{
	return (struct mark){ p->chunks, p->chunks ? p->chunks->used : 0, p->taken_bytes };
}

static void give_back(struct json_pull *p, struct mark m)
{
	while (p->chunks != m.chunk) {
		struct json_pull_chunk *c = p->chunks;

		p->chunks = c->next;
		free(c);
	}
	if (m.chunk)
		m.chunk->used = m.used;
	p->taken_bytes = m.taken_bytes;
}

int json_pull_peek(struct json_pull *p)
{
	while (p->at < p->bytes) {
		char ch = p->text[p->at];

		if (ch != ' ' && ch != '\t' && ch != '\n' && ch != '\r')
			return (unsigned char)ch;
		p->at++;
	}
	return -1;
}

int json_pull_expect(struct json_pull *p, char want)
{
	if (json_pull_peek(p) != (unsigned char)want)
		return JSON_PULL_FAIL(p, "'%c' expected", want);
	p->at++;
	return 0;
}

int json_pull_enter(struct json_pull *p, char open)
{
	int r = json_pull_expect(p, open);

	if (r < 0)
		return r;
	if (++p->depth > JSON_PULL_DEPTH_MAX)
		return err_set(p->err, -E2BIG, "description at 0x%zx: nested deeper than %d", p->at,
		               JSON_PULL_DEPTH_MAX);
	return 0;
}

int json_pull_more(struct json_pull *p, bool *first, char close)
{
	int ch = json_pull_peek(p), r = turn_spend_pending(p->sched, TURN_STEP + 8 * (p->at - p->spent_at));

	if (r < 0)
		return r;
	p->spent_at = p->at;
	if (ch == (unsigned char)close) {
		p->at++;
		p->depth--;
		return 0;
	}
	if (!*first) {
		r = json_pull_expect(p, ',');
		if (r < 0)
			return r;
	}
	*first = false;
	return 1;
}

static int hex4(struct json_pull *p, uint32_t *ret)
{
	uint32_t v = 0;

	if (p->bytes - p->at < 4)
		return JSON_PULL_FAIL(p, "the text ends inside a string");
	for (int i = 0; i < 4; i++) {
		char ch = p->text[p->at++];

		if (ch >= '0' && ch <= '9')
			v = v << 4 | (uint32_t)(ch - '0');
		else if ((ch | 32) >= 'a' && (ch | 32) <= 'f')
			v = v << 4 | (uint32_t)((ch | 32) - 'a' + 10);
		else
			return JSON_PULL_FAIL(p, "not a hexadecimal digit");
	}
	*ret = v;
	return 0;
}

static size_t utf8_put(char *out, uint32_t v)
{
	if (v < 0x80) {
		out[0] = (char)v;
		return 1;
	}
	if (v < 0x800) {
		out[0] = (char)(0xc0 | v >> 6);
		out[1] = (char)(0x80 | (v & 63));
		return 2;
	}
	if (v < 0x10000) {
		out[0] = (char)(0xe0 | v >> 12);
		out[1] = (char)(0x80 | (v >> 6 & 63));
		out[2] = (char)(0x80 | (v & 63));
		return 3;
	}
	out[0] = (char)(0xf0 | v >> 18);
	out[1] = (char)(0x80 | (v >> 12 & 63));
	out[2] = (char)(0x80 | (v >> 6 & 63));
	out[3] = (char)(0x80 | (v & 63));
	return 4;
}

static int unescape_unicode(struct json_pull *p, char *out, size_t *out_bytes)
{
	uint32_t v = 0, low = 0;
	int r = hex4(p, &v);

	if (r < 0)
		return r;
	if (v >= 0xd800 && v < 0xdc00) {
		if (p->bytes - p->at < 2 || memcmp(p->text + p->at, "\\u", 2))
			return JSON_PULL_FAIL(p, "half a surrogate pair");
		p->at += 2;
		r = hex4(p, &low);
		if (r < 0)
			return r;
		if (low < 0xdc00 || low > 0xdfff)
			return JSON_PULL_FAIL(p, "half a surrogate pair");
		v = 0x10000 + ((v - 0xd800) << 10) + (low - 0xdc00);
	} else if (v >= 0xdc00 && v < 0xe000) {
		return JSON_PULL_FAIL(p, "half a surrogate pair");
	}
	if (v == 0)
		return JSON_PULL_FAIL(p, "a string with a NUL");
	*out_bytes += utf8_put(out + *out_bytes, v);
	return 0;
}

/* After the backslash. An escape is never longer than what it stands for: \u takes 6 bytes for at most 3. */
static int unescape(struct json_pull *p, char *out, size_t *out_bytes)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *found;
	char ch;

	if (p->at >= p->bytes)
		return JSON_PULL_FAIL(p, "the text ends inside a string");
	ch = p->text[p->at++];
	if (ch == 'u')
		return unescape_unicode(p, out, out_bytes);
	found = ch ? strchr(from, ch) : NULL;
	if (!found)
		return JSON_PULL_FAIL(p, "unknown escape");
	out[(*out_bytes)++] = to[found - from];
	return 0;
}

/* Length of the UTF-8 sequence at @s, 0 when there is none that is valid. */
static size_t utf8_len(const unsigned char *s, size_t bytes)
{
	size_t n = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : (s[0] & 0xf0) == 0xe0 ? 3 : 4;
	uint32_t v;

	if (n == 1)
		return 1;
	if (n > bytes || (n == 4 && (s[0] < 0xf0 || s[0] > 0xf4)))
		return 0;
	v = s[0] & (0x7fu >> n);
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		v = v << 6 | (s[i] & 63);
	}
	if ((n == 3 && (v < 0x800 || (v >= 0xd800 && v < 0xe000))) || (n == 4 && (v < 0x10000 || v > 0x10ffff)))
		return 0;
	return n;
}

/* The string's length in the text, up to its closing quote, and its bytes checked. */
static int string_span(struct json_pull *p, size_t *ret_bytes)
{
	size_t at = p->at;

	while (at < p->bytes && p->text[at] != '"') {
		const unsigned char *s = (const unsigned char *)p->text + at;
		size_t n = utf8_len(s, p->bytes - at);

		if (*s < 0x20 || n == 0) {
			p->at = at;
			return JSON_PULL_FAIL(p, "a string with the byte 0x%02x", *s);
		}
		at += *s == '\\' && at + 1 < p->bytes ? 2 : n;
	}
	if (at >= p->bytes)
		return JSON_PULL_FAIL(p, "the text ends inside a string");
	*ret_bytes = at - p->at;
	return 0;
}

int json_pull_string(struct json_pull *p, struct json_pull_str *ret)
{
	size_t span = 0, end, n = 0;
	char *out;
	int r;

	r = json_pull_expect(p, '"');
	if (r < 0)
		return r;
	r = string_span(p, &span);
	if (r < 0)
		return r;
	out = json_pull_take(p, span + 1);
	if (!out)
		return json_pull_no_memory(p);
	end = p->at + span;
	while (p->at < end) {
		char ch = p->text[p->at++];

		if (ch != '\\') {
			out[n++] = ch;
			continue;
		}
		r = unescape(p, out, &n);
		if (r < 0)
			return r;
	}
	p->at = end + 1;
	*ret = (struct json_pull_str){ out, n };
	return 0;
}

static bool digit_at(const struct json_pull *p)
{
	return p->at < p->bytes && p->text[p->at] >= '0' && p->text[p->at] <= '9';
}

int json_pull_number(struct json_pull *p, uint64_t max, uint64_t *ret)
{
	uint64_t v = 0;
	int ch = json_pull_peek(p);

	if (ch == '-')
		return JSON_PULL_FAIL(p, "a negative number");
	if (!digit_at(p))
		return JSON_PULL_FAIL(p, "a number expected");
	if (ch == '0' && p->at + 1 < p->bytes && p->text[p->at + 1] >= '0' && p->text[p->at + 1] <= '9')
		return JSON_PULL_FAIL(p, "a number with a leading zero");
	while (digit_at(p)) {
		uint64_t digit = (uint64_t)(p->text[p->at] - '0');

		if (__builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, digit, &v))
			return JSON_PULL_FAIL(p, "a number above 2^64");
		p->at++;
	}
	if (p->at < p->bytes && (p->text[p->at] == '.' || (p->text[p->at] | 32) == 'e'))
		return JSON_PULL_FAIL(p, "a number that is no integer");
	if (v > max)
		return JSON_PULL_FAIL(p, "the number %llu is too large", (unsigned long long)v);
	*ret = v;
	return 0;
}

static int skip_digits(struct json_pull *p)
{
	if (!digit_at(p))
		return JSON_PULL_FAIL(p, "a digit expected");
	while (digit_at(p))
		p->at++;
	return 0;
}

static int skip_number(struct json_pull *p)
{
	int r;

	p->at += p->text[p->at] == '-';
	r = skip_digits(p);
	if (r == 0 && p->at < p->bytes && p->text[p->at] == '.') {
		p->at++;
		r = skip_digits(p);
	}
	if (r == 0 && p->at < p->bytes && (p->text[p->at] | 32) == 'e') {
		p->at++;
		if (p->at < p->bytes && (p->text[p->at] == '+' || p->text[p->at] == '-'))
			p->at++;
		r = skip_digits(p);
	}
	return r;
}

static int skip_word(struct json_pull *p)
{
	static const char *const words[] = { "true", "false", "null" };

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		size_t n = strlen(words[i]);

		if (p->bytes - p->at >= n && !memcmp(p->text + p->at, words[i], n)) {
			p->at += n;
			return 0;
		}
	}
	return JSON_PULL_FAIL(p, "a value expected");
}

int json_pull_key(struct json_pull *p, struct json_pull_str *ret)
{
	struct mark m = set_mark(p);
	int r = json_pull_string(p, ret);

	if (r < 0)
		return r;
	snprintf(p->key, sizeof(p->key), "%s", ret->s);
	*ret = (struct json_pull_str){ p->key, strlen(p->key) };
	give_back(p, m);
	return json_pull_expect(p, ':');
}

int json_pull_skip(struct json_pull *p)
{
	int ch = json_pull_peek(p), r;
	char close = ch == '{' ? '}' : ']';
	bool first = true;
	struct json_pull_str s;
	struct mark m;

	if (ch == '"') {
		m = set_mark(p);
		r = json_pull_string(p, &s);
		give_back(p, m);
		return r;
	}
	if (ch == '-' || (ch >= '0' && ch <= '9'))
		return skip_number(p);
	if (ch != '{' && ch != '[')
		return skip_word(p);
	r = json_pull_enter(p, (char)ch);
	while (r == 0 && (r = json_pull_more(p, &first, close)) > 0) {
		r = ch == '{' ? json_pull_key(p, &s) : 0;
		if (r == 0)
			r = json_pull_skip(p);
	}
	return r;
}

void json_pull_free(struct json_pull_chunk *chunks)
{
	while (chunks) {
		struct json_pull_chunk *c = chunks;

		chunks = c->next;
		free(c);
	}
}
