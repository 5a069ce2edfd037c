#include "base/text.h"

#include <string.h>

static const char hex[] = "0123456789abcdef";

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
		if (in[i] >= 0x20 && in[i] <= 0x7e && in[i] != '\'' && in[i] != '"' && in[i] != '\\') {
			buf[out++] = (char)in[i];
			continue;
		}
		buf[out++] = '\\';
		buf[out++] = 'x';
		buf[out++] = hex[in[i] >> 4];
		buf[out++] = hex[in[i] & 15];
	}
	buf[out] = '\0';
	return buf;
}
