#include "engine/ram/multifd_decode.h"

#include "base/err.h"
#include "coroutine/turn.h"
#include "engine/stream/multifd_packet.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

/* A page that inflates costs ten that are copied, and may be the first touch of a huge one (engine/ram/ram.c). */
#define PAGE_WORK TURN_LOOK

struct multifd_decoder {
	unsigned compression;
	z_stream zlib;
	ZSTD_DStream *zstd;
	bool in_frame;                   /* zstd: the next byte is not the first one of a frame */
	struct multifd_windows *windows; /* not owned */
	uint64_t counted_bytes;          /* of windows->bytes */
};

static bool make_zstd(struct multifd_decoder *d)
{
	d->zstd = ZSTD_createDStream();
	return d->zstd && !ZSTD_isError(ZSTD_initDStream(d->zstd)) &&
	       !ZSTD_isError(ZSTD_DCtx_setParameter(d->zstd, ZSTD_d_windowLogMax, MULTIFD_WINDOW_LOG_MAX));
}

int multifd_decoder_new(struct multifd_decoder **ret, unsigned compression, struct multifd_windows *windows,
                        struct err *err)
{
	struct multifd_decoder *d = calloc(1, sizeof(*d));
	int ok = 0;

	if (d && compression == MULTIFD_ZLIB)
		ok = inflateInit(&d->zlib) == Z_OK;
	else if (d && compression == MULTIFD_ZSTD)
		ok = make_zstd(d);
	if (!ok) {
		if (d)
			ZSTD_freeDStream(d->zstd);
		free(d);
		return err_set(err, -ENOMEM, "no memory for a decompressor");
	}
	d->compression = compression;
	d->windows = windows;
	d->counted_bytes = d->zstd ? ZSTD_sizeof_DStream(d->zstd) : 0;
	windows->bytes += d->counted_bytes;
	*ret = d;
	return 0;
}

void multifd_decoder_free(struct multifd_decoder *d)
{
	if (!d)
		return;
	if (d->compression == MULTIFD_ZLIB)
		inflateEnd(&d->zlib);
	ZSTD_freeDStream(d->zstd);
	d->windows->bytes -= d->counted_bytes;
	free(d);
}

/* Fill one range. Return: bytes of it missing when the input is used up, or negative. */
static ssize_t inflate_range(z_stream *z, const struct iovec *iov, struct err *err)
{
	int r = Z_OK;

	z->next_out = iov->iov_base;
	z->avail_out = (uInt)iov->iov_len;
	while (z->avail_out > 0 && r == Z_OK && z->avail_in > 0)
		r = inflate(z, Z_NO_FLUSH);
	if (r != Z_OK && r != Z_BUF_ERROR)
		return err_set(err, -EPROTO, "zlib: %s", z->msg ? z->msg : zError(r));
	return z->avail_out;
}

static int decode_zlib(struct multifd_decoder *d, struct sched *s, const struct iovec *iov, int iov_count,
                       const void *src, size_t bytes, struct err *err)
{
	ssize_t missing;
	uint8_t scrap;

	d->zlib.next_in = (Bytef *)src;
	d->zlib.avail_in = (uInt)bytes;
	for (int i = 0; i < iov_count; i++) {
		missing = turn_spend_pending(s, PAGE_WORK);
		if (missing == 0)
			missing = inflate_range(&d->zlib, &iov[i], err);
		if (missing < 0)
			return (int)missing;
		if (missing > 0)
			return err_set(err, -EPROTO, "zlib: the payload ends before its pages do");
	}
	/* The pages are full; what is left of the input is the end of the flush, which yields nothing. */
	missing = inflate_range(&d->zlib, &(struct iovec){ &scrap, sizeof(scrap) }, err);
	if (missing < 0)
		return (int)missing;
	if (missing == 0 || d->zlib.avail_in > 0)
		return err_set(err, -EPROTO, "zlib: the payload holds more than its pages");
	return 0;
}

/* What begins here is one frame of today's format, or is refused: see the header. */
static int check_frame(const struct multifd_decoder *d, const ZSTD_inBuffer *in, struct err *err)
{
	static const uint8_t magic[] = { 0x28, 0xb5, 0x2f, 0xfd };
	size_t n = in->size - in->pos < sizeof(magic) ? in->size - in->pos : sizeof(magic);

	if (d->in_frame || memcmp((const uint8_t *)in->src + in->pos, magic, n) == 0)
		return 0;
	return err_set(err, -EPROTO, "zstd: the payload does not begin as a frame does");
}

/* The window is allocated by the call that has read the frame's header, and nothing of it is touched before. */
static int count_window(struct multifd_decoder *d, struct err *err)
{
	uint64_t bytes = ZSTD_sizeof_DStream(d->zstd);

	d->windows->bytes += bytes - d->counted_bytes;
	d->counted_bytes = bytes;
	if (d->windows->bytes <= d->windows->bytes_max)
		return 0;
	return err_set(err, -EPROTO,
	               "zstd: the windows of all channels take more than %llu bytes together, which "
	               "parameter multifd-window-limit allows",
	               (unsigned long long)d->windows->bytes_max);
}

static int step_zstd(struct multifd_decoder *d, ZSTD_outBuffer *out, ZSTD_inBuffer *in, struct err *err)
{
	int e = check_frame(d, in, err);
	size_t before_in = in->pos, r;

	if (e < 0)
		return e;
	r = ZSTD_decompressStream(d->zstd, out, in);
	if (ZSTD_getErrorCode(r) == ZSTD_error_frameParameter_windowTooLarge)
		return err_set(err, -EPROTO,
		               "zstd: the source asks for a window of more than %u bytes; level 20 of "
		               "multifd-zstd-level needs that much, and no source has a higher one",
		               MULTIFD_WINDOW_BYTES_MAX);
	if (ZSTD_isError(r))
		return err_set(err, -EPROTO, "zstd: %s", ZSTD_getErrorName(r));
	if (r == 0)
		d->in_frame = false;
	else if (in->pos > before_in)
		d->in_frame = true;
	return count_window(d, err);
}

static int decode_zstd(struct multifd_decoder *d, struct sched *s, const struct iovec *iov, int iov_count,
                       const void *src, size_t bytes, struct err *err)
{
	uint8_t scrap;
	ZSTD_outBuffer more = { &scrap, sizeof(scrap), 0 };
	ZSTD_inBuffer in = { src, bytes, 0 };
	size_t before_in, before_out;
	int e;

	for (int i = 0; i < iov_count; i++) {
		ZSTD_outBuffer out = { iov[i].iov_base, iov[i].iov_len, 0 };

		if (turn_spend_pending(s, PAGE_WORK) < 0)
			return -ECANCELED;
		while (out.pos < out.size) {
			before_in = in.pos;
			before_out = out.pos;
			e = step_zstd(d, &out, &in, err);
			if (e < 0)
				return e;
			/* No step forward: the input is used up. */
			if (in.pos == before_in && out.pos == before_out)
				return err_set(err, -EPROTO, "zstd: the payload ends before its pages do");
		}
	}
	/* The pages are full; a decoder that has taken all of its input may still hold bytes that came of it. */
	e = step_zstd(d, &more, &in, err);
	if (e < 0)
		return e;
	if (more.pos > 0 || in.pos < in.size)
		return err_set(err, -EPROTO, "zstd: the payload holds more than its pages");
	return 0;
}

int multifd_decode(struct multifd_decoder *d, struct sched *s, const struct iovec *iov, int iov_count, const void *src,
                   size_t bytes, struct err *err)
{
	if (d->compression == MULTIFD_ZLIB)
		return decode_zlib(d, s, iov, iov_count, src, bytes, err);
	return decode_zstd(d, s, iov, iov_count, src, bytes, err);
}
