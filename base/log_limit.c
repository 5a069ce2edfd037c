#include "base/log_limit.h"

#include "base/clock.h"

static uint32_t burst_of(enum log_topic topic)
{
	return topic == LOG_CHANNELS ? LOG_BURST_CHANNELS : LOG_BURST;
}

static void refill(struct log_meter *m, uint32_t burst, uint64_t now_ns)
{
	uint64_t seconds = now_ns > m->since_ns ? (now_ns - m->since_ns) / NS_PER_S : 0;

	if (m->since_ns == 0 || seconds >= burst - m->lines) {
		m->lines = burst;
		m->since_ns = now_ns;
		return;
	}
	m->lines += (uint32_t)seconds;
	m->since_ns += seconds * NS_PER_S;
}

bool log_limit_pass(struct log_limit *limit, enum log_topic topic, int level, uint64_t now_ns)
{
	struct log_meter *m = &limit->meters[topic];

	refill(m, burst_of(topic), now_ns);
	if (m->lines > 0) {
		m->lines--;
		return true;
	}
	if (m->held_back == 0 || level < m->level)
		m->level = level;
	m->held_back++;
	return false;
}

uint64_t log_limit_sum(struct log_limit *limit, enum log_topic topic, int *ret_level)
{
	struct log_meter *m = &limit->meters[topic];
	uint64_t held_back = m->held_back;

	*ret_level = m->level;
	m->held_back = 0;
	return held_back;
}

const char *log_topic_name(enum log_topic topic)
{
	static const char *const names[] = {
		[LOG_CONNECTIONS] = "connections", [LOG_CHANNELS] = "channels", [LOG_RECOVERIES] = "recoveries",
		[LOG_LOSSES] = "losses",           [LOG_STREAM] = "stream",     [LOG_FAULTS] = "faults",
	};

	return names[topic];
}
