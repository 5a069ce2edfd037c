#include "base/log.h"

#include "base/clock.h"
#include "base/text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

static void write_line(const struct log *log, enum log_level level, const char *fmt, va_list ap)
{
	char line[LOG_LINE_BYTES];

	vsnprintf(line, sizeof(line), fmt, ap);
	text_defuse(line, sizeof(line));
	log->write(log->opaque, level, line);
}

static bool is_heard(const struct log *log, enum log_level level)
{
	return log->write && level <= log->level_max;
}

void log_write(const struct log *log, enum log_level level, const char *fmt, ...)
{
	va_list ap;

	if (!is_heard(log, level))
		return;
	va_start(ap, fmt);
	write_line(log, level, fmt, ap);
	va_end(ap);
}

static void sum_up(const struct log *log, enum log_topic topic)
{
	int level;
	uint64_t lines = log_limit_sum(log->limit, topic, &level);

	if (lines > 0)
		log_write(log, (enum log_level)level, "%s: %" PRIu64 " more lines like this were not logged",
		          log_topic_name(topic), lines);
}

void log_often(const struct log *log, enum log_topic topic, enum log_level level, const char *fmt, ...)
{
	va_list ap;

	if (!is_heard(log, level))
		return;
	if (log->limit) {
		if (!log_limit_pass(log->limit, topic, level, clock_now_ns()))
			return;
		sum_up(log, topic);
	}
	va_start(ap, fmt);
	write_line(log, level, fmt, ap);
	va_end(ap);
}

void log_held_back(const struct log *log)
{
	for (int topic = 0; log->limit && topic < LOG_TOPIC_COUNT; topic++)
		sum_up(log, (enum log_topic)topic);
}
