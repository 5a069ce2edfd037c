#include "engine/load/tail.h"

#include "base/be.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "coroutine/turn.h"
#include "engine/channel/channel.h"
#include "engine/devices/vmdesc.h"
#include "engine/load/device.h"
#include "engine/load/load.h"
#include "engine/options/options.h"
#include "engine/stream/element.h"
#include "engine/stream/trace.h"
#include "inmigrate.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* A description was there and did not agree with the sections. If nothing more comes, that was it. */
#define DISAGREE_NS (10 * NS_PER_S)

/*
 * Of silence, before the end is looked for where it is not the last byte: at first. To a source that waits to be told
 * what is found is an error; else it is taken for the end, and then nothing that is only late may be missed.
 */
#define LOOK_NS (5 * NS_PER_S)
#define LOOK_UNASKED_NS (10 * NS_PER_S)

/*
 * A source that waits to be told, and what it has sent ends with a zero byte, as EOF is, or as a description does. Its
 * guest stands still, and runs again when this fails. Longer than the network needs to send again what it has lost.
 */
#define SILENT_NS (15 * NS_PER_S)

/* With suppress-vmdesc nothing marks the end: after so long without a byte the state may be whole. */
#define QUIET_NS (50 * NS_PER_MS)

/*
 * Dividing costs in proportion to all that has come, so a source that drips must not buy it with a few bytes. After a
 * division that failed, the silence before the next one is twice as long, up to QUIET_NS_MAX, and QUIET_TIMES what that
 * one took: whatever the source does, it takes a twentieth of the thread. An honest one that stops inside its state, at
 * a place that looks like its end, ends that much later.
 */
#define QUIET_NS_MAX (2 * NS_PER_S)
#define QUIET_TIMES 20

/* A source without a return path closes as soon as its bytes are in its kernel; its guest stands still meanwhile. */
#define CLOSE_WAIT_NS (100 * NS_PER_MS)

struct tail {
	uint8_t *buf; /* owned */
	size_t bytes, room;
	uint64_t off; /* of buf[0] in the stream */
	struct sections_split how;
	uint64_t look_ns; /* of silence, before the end is looked for */
};

static int tail_init(struct tail *t, const struct load *l, struct err *err)
{
	*t = (struct tail){ .off = reader_off(&l->reader) };
	t->look_ns = reply_is_awaited(&l->reply) ? LOOK_NS : LOOK_UNASKED_NS;
	return sections_split_begin(&t->how, &l->sections, l->opts->send_section_footer, l->reader.sched, err);
}

/* Move what the reader has over. Grows by what was received, never by what was announced. */
static int tail_take(struct tail *t, struct reader *r, struct err *err)
{
	size_t bytes = reader_buffered(r), room = t->room ? t->room : 256u << 10;
	uint8_t *buf;

	if (bytes > TAIL_BYTES_MAX - t->bytes)
		return err_set(err, -EPROTO, "more than %u bytes of device state", TAIL_BYTES_MAX);
	while (room < t->bytes + bytes)
		room *= 2;
	if (room > t->room) {
		buf = realloc(t->buf, room);
		if (!buf)
			return err_set(err, -ENOMEM, "no memory for %zu bytes of device state", room);
		t->buf = buf;
		t->room = room;
	}
	memcpy(t->buf + t->bytes, reader_data(r), bytes);
	t->bytes += bytes;
	reader_skip(r, bytes);
	return 0;
}

/* Return: 1 more bytes are in @t, 0 the stream has ended, -ETIMEDOUT, or the error. */
static int tail_more(struct tail *t, struct reader *r, uint64_t deadline_ns, struct err *err)
{
	ssize_t n;
	int e;

	r->deadline_ns = deadline_ns;
	n = reader_fill(r, err);
	/* No deadline otherwise: see reader_init. */
	r->deadline_ns = DEADLINE_NEVER;
	if (n <= 0)
		return (int)n;
	e = tail_take(t, r, err);
	return e < 0 ? e : 1;
}

/* ---- what lies after the end ---- */

static bool all_zeros(const uint8_t *p, size_t bytes)
{
	return bytes == 0 || (p[0] == 0 && memcmp(p, p + 1, bytes - 1) == 0);
}

/*
 * A saved stream may be stored in something longer: a padded file, or a block device with its old content after the
 * stream. Nobody hears of a failure then, and everything that was sent is here. A source that waits for an answer sends
 * nothing more, and a connection without an answer can only have zeros after the stream, from a program that replays
 * it.
 */
static int pass_over(const struct load *l, const uint8_t *p, size_t bytes, uint64_t off, struct err *err)
{
	bool zeros = all_zeros(p, bytes);

	if (bytes == 0)
		return 0;
	if (reply_is_awaited(&l->reply) || (l->reader.ch->can_write && !zeros))
		return err_set(err, -EPROTO, "data after the end of the stream, at 0x%" PRIx64, off);
	TRACE(l->trace, off, 0, "%s after the end, not of the stream", zeros ? "zeros" : "data");
	if (zeros)
		log_info(l->log, "there are zeros after the end of the stream, at 0x%" PRIx64, off);
	else
		log_warn(l->log, "what follows the stream, at 0x%" PRIx64 ", is not part of it", off);
	return 0;
}

/* As much as there can be is here, and the description is somewhere in it. Return: 1, 0 it is not, or the error. */
static int find_end(const struct tail *t, const struct load *l, struct split_result *ret, struct err *err)
{
	int e = split_find_tail(ret, t->buf, t->bytes, &t->how.opts, err);
	size_t end;

	if (e <= 0)
		return e;
	end = ret->json_off + ret->json_bytes;
	e = pass_over(l, t->buf + end, t->bytes - end, t->off + end, err);
	return e < 0 ? e : 1;
}

/* The next bytes would be more than what is kept. */
static bool is_full(const struct tail *t)
{
	return t->bytes > TAIL_BYTES_MAX - READER_BUFFER_BYTES;
}

/* ---- a source that has no more to say, and does not say so ---- */

/*
 * A source that waits for an answer, with its guest stopped, is silent once it has sent everything. EOF is a zero byte,
 * but not every zero byte is EOF, so we wait a moment for more.
 */
static uint64_t silence_ns(const struct tail *t, const struct load *l)
{
	uint8_t last = t->bytes > 0 ? t->buf[t->bytes - 1] : 0xff;
	bool end = last == WIRE_EOF || (last == '}' && l->opts->suppress_vmdesc);

	return end && reply_is_awaited(&l->reply) ? deadline_after_ns(SILENT_NS) : DEADLINE_NEVER;
}

static int refuse_description(struct err *err)
{
	return err_set(err, -EPROTO,
	               "the source sends a description of its devices: parameter suppress-vmdesc must "
	               "be off here, as it is there");
}

static int refuse_silence(const struct tail *t, const struct load *l, struct err *err)
{
	if (l->opts->suppress_vmdesc && split_ends_with_description(t->buf, t->bytes))
		return refuse_description(err);
	return err_set(err, -EPROTO,
	               "the source sends nothing any more at 0x%" PRIx64 ", and its device state cannot "
	               "be divided: parameters send-section-footer and suppress-vmdesc must be as at the source",
	               t->off + t->bytes);
}

/* The stream has ended, or it is as good as that. */
static int end_without(const struct split_tail *state, const struct tail *t, const struct load *l,
                       struct split_result *ret, struct err *err)
{
	int e = reply_is_awaited(&l->reply) ? 0 : find_end(t, l, ret, err);

	if (e != 0)
		return e < 0 ? e : 0;
	/* An onlooker sees what there is. */
	if (l->opts->looking && t->how.opts.footers &&
	    split_by_footers(ret, t->buf, t->bytes, SPLIT_TAIL, &t->how.opts, err) == 0)
		return 0;
	e = split_tail_end(state, t->buf, t->bytes, &t->how.opts, err);
	if (e == -ECANCELED)
		return e;
	return err_up(err, -ENODATA, "the source closed the stream at 0x%" PRIx64 ", before its end",
	              t->off + t->bytes);
}

/*
 * The last byte that we have is that of a description that agrees. A source that waits for an answer has said
 * everything. From another source more may come, and then a guest has forged this description.
 * Return: 1 that was it; 0 go on; or the error.
 */
static int settle(struct tail *t, struct load *l, struct split_result *ret, struct err *err)
{
	int e;

	if (reply_is_awaited(&l->reply))
		return 1;
	e = tail_more(t, &l->reader, deadline_after_ns(CLOSE_WAIT_NS), err);
	if (e == 0 || e == -ETIMEDOUT || (e < 0 && e != -ECANCELED && e != -ENOMEM))
		return 1; /* how the connection ends does not matter any more */
	split_result_fini(ret);
	return e < 0 ? e : 0;
}

/*
 * No byte for as long as was agreed: is the end somewhere before the last byte? To look costs in proportion to what is
 * here, so the next look is not sooner than QUIET_TIMES of what this one took. Return: 1 the end was found; 0 go on; or
 * the error.
 */
static int after_silence(const struct split_tail *state, struct tail *t, struct load *l, struct split_result *ret,
                         struct err *err)
{
	uint64_t began_ns = clock_now_ns(), took_ns;
	int e = find_end(t, l, ret, err);

	took_ns = clock_now_ns() - began_ns;
	if (t->look_ns < QUIET_TIMES * took_ns)
		t->look_ns = QUIET_TIMES * took_ns;
	if (e != 0)
		return e;
	if (state->miss.code)
		return split_tail_end(state, t->buf, t->bytes, &t->how.opts, err);
	/* Without a return path: no deadline, nobody's guest waits for us to give up. */
	e = tail_more(t, &l->reader, silence_ns(t, l), err);
	if (e == -ETIMEDOUT)
		return refuse_silence(t, l, err);
	if (e != 0)
		return e < 0 ? e : 0;
	e = end_without(state, t, l, ret, err);
	return e < 0 ? e : 1;
}

/* The description says itself that it is complete. */
static int read_with_description(struct tail *t, struct load *l, struct split_result *ret, struct err *err)
{
	struct split_tail state = { .scanned = 0 };
	int e;

	for (;;) {
		e = split_try_tail(&state, ret, t->buf, t->bytes, &t->how.opts, err);
		if (e > 0)
			e = settle(t, l, ret, err);
		if (e != 0)
			return e < 0 ? e : 0;
		if (!reply_is_awaited(&l->reply) && is_full(t))
			return end_without(&state, t, l, ret, err);
		e = tail_more(t, &l->reader, deadline_after_ns(state.miss.code ? DISAGREE_NS : t->look_ns), err);
		if (e == 0)
			return end_without(&state, t, l, ret, err);
		if (e == -ETIMEDOUT) {
			e = after_silence(&state, t, l, ret, err);
			if (e > 0)
				return 0;
		}
		if (e < 0)
			return e;
	}
}

/* The last bytes are EOF, and before it the footer of a section, if there is any. */
static bool may_be_whole(const struct tail *t)
{
	uint32_t id;

	if (t->bytes == 0 || t->buf[t->bytes - 1] != WIRE_EOF)
		return false;
	if (t->bytes <= FOOTER_BYTES)
		return t->bytes == 1;
	return element_footer(&id, t->buf + t->bytes - 1 - FOOTER_BYTES, FOOTER_BYTES) > 0 && id <= SPLIT_ID_MAX;
}

/* Return: 0 it was whole; -ECANCELED; or it was not, and @quiet_ns is how long the next silence must be. */
static may_park int divide_when_quiet(const struct tail *t, struct split_result *ret, uint64_t *quiet_ns,
                                      struct err *err)
{
	uint64_t began_ns = clock_now_ns(), least_ns;
	int e = split_by_footers(ret, t->buf, t->bytes, SPLIT_TAIL, &t->how.opts, err);

	least_ns = QUIET_TIMES * (clock_now_ns() - began_ns);
	*quiet_ns = 2 * *quiet_ns < QUIET_NS_MAX ? 2 * *quiet_ns : QUIET_NS_MAX;
	*quiet_ns = *quiet_ns < least_ns ? least_ns : *quiet_ns;
	return e;
}

/* All that comes is here: up to its last byte, or to where nothing but zeros is. */
static int divide_at_end(const struct tail *t, const struct load *l, struct split_result *ret, struct err *err)
{
	size_t zeros = t->bytes, end;
	int e = -EPROTO;

	while (!reply_is_awaited(&l->reply) && zeros > 0 && t->buf[zeros - 1] == 0)
		zeros--;
	/* EOF is the first of them, or comes after the last bytes of a section's id. */
	for (end = zeros + 1; e == -EPROTO && end <= zeros + 4 && end < t->bytes; end++)
		e = split_by_footers(ret, t->buf, end, SPLIT_TAIL, &t->how.opts, err);
	if (e == 0)
		return pass_over(l, t->buf + end - 1, t->bytes - end + 1, t->off + end - 1, err);
	return e == -EPROTO ? split_by_footers(ret, t->buf, t->bytes, SPLIT_TAIL, &t->how.opts, err) : e;
}

/*
 * With suppress-vmdesc the state is whole when it tiles and the source has no more to say: without a return path it
 * closes, with one it falls silent and waits for SHUT.
 */
static int read_with_footers(struct tail *t, struct load *l, struct split_result *ret, struct err *err)
{
	uint64_t quiet_ns = QUIET_NS;
	int e = 1;

	while (e > 0 && (reply_is_awaited(&l->reply) || !is_full(t))) {
		bool whole = reply_is_awaited(&l->reply) && may_be_whole(t);

		e = tail_more(t, &l->reader, whole ? deadline_after_ns(quiet_ns) : silence_ns(t, l), err);
		if (e == -ETIMEDOUT && !whole)
			return refuse_silence(t, l, err);
		if (e != -ETIMEDOUT)
			continue;
		e = divide_when_quiet(t, ret, &quiet_ns, err);
		if (e == 0 || e == -ECANCELED)
			return e;
		/* Not whole: what comes next decides. */
		e = tail_more(t, &l->reader, silence_ns(t, l), err);
		if (e == -ETIMEDOUT)
			return refuse_silence(t, l, err);
	}
	if (e < 0)
		return e;
	e = divide_at_end(t, l, ret, err);
	if (e == -EPROTO && split_ends_with_description(t->buf, t->bytes))
		return refuse_description(err);
	if (e == -EPROTO)
		return err_up(err, -ENODATA, "the source closed the stream at 0x%" PRIx64 ", before its end",
		              t->off + t->bytes);
	return e;
}

int tail_check_end(struct load *l, struct err *err)
{
	ssize_t n = l->reader.ended ? 0 : -ETIMEDOUT;

	/* Without a return path it has been waited for, and all that came was looked at. */
	if (!reply_is_awaited(&l->reply))
		return 0;
	if (reader_buffered(&l->reader) == 0 && !l->reader.ended) {
		l->reader.deadline_ns = deadline_after_ns(0);
		n = reader_fill(&l->reader, err);
		l->reader.deadline_ns = DEADLINE_NEVER;
	}
	if (n == -ECANCELED)
		return (int)n;
	if (reader_buffered(&l->reader) > 0)
		return err_set(err, -EPROTO, "data after the end of the stream, at 0x%" PRIx64, reader_off(&l->reader));
	if (n == 0)
		return err_set(err, -ENODATA,
		               "the source closed the stream at 0x%" PRIx64 " without waiting to be told",
		               reader_off(&l->reader));
	return n == -ETIMEDOUT ? 0 : (int)n;
}

static int deliver_all(struct load *l, const struct tail *t, const struct split_result *split, struct err *err)
{
	int e = 0;

	l->split_by_footers = split->way == SPLIT_BY_FOOTERS;
	for (size_t i = 0; e == 0 && i < split->section_count; i++)
		e = device_deliver(l, t->buf, t->off, split, i, err);
	if (e == 0)
		e = device_describe_early(l, split, err);
	TRACE(l->trace, t->off + split->eof_off, 0, "end of stream");
	if (split->desc)
		TRACE(l->trace, t->off + split->json_off, 0, "description: %zu bytes", split->json_bytes);
	return e;
}

int tail_read(struct load *l, struct err *err)
{
	struct split_result split = SPLIT_RESULT_NONE;
	struct tail t;
	int e = tail_init(&t, l, err);

	if (e < 0)
		return err_up(err, e, "device state from 0x%" PRIx64 " on", t.off);
	e = tail_take(&t, &l->reader, err);
	if (e == 0)
		e = l->opts->suppress_vmdesc ? read_with_footers(&t, l, &split, err) :
		                               read_with_description(&t, l, &split, err);
	if (e < 0)
		err_up(err, e, "device state from 0x%" PRIx64 " on", t.off);
	if (e == 0)
		e = deliver_all(l, &t, &split, err);
	if (e == 0)
		e = tail_check_end(l, err);
	e = sections_split_end(&t.how, e);
	split_result_fini(&split);
	turn_free(l->reader.sched, t.buf, t.bytes);
	return e;
}
