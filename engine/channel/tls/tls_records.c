/* Records between the plain channel, the two buffers, and GnuTLS: (1) and (2) of tls.h. */
#include "engine/channel/tls/tls_parts.h"

#if HAVE_GNUTLS

#include "base/assert.h"
#include "base/be.h"

#include <errno.h>
#include <string.h>

/* ---- GnuTLS's side: copying between buffers; never parks -------------------------------------------------------- */

static int check_apart(const struct tls_chan *tc, struct err *err)
{
	uint64_t bytes_max = TLS_APART_BYTES_MAX + (tc->data_bytes >> TLS_APART_DATA_SHIFT);
	uint64_t records_max = TLS_APART_RECORDS_MAX + (tc->data_bytes >> TLS_APART_RECORD_DATA_SHIFT);
	uint64_t bytes = tc->apart_bytes, records = tc->apart_records;

	/* It may be data: the next one is not taken if it was none. */
	if (tc->established && tc->last_record_bytes > 0) {
		bytes -= tc->last_record_bytes;
		records--;
	}
	if (bytes <= bytes_max && records <= records_max)
		return 0;
	return err_set(err, -EPROTO, "TLS from %s: more than %llu bytes or %llu records of %s", tc->chan.name,
	               (unsigned long long)bytes_max, (unsigned long long)records_max,
	               tc->established ? "TLS's own among its data" : "handshake");
}

/* GnuTLS is about to take all up to @end: what begins there is counted as if no data were in it. */
static int count_apart(struct tls_chan *tc, size_t end)
{
	while (tc->in_counted < end) {
		tc->last_record_bytes = RECORD_HEADER_BYTES + (size_t)be16_load(tc->in + tc->in_counted + 3);
		tc->in_counted += tc->last_record_bytes;
		tc->apart_bytes += tc->last_record_bytes;
		tc->apart_records++;
	}
	/* The record that it has taken half of would be refused for the whole: so nothing of it is given away. */
	if (!tc->apart_too_much && check_apart(tc, &tc->fault) < 0)
		tc->apart_too_much = true;
	return tc->apart_too_much ? -EPROTO : 0;
}

void tls_records_established(struct tls_chan *tc)
{
	tc->established = true;
	tc->apart_bytes = tc->apart_records = tc->last_record_bytes = 0;
}

void tls_records_data(struct tls_chan *tc, size_t bytes)
{
	tc->data_bytes += bytes;
	if (tc->last_record_bytes == 0)
		return;
	tc->apart_bytes -= tc->last_record_bytes;
	tc->apart_records--;
	tc->last_record_bytes = 0;
}

static ssize_t pull(gnutls_transport_ptr_t ptr, void *buf, size_t bytes)
{
	struct tls_chan *tc = ptr;
	size_t n = tc->in_whole - tc->in_start;

	if (n == 0) {
		gnutls_transport_set_errno(tc->session, EAGAIN);
		return -1;
	}
	if (n > bytes)
		n = bytes;
	if (count_apart(tc, tc->in_start + n) < 0) {
		gnutls_transport_set_errno(tc->session, EMSGSIZE);
		return -1;
	}
	memcpy(buf, tc->in + tc->in_start, n);
	tc->in_start += n;
	return (ssize_t)n;
}

static int pull_timeout(gnutls_transport_ptr_t ptr, unsigned ms)
{
	const struct tls_chan *tc = ptr;

	(void)ms; /* deadlines are ours */
	return tc->in_start < tc->in_whole;
}

static ssize_t push(gnutls_transport_ptr_t ptr, const void *buf, size_t bytes)
{
	struct tls_chan *tc = ptr;
	size_t n = TLS_OUT_BYTES - tc->out_bytes;

	if (n == 0) {
		gnutls_transport_set_errno(tc->session, EAGAIN);
		return -1;
	}
	if (n > bytes)
		n = bytes;
	memcpy(tc->out + tc->out_bytes, buf, n);
	tc->out_bytes += n;
	return (ssize_t)n;
}

void tls_records_attach(struct tls_chan *tc)
{
	gnutls_transport_set_ptr(tc->session, tc);
	gnutls_transport_set_pull_function(tc->session, pull);
	gnutls_transport_set_pull_timeout_function(tc->session, pull_timeout);
	gnutls_transport_set_push_function(tc->session, push);
}

/* ---- the plain channel's side ----------------------------------------------------------------------------------- */

static int check_header(const struct tls_chan *tc, const uint8_t *header, struct err *err)
{
	if (header[0] < RECORD_CCS || header[0] > RECORD_HEARTBEAT || header[1] != 3)
		return err_set(err, -EPROTO, "bytes from %s are no TLS record", tc->chan.name);
	if (RECORD_HEADER_BYTES + (size_t)be16_load(header + 3) > RECORD_BYTES_MAX)
		return err_set(err, -EPROTO, "a TLS record from %s is too long: %u bytes", tc->chan.name,
		               be16_load(header + 3));
	return 0;
}

/* Move in_whole over the records that are complete. What is no record is a fault, once those before it are taken. */
static void find_records(struct tls_chan *tc)
{
	while (tc->in_end - tc->in_whole >= RECORD_HEADER_BYTES) {
		const uint8_t *header = tc->in + tc->in_whole;
		size_t bytes = RECORD_HEADER_BYTES + (size_t)be16_load(header + 3);

		if (check_header(tc, header, &tc->fault) < 0 || bytes > tc->in_end - tc->in_whole)
			break;
		tc->in_whole += bytes;
	}
}

/* Called when all whole records are taken. What is left is less than one record, so there is always room. */
static void make_room(struct tls_chan *tc)
{
	size_t left = tc->in_end - tc->in_start;

	if (tc->in_start == 0)
		return;
	memmove(tc->in, tc->in + tc->in_start, left);
	tc->in_start = tc->in_whole = tc->in_counted = 0;
	tc->in_end = left;
}

may_park int tls_records_fill(struct tls_chan *tc, uint64_t deadline_ns, struct err *err)
{
	struct iovec iov;
	ssize_t n;

	if (tc->in_eof || tc->fault.code)
		return 0;
	ASSERT(tc->in_start == tc->in_whole);
	make_room(tc);
	iov = (struct iovec){ tc->in + tc->in_end, TLS_IN_BYTES - tc->in_end };
	n = chan_readv(tc->plain, &iov, 1, deadline_ns, err);
	if (n < 0)
		return (int)n;
	tc->in_eof = n == 0;
	tc->in_end += (size_t)n;
	find_records(tc);
	return 0;
}

/* More may be put after it during the park (by (1), whole records), so only what was sent is taken out. */
may_park int tls_records_drain(struct tls_chan *tc, uint64_t deadline_ns, struct err *err)
{
	while (tc->out_bytes > 0) {
		size_t bytes = tc->out_bytes;
		int r;

		r = chan_write_all(tc->plain, tc->out, bytes, deadline_ns, err);
		if (r < 0) {
			tc->out_broken = true; /* nobody knows how much of a record went out */
			return r;
		}
		tc->out_bytes -= bytes;
		memmove(tc->out, tc->out + bytes, tc->out_bytes);
	}
	return 0;
}

#endif
