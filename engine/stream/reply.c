#include "engine/stream/reply.h"

#include "base/assert.h"
#include "base/be.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/probe.h"
#include "engine/channel/channel.h"
#include "engine/stream/wire.h"
#include "memory/block.h"
#include "postcopy/ledger.h"

#include <errno.h>
#include <string.h>

void reply_init(struct reply *rp, struct sched *s, struct chan *ch)
{
	*rp = (struct reply){ .ch = ch };
	mutex_init(&rp->lock, s, "return path");
}

void reply_attach(struct reply *rp, struct chan *ch)
{
	ASSERT(!rp->ch && !rp->lock.owner);
	rp->ch = ch;
	rp->last = NULL;
}

void reply_detach(struct reply *rp)
{
	if (!rp->ch)
		return;
	chan_shut_down(rp->ch);
	co_shield(rp->lock.sched, true);
	/* No deadline: on a channel that is shut down, every write ends at once. */
	mutex_lock(&rp->lock, DEADLINE_NEVER);
	rp->ch = NULL;
	rp->open = false;
	mutex_unlock(&rp->lock);
	co_shield(rp->lock.sched, false);
}

int reply_open(struct reply *rp, struct err *err)
{
	if (!rp->ch->can_write && !rp->mute)
		return err_set(err, -EPROTO, "the source wants a return path, and %s has none", rp->ch->name);
	rp->open = true;
	return 0;
}

/* The caller holds the lock. */
static may_park int write_open(struct reply *rp, const void *msg, size_t bytes, uint64_t deadline_ns, struct err *err)
{
	if (!rp->ch)
		return err_set(err, -ENOTCONN, "the connection was lost");
	return rp->shut ? 0 : chan_write_all(rp->ch, msg, bytes, deadline_ns, err);
}

static may_park int take_lock(struct reply *rp, uint64_t deadline_ns, struct err *err)
{
	int r = mutex_lock(&rp->lock, deadline_ns);

	return r < 0 ? err_set(err, r, "waiting for the return path") : 0;
}

static may_park int write_locked(struct reply *rp, const void *msg, size_t bytes, uint64_t deadline_ns, struct err *err)
{
	int r;

	if (rp->mute)
		return 0;
	r = take_lock(rp, deadline_ns, err);
	if (r < 0)
		return r;
	r = write_open(rp, msg, bytes, deadline_ns, err);
	mutex_unlock(&rp->lock);
	return r;
}

static int reply_send(struct reply *rp, enum wire_reply type, const void *payload, size_t bytes, uint64_t deadline_ns,
                      struct err *err)
{
	uint8_t msg[4 + 16];
	int r;

	ASSERT(bytes <= sizeof(msg) - 4);
	be16_store(msg, (uint16_t)type);
	be16_store(msg + 2, (uint16_t)bytes);
	if (bytes > 0)
		memcpy(msg + 4, payload, bytes);
	r = write_locked(rp, msg, 4 + bytes, deadline_ns, err);
	rp->shut = rp->shut || type == WIRE_REPLY_SHUT;
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

/* The block's name, unless it is the one named last (doc/wire/stream.md 3). Return: bytes written to @p. */
static size_t put_request(struct reply *rp, uint8_t *p, const struct page_request *req)
{
	const struct block *b = req->block;
	bool named = b != rp->last;

	be16_store(p, named ? WIRE_REPLY_REQ_PAGES_ID : WIRE_REPLY_REQ_PAGES);
	be16_store(p + 2, (uint16_t)(12 + (named ? 1 + b->name_bytes : 0)));
	be64_store(p + 4, req->start);
	be32_store(p + 12, (uint32_t)req->bytes);
	if (!named)
		return 16;
	p[16] = (uint8_t)b->name_bytes;
	memcpy(p + 17, b->name, b->name_bytes);
	rp->last = b;
	return 17 + b->name_bytes;
}

/* A request without a name means the block named last on this connection: so it is made when the lock is held. */
int reply_request(struct reply *rp, const struct page_request *list, size_t count, struct err *err)
{
	uint8_t msg[REQUEST_BATCH_MAX * (17 + BLOCK_NAME_BYTES_MAX)];
	uint64_t deadline_ns = deadline_after_ns(REPLY_TIMEOUT_NS);
	size_t bytes = 0;
	int r;

	ASSERT(count <= REQUEST_BATCH_MAX);
	if (rp->mute)
		return 0;
	r = take_lock(rp, deadline_ns, err);
	if (r == 0) {
		for (size_t i = 0; i < count; i++)
			bytes += put_request(rp, msg + bytes, &list[i]);
		r = write_open(rp, msg, bytes, deadline_ns, err);
		mutex_unlock(&rp->lock);
	}
	PROBE2(engine__request, count, r);
	return r < 0 ? err_up(err, r, "return path") : 0;
}

#define BITMAP_WORDS 4096 /* that are written at a time */
#define BITMAP_END_MARK 0x0123456789abcdefull

/* What is before the words and after them goes with them: each write is a segment, and wakes the source. */
struct bitmap_piece {
	size_t bytes;
	uint8_t buf[4 + 1 + BLOCK_NAME_BYTES_MAX + 8 + 8 * BITMAP_WORDS + 8];
};

static void put_bitmap_head(struct bitmap_piece *piece, const struct block *b, size_t words)
{
	uint8_t *p = piece->buf;

	be16_store(p, WIRE_REPLY_RECV_BITMAP);
	be16_store(p + 2, (uint16_t)(1 + b->name_bytes));
	p[4] = (uint8_t)b->name_bytes;
	memcpy(p + 5, b->name, b->name_bytes);
	be64_store(p + 5 + b->name_bytes, 8 * words);
	piece->bytes = 5 + b->name_bytes + 8;
}

/* Byte i / 8, bit i % 8, on any machine: words with the least significant byte first. */
static void put_words(struct bitmap_piece *piece, const uint64_t *words, size_t count)
{
	for (size_t i = 0; i < count; i++, piece->bytes += 8)
		be64_store(piece->buf + piece->bytes, __builtin_bswap64(words[i]));
}

static int write_bitmap(struct reply *rp, const struct block *b, struct err *err)
{
	size_t words = (b->received.nbits + 63) / 64, n;
	const uint64_t *p = b->received.words;
	struct bitmap_piece piece;
	int r;

	put_bitmap_head(&piece, b, words);
	do {
		n = words < BITMAP_WORDS ? words : BITMAP_WORDS;
		put_words(&piece, p, n);
		p += n;
		words -= n;
		if (words == 0) {
			be64_store(piece.buf + piece.bytes, BITMAP_END_MARK);
			piece.bytes += 8;
		}
		r = chan_write_all(rp->ch, piece.buf, piece.bytes, deadline_after_ns(REPLY_TIMEOUT_NS), err);
		piece.bytes = 0;
	} while (r == 0 && words > 0);
	return r;
}

int reply_bitmap(struct reply *rp, const struct block *b, struct err *err)
{
	int r = mutex_lock(&rp->lock, deadline_after_ns(REPLY_TIMEOUT_NS));

	if (r < 0)
		return err_set(err, r, "waiting for the return path");
	r = rp->ch ? write_bitmap(rp, b, err) : err_set(err, -ENOTCONN, "the connection was lost");
	mutex_unlock(&rp->lock);
	PROBE2(engine__reply, (int)WIRE_REPLY_RECV_BITMAP, r);
	return r < 0 ? err_up(err, r, "return path") : 0;
}

int reply_resume_ack(struct reply *rp, struct err *err)
{
	uint8_t payload[4];

	be32_store(payload, 1);
	rp->last = NULL;
	return reply_send(rp, WIRE_REPLY_RESUME_ACK, payload, sizeof(payload), deadline_after_ns(REPLY_TIMEOUT_NS),
	                  err);
}

int reply_shut(struct reply *rp, uint32_t status, uint64_t deadline_ns, struct err *err)
{
	uint8_t payload[4];

	be32_store(payload, status);
	return reply_send(rp, WIRE_REPLY_SHUT, payload, sizeof(payload), deadline_ns, err);
}
