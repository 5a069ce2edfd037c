/*
 * log.h - what the library says, through the embedder's callback
 *
 * A library does not print. A failure is returned, not logged; a log line is for what went on anyway.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/log_limit.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

struct log {
	/* May be NULL: silence. @text is one line of printable ASCII without a newline, valid for the call. */
	void (*write)(void *opaque, enum log_level level, const char *text);
	void *opaque;
	enum log_level level_max; /* lines above it are not formatted at all */
	struct log_limit *limit;  /* not owned; of log_often. NULL: it has none */
};

void log_write(const struct log *log, enum log_level level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/** log_often - a line that somebody else can cause again and again: see log_limit.h */
void log_often(const struct log *log, enum log_topic topic, enum log_level level, const char *fmt, ...)
        __attribute__((format(printf, 4, 5)));

/** log_held_back - what log_often has held back is summed up, once nothing more will come */
void log_held_back(const struct log *log);

#define log_warn(log, ...) log_write((log), LOG_WARN, __VA_ARGS__)
#define log_info(log, ...) log_write((log), LOG_INFO, __VA_ARGS__)

#endif
