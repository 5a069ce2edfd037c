/*
 * channel.h - a stream of bytes from the source, and sometimes back
 *
 * The seam between what speaks (stream/, load/) and what carries (socket, file, later TLS; a script in tests). A
 * channel has one owner at any time, who closes it. A call that takes over a channel ("consumes" it) does so even when
 * it fails.
 *
 * One coroutine may read while another writes; two may not do the same at once.
 */
#ifndef ENGINE_CHANNEL_CHANNEL_H
#define ENGINE_CHANNEL_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct chan;
struct err;

struct chan_ops {
	ssize_t (*readv)(struct chan *ch, struct iovec *iov, int iov_count, uint64_t deadline_ns, struct err *err);
	/* May be NULL: chan_read_full then repeats readv. */
	ssize_t (*read_full)(struct chan *ch, struct iovec *iov, int iov_count, uint64_t deadline_ns, struct err *err);
	int (*write_all)(struct chan *ch, const void *buf, size_t bytes, uint64_t deadline_ns, struct err *err);
	/* May be NULL: not known. */
	bool (*hung_up)(const struct chan *ch);
	/* May be NULL: not known. */
	size_t (*pending)(const struct chan *ch);
	/* May be NULL: it has no other end. */
	void (*shut_down)(struct chan *ch);
	void (*close)(struct chan *ch);
};

struct chan {
	const struct chan_ops *ops;
	char name[96];     /* "tcp:127.0.0.1:4444 from 127.0.0.1:5555", for errors and logs */
	bool can_write;    /* a return path is possible (sockets) */
	uint64_t bytes_in; /* kept by chan_readv and chan_write_all */
	uint64_t bytes_out;
};

/**
 * chan_failed - the story of an operation of io.h that failed, for what implements a channel
 * @doing: "reading from". Return: @code.
 */
int chan_failed(const struct chan *ch, const char *doing, int code, struct err *err);

/**
 * chan_readv - read what is there, at least one byte, into @iov in order
 * Parks: yes. Return: bytes read, 0 at the end of the stream, -ETIMEDOUT, -ECANCELED, or the error of the transport:
 * -ECONNABORTED, the connection was lost, is not -ETIMEDOUT (coroutine/io.h).
 */
ssize_t chan_readv(struct chan *ch, struct iovec *iov, int iov_count, uint64_t deadline_ns, struct err *err);

/**
 * chan_read_full - fill @iov, in one operation where the transport can
 * @iov is clobbered. Parks: yes. Return: its whole length; less when the stream ends before; or as chan_readv.
 */
ssize_t chan_read_full(struct chan *ch, struct iovec *iov, int iov_count, uint64_t deadline_ns, struct err *err);

/** chan_write_all - all of it, or an error. Parks: yes. Return: 0 or negative errno. */
int chan_write_all(struct chan *ch, const void *buf, size_t bytes, uint64_t deadline_ns, struct err *err);

/** chan_hung_up - has the other end closed, as far as one can see without reading? Parks: no. */
bool chan_hung_up(const struct chan *ch);

/** chan_pending - bytes that have come and were not read; inside TLS with all its records' own. SIZE_MAX: not known. */
size_t chan_pending(const struct chan *ch);

/**
 * chan_same_peer - do two channels come from the same host, by their names?
 * "tcp:192.0.2.1:4444" and "vsock:3:1024" are compared without the port; the peers of a unix socket are all one.
 */
bool chan_same_peer(const char *a, const char *b);

/** chan_shut_down - both ways, for good: reads and writes under way end. NULL is allowed. Parks: no. */
void chan_shut_down(struct chan *ch);

/** chan_close - and free. NULL is allowed. Parks: no. No operation of it may be under way. */
void chan_close(struct chan *ch);

#endif
