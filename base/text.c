#include "base/text.h"

#include <stdio.h>
#include <string.h>

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
		if (in[i] < 0x20 || in[i] > 0x7e || in[i] == '\'' || in[i] == '"' || in[i] == '\\')
			out += (size_t)sprintf(buf + out, "\\x%02x", in[i]);
		else
			buf[out++] = (char)in[i];
	}
	buf[out] = '\0';
	return buf;
}
