#include "base/parse.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* The value of a digit in any base up to 16, or 16. By hand: strtoull takes signs and white space, and isdigit depends
 * on the locale of the embedder. */
static unsigned digit_value(char c)
{
	if (c >= '0' && c <= '9')
		return (unsigned)(c - '0');
	if (c >= 'a' && c <= 'f')
		return (unsigned)(c - 'a') + 10;
	if (c >= 'A' && c <= 'F')
		return (unsigned)(c - 'A') + 10;
	return 16;
}

/* Reads digits from *@text on and moves it after the last. An overlong number is read to its end, so that the caller
 * can tell "too large" from "not a number at all". */
static int scan_u64(const char **text, uint64_t *ret_value)
{
	const char *p = *text;
	unsigned base = 10;
	uint64_t value = 0;
	bool overflow = false;

	if (p[0] == '0' && (p[1] == 'x' || p[1] == 'X')) {
		base = 16;
		p += 2;
	}
	if (digit_value(*p) >= base)
		return -EINVAL;
	for (; digit_value(*p) < base; p++) {
		overflow |= __builtin_mul_overflow(value, (uint64_t)base, &value);
		overflow |= __builtin_add_overflow(value, (uint64_t)digit_value(*p), &value);
	}
	*text = p;
	*ret_value = value;
	return overflow ? -ERANGE : 0;
}

int parse_u64(const char *text, uint64_t *ret_value)
{
	uint64_t value;
	int r = scan_u64(&text, &value);

	if (r == -EINVAL || *text)
		return -EINVAL;
	if (r == 0)
		*ret_value = value;
	return r;
}

int parse_size(const char *text, uint64_t *ret_bytes)
{
	static const char suffixes[] = "bkmgtpe"; /* each 1024 times the one before */
	const char *suffix;
	uint64_t value;
	unsigned shift = 0;
	int r = scan_u64(&text, &value);

	if (r == -EINVAL)
		return r;
	if (*text) {
		char lower = *text >= 'A' && *text <= 'Z' ? (char)(*text + ('a' - 'A')) : *text;

		suffix = strchr(suffixes, lower);
		if (!suffix || text[1])
			return -EINVAL;
		shift = 10 * (unsigned)(suffix - suffixes);
	}
	if (r < 0 || value > UINT64_MAX >> shift)
		return -ERANGE;
	*ret_bytes = value << shift;
	return 0;
}

int parse_on_off(const char *text, bool *ret_on)
{
	static const char *const words[][2] = {
		{ "off", "on" },
		{ "no", "yes" },
		{ "false", "true" },
		{ "n", "y" },
	};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		for (int on = 0; on < 2; on++) {
			if (!strcmp(text, words[i][on])) {
				*ret_on = on;
				return 0;
			}
		}
	}
	return -EINVAL;
}

int parse_name(const char *text, const char *const *names, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (strcmp(text, names[i]) == 0)
			return (int)i;
	return -EINVAL;
}

int parse_uuid(const char *text, uint8_t ret_uuid[static 16])
{
	uint8_t uuid[16];

	for (unsigned i = 0; i < 16; i++) {
		unsigned high, low;

		/* Dashes stand before bytes 4, 6, 8 and 10. */
		if ((i == 4 || i == 6 || i == 8 || i == 10) && *text++ != '-')
			return -EINVAL;
		high = digit_value(text[0]);
		if (high > 15)
			return -EINVAL;
		low = digit_value(text[1]);
		if (low > 15)
			return -EINVAL;
		uuid[i] = (uint8_t)(high << 4 | low);
		text += 2;
	}
	if (*text)
		return -EINVAL;
	memcpy(ret_uuid, uuid, sizeof(uuid));
	return 0;
}
