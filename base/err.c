#include "base/err.h"

#include "base/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *err, int code, const char *fmt, ...)
{
	va_list ap;

	err->code = code;
	err->text[0] = '\0';
	if (code == -ECANCELED)
		return code; /* by (2) */
	va_start(ap, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	text_defuse(err->text, sizeof(err->text));
	return code;
}

int err_up(struct err *err, int code, const char *fmt, ...)
{
	char context[160];
	size_t context_bytes, text_bytes;
	va_list ap;

	err->code = code;
	if (code == -ECANCELED) {
		err->text[0] = '\0'; /* by (2) */
		return code;
	}
	va_start(ap, fmt);
	vsnprintf(context, sizeof(context) - 2, fmt, ap);
	va_end(ap);
	text_defuse(context, sizeof(context) - 2);
	strcat(context, ": ");

	context_bytes = strlen(context);
	text_bytes = strlen(err->text);
	/* By (3): when both do not fit, drop the front of the present text, the context nearest to us. */
	if (context_bytes + text_bytes >= sizeof(err->text)) {
		size_t keep = sizeof(err->text) - 1 - context_bytes;

		memmove(err->text + context_bytes, err->text + text_bytes - keep, keep + 1);
	} else {
		memmove(err->text + context_bytes, err->text, text_bytes + 1);
	}
	memcpy(err->text, context, context_bytes);
	return code;
}

const char *err_name(int code)
{
	const char *name = strerrorname_np(-code);

	return name ? name : "unknown error";
}
