/*
 * multifd_decode.h - payloads that are one compressed stream per channel
 *
 * The stream goes on from packet to packet and is never ended; each packet's piece is flushed, and inflates to exactly
 * its pages using all its bytes (spec/multifd.md 4.5). It runs on the engine's one thread.
 */
#ifndef ENGINE_LOAD_MULTIFD_DECODE_H
#define ENGINE_LOAD_MULTIFD_DECODE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct err;
struct multifd_decoder;

/**
 * multifd_decoder_new - for packets with this compression flag (MULTIFD_ZLIB, MULTIFD_ZSTD)
 * Return: 0, -ENOMEM.
 */
int multifd_decoder_new(struct multifd_decoder **ret, unsigned compression, struct err *err);
void multifd_decoder_free(struct multifd_decoder *d);

/**
 * multifd_decode - the next piece, into the pages of @iov in order
 * A bad piece may have written part of them: the migration is over then.
 * Return: 0, -EPROTO.
 */
int multifd_decode(struct multifd_decoder *d, const struct iovec *iov, int iov_count, const void *src, size_t bytes,
		   struct err *err);

#endif
