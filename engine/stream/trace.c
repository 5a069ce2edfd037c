#include "engine/stream/trace.h"

#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>

void trace_line(const struct trace *trace, uint64_t off, int depth, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	text_defuse(text, sizeof(text));
	trace->line(trace->opaque, off, depth, text);
}
