#include "engine/stream/reader.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/err.h"
#include "coroutine/turn.h"
#include "engine/channel/channel.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

int reader_init(struct reader *r, struct sched *s, struct chan *ch, const void *first, size_t bytes)
{
	ASSERT(bytes <= READER_NEED_MAX);
	*r = (struct reader){ .ch = ch, .sched = s, .deadline_ns = DEADLINE_NEVER, .tail = bytes };
	r->buf = malloc(READER_BUFFER_BYTES);
	if (!r->buf)
		return -ENOMEM;
	memcpy(r->buf, first, bytes);
	return 0;
}

void reader_fini(struct reader *r)
{
	free(r->buf);
	r->buf = NULL;
}

static int stream_ended(const struct reader *r, struct err *err)
{
	return err_set(err, -ENODATA, "the source closed the stream at 0x%" PRIx64 ", before its end",
	               r->head_off + reader_buffered(r));
}

/* Bring the contents to the front where they would not fit otherwise. */
static void make_room(struct reader *r, size_t bytes)
{
	if (r->head == r->tail) {
		r->head = r->tail = 0;
	} else if (READER_BUFFER_BYTES - r->head < bytes) {
		memmove(r->buf, r->buf + r->head, reader_buffered(r));
		r->tail -= r->head;
		r->head = 0;
	}
}

static struct iovec free_space(const struct reader *r)
{
	size_t bytes = READER_BUFFER_BYTES - r->tail;

	return (struct iovec){ r->buf + r->tail, r->chunk_bytes && r->chunk_bytes < bytes ? r->chunk_bytes : bytes };
}

static ssize_t receive(struct reader *r, struct iovec *iov, int iov_count, struct err *err)
{
	ssize_t n;

	if (r->ended)
		return 0;
	n = chan_readv(r->ch, iov, iov_count, r->deadline_ns, err);
	if (n == 0)
		r->ended = true;
	return n;
}

ssize_t reader_fill(struct reader *r, struct err *err)
{
	struct iovec iov;
	ssize_t n;

	make_room(r, READER_BUFFER_BYTES);
	iov = free_space(r);
	if (iov.iov_len == 0)
		return err_set(err, -ENOBUFS, "more than %zu bytes in one piece", reader_buffered(r));
	n = receive(r, &iov, 1, err);
	if (n > 0)
		r->tail += (size_t)n;
	return n;
}

int reader_need(struct reader *r, size_t bytes, struct err *err)
{
	struct iovec iov;
	ssize_t n;
	int e;

	ASSERT(bytes <= READER_NEED_MAX);
	/* By (4). What is done with them is of the same order as taking them. */
	e = turn_spend(r->sched, TURN_STEP + bytes);
	if (e < 0 || reader_buffered(r) >= bytes)
		return e;
	make_room(r, bytes);
	while (reader_buffered(r) < bytes) {
		iov = free_space(r);
		n = receive(r, &iov, 1, err);
		if (n < 0)
			return (int)n;
		if (n == 0)
			return stream_ended(r, err);
		r->tail += (size_t)n;
	}
	return 0;
}

static size_t take_buffered(struct reader *r, void *dst, size_t bytes)
{
	size_t n = reader_buffered(r) < bytes ? reader_buffered(r) : bytes;

	memcpy(dst, reader_data(r), n);
	reader_skip(r, n);
	return n;
}

int reader_bytes(struct reader *r, void *dst, size_t bytes, struct err *err)
{
	size_t got = 0;
	int e = 0;

	while (e == 0 && got < bytes) {
		e = reader_need(r, 1, err);
		if (e == 0)
			got += take_buffered(r, (char *)dst + got, bytes - got);
	}
	return e;
}

int reader_u8(struct reader *r, uint8_t *ret, struct err *err)
{
	int e = reader_need(r, 1, err);

	if (e < 0)
		return e;
	*ret = *reader_data(r);
	reader_skip(r, 1);
	return 0;
}

int reader_be16(struct reader *r, uint16_t *ret, struct err *err)
{
	int e = reader_need(r, 2, err);

	if (e < 0)
		return e;
	*ret = be16_load(reader_data(r));
	reader_skip(r, 2);
	return 0;
}

int reader_be32(struct reader *r, uint32_t *ret, struct err *err)
{
	int e = reader_need(r, 4, err);

	if (e < 0)
		return e;
	*ret = be32_load(reader_data(r));
	reader_skip(r, 4);
	return 0;
}

int reader_be64(struct reader *r, uint64_t *ret, struct err *err)
{
	int e = reader_need(r, 8, err);

	if (e < 0)
		return e;
	*ret = be64_load(reader_data(r));
	reader_skip(r, 8);
	return 0;
}

int reader_str8(struct reader *r, char ret_name[static 256], size_t *ret_bytes, struct err *err)
{
	size_t bytes;
	int e = reader_need(r, 1, err);

	if (e < 0)
		return e;
	bytes = *reader_data(r);
	e = reader_need(r, 1 + bytes, err);
	if (e < 0)
		return e;
	memcpy(ret_name, reader_data(r) + 1, bytes);
	ret_name[bytes] = '\0';
	*ret_bytes = bytes;
	reader_skip(r, 1 + bytes);
	return 0;
}
