#include "engine/stream/reply.h"

#include "base/assert.h"
#include "base/be.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/probe.h"
#include "engine/channel/channel.h"
#include "engine/stream/wire.h"

#include <errno.h>
#include <string.h>

void reply_init(struct reply *rp, struct sched *s, struct chan *ch)
{
	*rp = (struct reply){ .ch = ch };
	mutex_init(&rp->lock, s, "return path");
}

int reply_open(struct reply *rp, struct err *err)
{
	if (!rp->ch->can_write)
		return err_set(err, -EPROTO, "the source wants a return path, and %s has none", rp->ch->name);
	rp->open = true;
	return 0;
}

static int reply_send(struct reply *rp, enum wire_reply type, const void *payload, size_t bytes,
		      uint64_t deadline_ns, struct err *err)
{
	uint8_t msg[4 + 16];
	int r;

	ASSERT(rp->open && bytes <= sizeof(msg) - 4);
	be16_store(msg, (uint16_t)type);
	be16_store(msg + 2, (uint16_t)bytes);
	if (bytes > 0)
		memcpy(msg + 4, payload, bytes);
	r = mutex_lock(&rp->lock, deadline_ns);
	if (r < 0)
		return err_set(err, r, "waiting for the return path");
	if (!rp->shut)
		r = chan_write_all(rp->ch, msg, 4 + bytes, deadline_ns, err);
	rp->shut = rp->shut || type == WIRE_REPLY_SHUT;
	mutex_unlock(&rp->lock);
	PROBE2(engine__reply, (int)type, r);
	return r < 0 ? err_up(err, r, "return path") : 0;
}

int reply_pong(struct reply *rp, uint32_t value, struct err *err)
{
	uint8_t payload[4];

	be32_store(payload, value);
	return reply_send(rp, WIRE_REPLY_PONG, payload, sizeof(payload), deadline_after_ns(REPLY_TIMEOUT_NS), err);
}

int reply_switchover_ack(struct reply *rp, struct err *err)
{
	return reply_send(rp, WIRE_REPLY_SWITCHOVER_ACK, NULL, 0, deadline_after_ns(REPLY_TIMEOUT_NS), err);
}

int reply_shut(struct reply *rp, uint32_t status, uint64_t deadline_ns, struct err *err)
{
	uint8_t payload[4];

	be32_store(payload, status);
	return reply_send(rp, WIRE_REPLY_SHUT, payload, sizeof(payload), deadline_ns, err);
}
