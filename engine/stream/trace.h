/*
 * trace.h - shows a stream's elements as they are read, to those that want to see them
 */
#ifndef ENGINE_STREAM_TRACE_H
#define ENGINE_STREAM_TRACE_H

#include <stdint.h>

struct trace {
	/* NULL: nobody is looking, and nothing is formatted. */
	void (*line)(void *opaque, uint64_t stream_offset, int depth, const char *text);
	void *opaque;
};

void trace_line(const struct trace *trace, uint64_t off, int depth, const char *fmt, ...)
        __attribute__((format(printf, 4, 5)));

#define TRACE(trace, ...) \
	do { \
		if ((trace)->line) \
			trace_line((trace), __VA_ARGS__); \
	} while (0)

#endif
