/*
 * Is the device state complete, and where does it end? The description says so itself: doc/wire/stream.md 7.4.1.
 *
 * JSON has no zero byte, and the header before it has: so the header is where the last zero byte before the text is, in
 * one of few places.
 */
#include <errno.h>
#include <string.h>

#include "coroutine/turn.h"
#include "engine/devices/split.h"
#include "engine/devices/split_parts.h"
#include "engine/devices/vmdesc.h"

static int check_first(const uint8_t *buf, size_t bytes, struct err *err)
{
	struct split_section s;

	if (bytes == 0 || buf[0] == WIRE_EOF)
		return 0;
	if (buf[0] != WIRE_SECTION_FULL)
		return split_wrong_element(buf, bytes, 0, "a section or EOF", err);
	if (split_head(&s, buf, bytes, 0) < 0)
		return err_set(err, -EPROTO, "the first section has no name");
	return 0;
}

/* Is a description announced at @off, and are there as many bytes as that? */
static bool announces(const uint8_t *buf, size_t bytes, size_t off, size_t *ret_json_bytes)
{
	return element_description(ret_json_bytes, buf + off, bytes - off) > 0 &&
	       *ret_json_bytes <= bytes - off - DESCRIPTION_HEAD_BYTES;
}

/*
 * The description announced at @eof_off.
 * Return: 1 agrees, 0 not a description or of something else (@miss), negative an error that no further byte can mend.
 */
static int try_at(struct split_result *ret, const uint8_t *buf, size_t eof_off, size_t json_bytes,
                  const struct split_opts *opts, struct err *miss, struct err *err)
{
	struct split_build b = { .r.way = SPLIT_BY_DESCRIPTION };
	struct vmdesc *d = NULL;
	int r;

	b.r.json_off = eof_off + DESCRIPTION_HEAD_BYTES;
	b.r.json_bytes = json_bytes;
	r = vmdesc_parse(&d, buf + b.r.json_off, json_bytes, opts->sched, miss);
	if (r == 0)
		r = split_walk_sections(&b, d, buf, eof_off + 1, opts, miss);
	b.r.desc = d;
	if (r < 0) {
		split_result_fini(&b.r);
		if (r == -ECANCELED)
			return r;
		return r == -ENOMEM ? err_set(err, r, "no memory for the description") : 0;
	}
	/*
	 * From here on we no longer take it for chance: sizes, names and footers of all sections agree. Waiting for a
	 * better one would let a peer make us walk the same bodies again and again, most likely forever.
	 */
	r = split_finish(ret, &b, d, buf, opts, err);
	return r < 0 ? r : 1;
}

static void look_for_zero(struct split_tail *tail, const uint8_t *buf, size_t bytes)
{
	const uint8_t *zero = memrchr(buf + tail->scanned, 0, bytes - tail->scanned);

	if (zero)
		tail->zero_off = (size_t)(zero - buf) + 1;
	tail->scanned = bytes;
}

/* Is a description announced at @off, and is the buffer's last byte its last one? */
static bool announces_rest(const uint8_t *buf, size_t bytes, size_t off, size_t *ret_json_bytes)
{
	return announces(buf, bytes, off, ret_json_bytes) && off + DESCRIPTION_HEAD_BYTES + *ret_json_bytes == bytes;
}

bool split_ends_with_description(const uint8_t *buf, size_t bytes)
{
	size_t room = bytes < VMDESC_BYTES_MAX ? bytes : VMDESC_BYTES_MAX, json_bytes;
	const uint8_t *zero = memrchr(buf + bytes - room, 0, room);

	if (!zero || buf[bytes - 1] != '}')
		return false;
	for (size_t back = 0; back < DESCRIPTION_HEAD_BYTES && back <= (size_t)(zero - buf); back++)
		if (announces_rest(buf, bytes, (size_t)(zero - buf) - back, &json_bytes))
			return true;
	return false;
}

/* One pass over all bytes finds the last zero: searching backwards on every call would be a square. */
int split_try_tail(struct split_tail *tail, struct split_result *ret, const uint8_t *buf, size_t bytes,
                   const struct split_opts *opts, struct err *err)
{
	int r = check_first(buf, bytes, err);

	if (r < 0 || bytes == 0)
		return r;
	look_for_zero(tail, buf, bytes);
	if (tail->zero_off == 0 || buf[bytes - 1] != '}')
		return 0;
	for (size_t back = 0; back < DESCRIPTION_HEAD_BYTES && back < tail->zero_off; back++) {
		size_t off = tail->zero_off - 1 - back, json_bytes;

		if (!announces_rest(buf, bytes, off, &json_bytes))
			continue;
		r = try_at(ret, buf, off, json_bytes, opts, &tail->miss, err);
		if (r != 0)
			return r;
	}
	return 0;
}

/* Headers, sizes and footers only. Return: 1 agrees, 0 does not, -ENOMEM, -ECANCELED. */
static int agrees_at(const uint8_t *buf, size_t eof_off, size_t json_bytes, const struct split_opts *opts)
{
	struct split_build b = { .r.way = SPLIT_BY_DESCRIPTION };
	struct err ignored = ERR_NONE;
	struct vmdesc *d = NULL;
	int r = vmdesc_parse(&d, buf + eof_off + DESCRIPTION_HEAD_BYTES, json_bytes, opts->sched, &ignored);

	if (r == 0)
		r = split_walk_sections(&b, d, buf, eof_off + 1, opts, &ignored);
	b.r.desc = d;
	split_result_fini(&b.r);
	if (r == -ENOMEM || r == -ECANCELED)
		return r;
	return r == 0;
}

/*
 * We walk the bodies once, for the last description that agrees. As texts cannot overlap (JSON has no zero byte), this
 * is linear.
 */
int split_find_tail(struct split_result *ret, const uint8_t *buf, size_t bytes, const struct split_opts *opts,
                    struct err *err)
{
	const uint8_t *end = buf + bytes, *zero = split_seek(opts, buf, end, 0);
	size_t json_bytes, last_off = 0, last_bytes = 0;
	struct err miss = ERR_NONE;
	int r;

	for (; zero; zero = split_seek(opts, zero + 1, end, 0)) {
		size_t off = (size_t)(zero - buf);

		if (turn_spend_pending(opts->sched, TURN_STEP) < 0)
			return -ECANCELED;
		if (!announces(buf, bytes, off, &json_bytes))
			continue;
		turn_spend_pending(opts->sched, TURN_SYSCALL);
		r = agrees_at(buf, off, json_bytes, opts);
		if (r < 0)
			return r == -ENOMEM ? err_set(err, r, "no memory for the description") : r;
		if (r > 0) {
			last_off = off;
			last_bytes = json_bytes;
		}
	}
	return last_bytes ? try_at(ret, buf, last_off, last_bytes, opts, &miss, err) : 0;
}

/* A description that agrees but is not the end. */
static bool data_behind(const uint8_t *buf, size_t bytes, const struct split_opts *opts, size_t *ret_end)
{
	struct split_result res = SPLIT_RESULT_NONE;
	struct err ignored = ERR_NONE;

	if (split_find_tail(&res, buf, bytes, opts, &ignored) <= 0)
		return false;
	*ret_end = res.json_off + res.json_bytes;
	split_result_fini(&res);
	return *ret_end < bytes;
}

int split_tail_end(const struct split_tail *tail, const uint8_t *buf, size_t bytes, const struct split_opts *opts,
                   struct err *err)
{
	size_t end;

	if (data_behind(buf, bytes, opts, &end))
		return err_set(err, -EPROTO, "%zu bytes of data after the description", bytes - end);
	if (turn_spend_pending(opts->sched, 0) < 0)
		return -ECANCELED;
	if (tail->miss.code) {
		*err = tail->miss;
		return err_up(err, -EPROTO, "the description does not agree with the sections");
	}
	return err_set(err, -EPROTO, "the stream ends after %zu bytes of device state, without a description", bytes);
}
