#include "base/log.h"

#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>

void log_write(const struct log *log, enum log_level level, const char *fmt, ...)
{
	char line[640];
	va_list ap;

	if (!log->write || level > log->level_max)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	text_defuse(line, sizeof(line));
	log->write(log->opaque, level, line);
}
