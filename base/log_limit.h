/*
 * log_limit.h - lines that others can cause are few
 *
 * A stranger can connect ten thousand times, a source can say the same nonsense with every five bytes, and a guest can
 * touch what is not there: with a line for each, the log would fill up. So a line that somebody else can cause again
 * and again belongs to a topic (log_often, log.h). A topic may say its burst, and then a line a second; what it does
 * not say is counted, and the sum is a line of its own before the next one, or at the end:
 *
 *   connections: 37 more lines like this were not logged
 *
 * Not here: errors that end a migration, changes of its state but for losses and returns, and all that happens once.
 * Those have no limit.
 * A connection says three lines about itself at most: that it waits, that it is closed, or what it is, and its end.
 */
#ifndef BASE_LOG_LIMIT_H
#define BASE_LOG_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

enum log_topic {
	LOG_CONNECTIONS, /* that are closed, turned away, or back too early */
	LOG_CHANNELS,    /* that are taken and end: an honest source has 255 */
	LOG_RECOVERIES,  /* that were tried and came to nothing */
	LOG_LOSSES,      /* of the network in postcopy, and returns: a source can come and go */
	LOG_STREAM,      /* what the source says and nobody heeds */
	LOG_FAULTS,      /* of the guest, in odd places */
	LOG_TOPIC_COUNT,
};

/* Lines of a topic at once; one a second comes back. */
#define LOG_BURST 30u
#define LOG_BURST_CHANNELS 600u

/* Bytes of all topics together in @seconds: no line is longer, and each may have a sum before it. */
#define LOG_LINE_BYTES 640u
#define LOG_LIMIT_BYTES(seconds) \
	(LOG_LINE_BYTES * (LOG_BURST_CHANNELS + (LOG_TOPIC_COUNT - 1) * LOG_BURST + 2 * LOG_TOPIC_COUNT * (seconds)))

/* Starts as zeros. */
struct log_limit {
	struct log_meter {
		uint64_t since_ns;  /* when the last line came back; 0: nothing was said yet */
		uint32_t lines;     /* that may be said now */
		uint64_t held_back; /* and not summed up yet */
		int level;          /* the most urgent of those, enum log_level */
	} meters[LOG_TOPIC_COUNT];
};

/** log_limit_pass - may a line be said? One that may not is counted. */
bool log_limit_pass(struct log_limit *limit, enum log_topic topic, int level, uint64_t now_ns);

/** log_limit_sum - lines that were held back since the last sum, 0 if none were; @ret_level: the most urgent one's */
uint64_t log_limit_sum(struct log_limit *limit, enum log_topic topic, int *ret_level);

/** log_topic_name - "connections" */
const char *log_topic_name(enum log_topic topic);

#endif
