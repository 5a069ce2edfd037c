/*
 * multifd_decode.h - payloads that are one compressed stream per channel
 *
 * The stream goes on from packet to packet and is never ended; each packet's piece is flushed, and inflates to exactly
 * its pages using all its bytes (doc/wire/multifd.md 4.5). It runs on the engine's one thread.
 *
 * What a decoder holds:
 *   zlib  44 KiB: the window of its format, 32 KiB, is the largest there is
 *   zstd  100 KiB, and the window that the frame asks for. A frame may ask for MULTIFD_WINDOW_BYTES_MAX, which is what
 *         level 20 of multifd-zstd-level needs, the highest that sources have; all channels together may ask for what
 *         struct multifd_windows allows. Frames of the formats before zstd 0.8 are refused: their decoders keep no
 *         account of what they hold.
 */
#ifndef ENGINE_RAM_MULTIFD_DECODE_H
#define ENGINE_RAM_MULTIFD_DECODE_H

#include "coroutine/co.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct err;
struct multifd_decoder;

#define MULTIFD_WINDOW_LOG_MAX 25
#define MULTIFD_WINDOW_BYTES_MAX (1u << MULTIFD_WINDOW_LOG_MAX)

/* What the zstd decoders of one migration hold together. */
struct multifd_windows {
	uint64_t bytes_max; /* parameter multifd-window-limit */
	uint64_t bytes;
};

/**
 * multifd_decoder_new - for packets with this compression flag (MULTIFD_ZLIB, MULTIFD_ZSTD)
 * @windows: what it holds is counted there, from now to multifd_decoder_free
 * Return: 0, -ENOMEM.
 */
int multifd_decoder_new(struct multifd_decoder **ret, unsigned compression, struct multifd_windows *windows,
                        struct err *err);
void multifd_decoder_free(struct multifd_decoder *d);

/**
 * multifd_decode - the next piece, into the pages of @iov in order
 * A bad piece may have written part of them: the migration is over then. So it is when a window takes the sum over its
 * limit, which is seen before more than a page of it is used.
 * @s: whose turns the work is; NULL: nobody else waits. Nobody may touch the pages or the piece meanwhile.
 * Parks: yes. Return: 0; -EPROTO; -ECANCELED, which stays pending: see turn_spend_pending.
 */
may_park int multifd_decode(struct multifd_decoder *d, struct sched *s, const struct iovec *iov, int iov_count,
                            const void *src, size_t bytes, struct err *err);

#endif
