/*
 * reader.h - the main stream as numbers and bytes, with its position
 *
 * A buffer in front of a channel. Small things are taken from the buffer; large ones are received straight to where
 * they belong, and what the channel has beyond goes to the buffer in the same operation.
 *
 * Invariants:
 * (1) reader_off() is the offset of the next byte in the stream, counted from its first: what error texts name.
 * (2) Bytes come from the channel once, and are never lost: an interrupted read leaves what it got in the buffer.
 * (3) One coroutine reads.
 * (4) The coroutine that reads gives others their turn (turn.h): it may have received a megabyte of small things, and
 *     taking them out of the buffer would never park. So every function below that may park does so now and then, also
 *     when all it needs is here; a cancel that is heard there takes nothing out.
 */
#ifndef ENGINE_STREAM_READER_H
#define ENGINE_STREAM_READER_H

#include "base/be.h"
#include "coroutine/co.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct chan;
struct err;

/* Bytes that reader_need can make contiguous. */
#define READER_NEED_MAX (1u << 20)
/* Measured for what is received at a time, one channel into huge pages: 128 KiB 2.0 GB/s, 512 KiB 2.4, 1 MiB 2.5. */
#define READER_BUFFER_BYTES (READER_NEED_MAX + (256u << 10))

struct reader {
	struct chan *ch; /* not owned, as the next */
	struct sched *sched;
	uint8_t *buf; /* owned, READER_BUFFER_BYTES */
	size_t head, tail;
	uint64_t head_off;    /* stream offset of buf[head] */
	uint64_t deadline_ns; /* for every wait; DEADLINE_NEVER where the embedder set none */
	size_t chunk_bytes;   /* received at a time at most; 0: as much as fits. Small where others must not wait */
	bool ended;           /* the channel has said so */
};

/**
 * reader_init - the stream begins with the @bytes at @first, which were read from @ch already
 * No deadline at first: a source may be silent for as long as it likes between any two bytes (doc/wire/stream.md 1.5),
 * and a dead one is found by TCP's keepalive or the embedder's patience.
 * Return: 0 or -ENOMEM.
 */
int reader_init(struct reader *r, struct sched *s, struct chan *ch, const void *first, size_t bytes);
void reader_fini(struct reader *r);

static inline uint64_t reader_off(const struct reader *r)
{
	return r->head_off;
}

static inline size_t reader_buffered(const struct reader *r)
{
	return r->tail - r->head;
}

static inline const uint8_t *reader_data(const struct reader *r)
{
	return r->buf + r->head;
}

static inline void reader_skip(struct reader *r, size_t bytes)
{
	r->head += bytes;
	r->head_off += bytes;
}

/**
 * reader_fill - receive more into the buffer, keeping what is there
 * Parks: yes. Return: bytes received; 0 at the end of the stream; -ENOBUFS when the buffer is full; or the error.
 */
may_park ssize_t reader_fill(struct reader *r, struct err *err);

/**
 * reader_need - at least @bytes (<= READER_NEED_MAX) contiguous at reader_data()
 * Parks: yes. Return: 0; -ENODATA when the stream ends before, the text says where; or the channel's error.
 */
may_park int reader_need(struct reader *r, size_t bytes, struct err *err);

/** reader_bytes - exactly @bytes to @dst, straight from the channel where the buffer does not have them */
may_park int reader_bytes(struct reader *r, void *dst, size_t bytes, struct err *err);

may_park int reader_u8(struct reader *r, uint8_t *ret, struct err *err);
may_park int reader_be16(struct reader *r, uint16_t *ret, struct err *err);
may_park int reader_be32(struct reader *r, uint32_t *ret, struct err *err);
may_park int reader_be64(struct reader *r, uint64_t *ret, struct err *err);

/** reader_str8 - a byte count and so many bytes; @ret_name is NUL-terminated after them */
may_park int reader_str8(struct reader *r, char ret_name[static 256], size_t *ret_bytes, struct err *err);

#endif
