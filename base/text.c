#include "base/text.h"

#include "base/assert.h"

#include <string.h>

static const char hex[] = "0123456789abcdef";

static bool is_plain(unsigned char c)
{
	return c >= 0x20 && c <= 0x7e;
}

static void put_escape(char out[static 4], unsigned char c)
{
	out[0] = '\\';
	out[1] = 'x';
	out[2] = hex[c >> 4];
	out[3] = hex[c & 15];
}

const char *text_quote(char buf[static TEXT_QUOTE_BYTES], const void *bytes, size_t len)
{
	const unsigned char *in = bytes;
	size_t out = 0;

	for (size_t i = 0; i < len; i++) {
		/* Room for the longest escape, the dots and the NUL. */
		if (out + 4 + 3 + 1 > TEXT_QUOTE_BYTES) {
			memcpy(buf + out, "...", 3);
			out += 3;
			break;
		}
		if (is_plain(in[i]) && in[i] != '\'' && in[i] != '"' && in[i] != '\\') {
			buf[out++] = (char)in[i];
			continue;
		}
		put_escape(buf + out, in[i]);
		out += 4;
	}
	buf[out] = '\0';
	return buf;
}

bool text_defuse(char *line, size_t bytes)
{
	char copy[TEXT_LINE_BYTES];
	size_t out = 0, in = 0;

	while (is_plain((unsigned char)line[in]))
		in++;
	if (!line[in])
		return false;
	ASSERT(bytes <= sizeof(copy));
	memcpy(copy, line, bytes);
	for (out = in; copy[in] && out + 4 < bytes; in++) {
		if (is_plain((unsigned char)copy[in])) {
			line[out++] = copy[in];
			continue;
		}
		put_escape(line + out, (unsigned char)copy[in]);
		out += 4;
	}
	line[out] = '\0';
	return true;
}
