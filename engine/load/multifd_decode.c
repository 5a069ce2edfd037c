#include "engine/load/multifd_decode.h"

#include "base/err.h"
#include "engine/load/multifd_packet.h"

#include <errno.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

struct multifd_decoder {
	unsigned compression;
	z_stream zlib;
	ZSTD_DStream *zstd;
};

int multifd_decoder_new(struct multifd_decoder **ret, unsigned compression, struct err *err)
{
	struct multifd_decoder *d = calloc(1, sizeof(*d));
	int ok = 0;

	if (d && compression == MULTIFD_ZLIB)
		ok = inflateInit(&d->zlib) == Z_OK;
	else if (d && compression == MULTIFD_ZSTD)
		ok = (d->zstd = ZSTD_createDStream()) && !ZSTD_isError(ZSTD_initDStream(d->zstd));
	if (!ok) {
		if (d)
			ZSTD_freeDStream(d->zstd);
		free(d);
		return err_set(err, -ENOMEM, "no memory for a decompressor");
	}
	d->compression = compression;
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

static int decode_zlib(struct multifd_decoder *d, const struct iovec *iov, int iov_count, const void *src, size_t bytes,
		       struct err *err)
{
	ssize_t missing;
	uint8_t scrap;

	d->zlib.next_in = (Bytef *)src;
	d->zlib.avail_in = (uInt)bytes;
	for (int i = 0; i < iov_count; i++) {
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

static int decode_zstd(struct multifd_decoder *d, const struct iovec *iov, int iov_count, const void *src, size_t bytes,
		       struct err *err)
{
	uint8_t scrap;
	ZSTD_outBuffer more = { &scrap, sizeof(scrap), 0 };
	ZSTD_inBuffer in = { src, bytes, 0 };
	size_t r, before_in, before_out;

	for (int i = 0; i < iov_count; i++) {
		ZSTD_outBuffer out = { iov[i].iov_base, iov[i].iov_len, 0 };

		while (out.pos < out.size) {
			before_in = in.pos;
			before_out = out.pos;
			r = ZSTD_decompressStream(d->zstd, &out, &in);
			if (ZSTD_isError(r))
				return err_set(err, -EPROTO, "zstd: %s", ZSTD_getErrorName(r));
			/* No step forward: the input is used up. */
			if (in.pos == before_in && out.pos == before_out)
				return err_set(err, -EPROTO, "zstd: the payload ends before its pages do");
		}
	}
	/* The pages are full; a decoder that has taken all of its input may still hold bytes that came of it. */
	r = ZSTD_decompressStream(d->zstd, &more, &in);
	if (ZSTD_isError(r))
		return err_set(err, -EPROTO, "zstd: %s", ZSTD_getErrorName(r));
	if (more.pos > 0 || in.pos < in.size)
		return err_set(err, -EPROTO, "zstd: the payload holds more than its pages");
	return 0;
}

int multifd_decode(struct multifd_decoder *d, const struct iovec *iov, int iov_count, const void *src, size_t bytes,
		   struct err *err)
{
	if (d->compression == MULTIFD_ZLIB)
		return decode_zlib(d, iov, iov_count, src, bytes, err);
	return decode_zstd(d, iov, iov_count, src, bytes, err);
}
