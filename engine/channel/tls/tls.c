#include "engine/channel/tls/tls.h"

#include "base/err.h"
#include "config.h"
#include "engine/channel/channel.h"
#include "engine/channel/tls/tls_creds.h"
#include "engine/channel/tls/tls_parts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if !HAVE_GNUTLS

int tls_chan_wrap(struct chan **ret_chan, struct chan *plain, const struct tls_creds *creds,
                  const struct tls_options *o, uint64_t deadline_ns, struct err *err)
{
	(void)ret_chan;
	(void)creds;
	(void)o;
	(void)deadline_ns;
	chan_close(plain);
	return err_set(err, -ENOTSUP, "TLS is not in this build: it was configured without GnuTLS");
}

bool tls_chan_is(const struct chan *ch)
{
	(void)ch;
	return false;
}

const char *tls_chan_describe(const struct chan *ch, char buf[static TLS_SESSION_TEXT_BYTES])
{
	(void)ch;
	buf[0] = '\0';
	return buf;
}

#else

/* ---- reading ---------------------------------------------------------------------------------------------------- */

static void drop_packet(struct tls_chan *tc)
{
	if (tc->packet)
		gnutls_packet_deinit(tc->packet);
	tc->packet = NULL;
	tc->packet_bytes = 0;
}

static int read_error(const struct tls_chan *tc, int code, struct err *err)
{
	const char *name = tc->chan.name;

	switch (code) {
	case GNUTLS_E_FATAL_ALERT_RECEIVED:
		return err_set(err, -ECONNRESET, "%s ended TLS with the alert '%s'", name,
		               gnutls_alert_get_name(gnutls_alert_get(tc->session)));
	case GNUTLS_E_REHANDSHAKE:
		return err_set(err, -EPROTO, "%s asks for TLS renegotiation, which is refused", name);
	case GNUTLS_E_DECRYPTION_FAILED:
		return err_set(err, -EPROTO, "a TLS record from %s fails its integrity check: changed on the way",
		               name);
	case GNUTLS_E_MEMORY_ERROR:
		return err_set(err, -ENOMEM, "no memory for a TLS record");
	default:
		return err_set(err, -EPROTO, "TLS from %s: %s", name, gnutls_strerror(code));
	}
}

/*
 * The next decrypted record becomes tc->packet. Return: 1; 0 when there is none: more bytes are needed, or tc->fault or
 * tc->session_over says why none will come. Each turn takes a whole record that the source has sent, so the loop ends.
 */
static int next_packet(struct tls_chan *tc)
{
	while (!tc->session_over && (tc->in_start < tc->in_whole || gnutls_record_check_pending(tc->session) > 0)) {
		size_t before = tc->in_start;
		gnutls_datum_t data = { NULL, 0 };
		ssize_t n = gnutls_record_recv_packet(tc->session, &tc->packet);

		if (n > 0) {
			gnutls_packet_get(tc->packet, &data, NULL);
			tc->packet_data = data.data;
			tc->packet_bytes = data.size;
			tls_records_data(tc, data.size);
			return 1;
		}
		drop_packet(tc);
		if ((tls_is_again(n) || n == GNUTLS_E_WARNING_ALERT_RECEIVED) && tc->in_start > before)
			continue;
		tc->session_over = true;
		if (n < 0 && !tc->apart_too_much)
			read_error(tc, (int)n, &tc->fault);
	}
	return 0;
}

/* Decrypt into @iov what can be had without a park. Return: bytes. */
static ssize_t read_buffered(struct tls_chan *tc, const struct iovec *iov, int iov_count)
{
	ssize_t total = 0;
	size_t off = 0; /* within iov[i] */

	for (int i = 0; i < iov_count;) {
		size_t n = iov[i].iov_len - off;

		if (n == 0) {
			i++;
			off = 0;
			continue;
		}
		if (tc->packet_bytes == 0) {
			drop_packet(tc);
			if (!next_packet(tc))
				break;
		}
		if (n > tc->packet_bytes)
			n = tc->packet_bytes;
		memcpy((char *)iov[i].iov_base + off, tc->packet_data, n);
		tc->packet_data += n;
		tc->packet_bytes -= n;
		off += n;
		total += (ssize_t)n;
	}
	return total;
}

/* The plain channel has ended and all whole records are read. */
static ssize_t read_end(const struct tls_chan *tc, struct err *err)
{
	if (tc->in_end > tc->in_whole)
		return err_set(err, -ENODATA, "%s: cut off inside a TLS record", tc->chan.name);
	return 0;
}

static bool iov_empty(const struct iovec *iov, int iov_count)
{
	for (int i = 0; i < iov_count; i++)
		if (iov[i].iov_len > 0)
			return false;
	return true;
}

static ssize_t tls_readv(struct chan *ch, struct iovec *iov, int iov_count, uint64_t deadline_ns, struct err *err)
{
	struct tls_chan *tc = (struct tls_chan *)ch;

	if (iov_empty(iov, iov_count))
		return 0;
	for (;;) {
		ssize_t n = read_buffered(tc, iov, iov_count);
		int r;

		if (n > 0)
			return n;
		if (tc->fault.code) {
			*err = tc->fault;
			return tc->fault.code;
		}
		if (tc->session_over)
			return 0;
		if (tc->in_eof)
			return read_end(tc, err);
		r = tls_records_fill(tc, deadline_ns, err);
		if (r < 0)
			return r;
	}
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

static may_park int write_record(struct tls_chan *tc, const char *buf, size_t bytes, uint64_t deadline_ns,
                                 size_t *ret_written, struct err *err)
{
	for (;;) {
		ssize_t n = gnutls_record_send(tc->session, buf, bytes);
		int r = tls_records_drain(tc, deadline_ns, err);

		if (r < 0)
			return r;
		if (n >= 0) {
			*ret_written = (size_t)n;
			return 0;
		}
		if (!tls_is_again(n))
			return err_set(err, n == GNUTLS_E_MEMORY_ERROR ? -ENOMEM : -EIO, "TLS to %s: %s", tc->chan.name,
			               gnutls_strerror((int)n));
	}
}

static int tls_write_all(struct chan *ch, const void *buf, size_t bytes, uint64_t deadline_ns, struct err *err)
{
	struct tls_chan *tc = (struct tls_chan *)ch;
	const char *p = buf;

	while (bytes > 0) {
		size_t n = bytes;
		int r;

		if (tc->out_broken)
			return err_set(err, -EPIPE, "%s: an earlier write ended half way", ch->name);
		if (n > RECORD_PLAIN_BYTES_MAX)
			n = RECORD_PLAIN_BYTES_MAX;
		r = write_record(tc, p, n, deadline_ns, &n, err);
		if (r < 0)
			return r;
		p += n;
		bytes -= n;
	}
	return 0;
}

/* ---- the channel ------------------------------------------------------------------------------------------------ */

static bool tls_hung_up(const struct chan *ch)
{
	return chan_hung_up(((const struct tls_chan *)ch)->plain);
}

static size_t tls_pending(const struct chan *ch)
{
	const struct tls_chan *tc = (const struct tls_chan *)ch;
	size_t plain = chan_pending(tc->plain);

	return plain == SIZE_MAX ? plain : plain + (tc->in_end - tc->in_start) + tc->packet_bytes;
}

static void tls_shut_down(struct chan *ch)
{
	chan_shut_down(((struct tls_chan *)ch)->plain);
}

static void tls_close(struct chan *ch)
{
	struct tls_chan *tc = (struct tls_chan *)ch;

	drop_packet(tc);
	if (tc->session)
		gnutls_deinit(tc->session);
	chan_close(tc->plain);
	free(tc->in);
	free(tc);
}

static const struct chan_ops tls_ops = {
	.readv = tls_readv,
	.write_all = tls_write_all,
	.hung_up = tls_hung_up,
	.pending = tls_pending,
	.shut_down = tls_shut_down,
	.close = tls_close,
};

static int session_init(struct tls_chan *tc, const struct tls_creds *creds, struct err *err)
{
	/* (3). GnuTLS sends no tickets of its own accord; the flags say so again. */
	unsigned flags = GNUTLS_SERVER | GNUTLS_NO_TICKETS | GNUTLS_NO_TICKETS_TLS12;
	int r;

	if (gnutls_init(&tc->session, flags) < 0) {
		tc->session = NULL;
		return err_set(err, -ENOMEM, "no memory for a TLS session");
	}
	r = tls_creds_attach(creds, tc->session, &tc->seen, err);
	if (r < 0)
		return r;
	gnutls_handshake_set_timeout(tc->session, GNUTLS_INDEFINITE_TIMEOUT); /* the deadline is ours */
	tls_records_attach(tc);
	return 0;
}

static may_park int establish(struct tls_chan *tc, const struct tls_creds *creds, const struct tls_options *o,
                              uint64_t deadline_ns, struct err *err)
{
	gnutls_alert_description_t alert = GNUTLS_A_BAD_CERTIFICATE;
	int r = session_init(tc, creds, err);

	if (r == 0)
		r = tls_handshake(tc, deadline_ns, err);
	if (r < 0)
		return r;
	r = tls_verify(tc, o, &alert, err);
	if (r < 0 && tls_handshake_alert(tc, alert, deadline_ns) == -ECANCELED)
		return err_set(err, -ECANCELED, "cancelled");
	return r;
}

int tls_chan_wrap(struct chan **ret_chan, struct chan *plain, const struct tls_creds *creds,
                  const struct tls_options *o, uint64_t deadline_ns, struct err *err)
{
	struct tls_chan *tc = calloc(1, sizeof(*tc));
	int r;

	if (!tc) {
		chan_close(plain);
		return err_set(err, -ENOMEM, "no memory for a TLS channel");
	}
	tc->chan.ops = &tls_ops;
	tc->chan.can_write = plain->can_write;
	memcpy(tc->chan.name, plain->name, sizeof(tc->chan.name));
	tc->plain = plain;
	tc->x509 = o->type == TLS_CREDS_X509;
	tc->in = malloc(TLS_IN_BYTES);
	r = tc->in ? establish(tc, creds, o, deadline_ns, err) : err_set(err, -ENOMEM, "no memory for a TLS channel");
	if (r < 0) {
		tls_close(&tc->chan);
		return r;
	}
	*ret_chan = &tc->chan;
	return 0;
}

bool tls_chan_is(const struct chan *ch)
{
	return ch->ops == &tls_ops;
}

const char *tls_chan_describe(const struct chan *ch, char buf[static TLS_SESSION_TEXT_BYTES])
{
	gnutls_session_t session;
	gnutls_group_t group;

	buf[0] = '\0';
	if (!tls_chan_is(ch))
		return buf;
	session = ((const struct tls_chan *)ch)->session;
	group = gnutls_group_get(session);
	snprintf(buf, TLS_SESSION_TEXT_BYTES, "%s %s%s%s %s",
	         gnutls_protocol_get_name(gnutls_protocol_get_version(session)),
	         gnutls_kx_get_name(gnutls_kx_get(session)), group ? " " : "",
	         group ? gnutls_group_get_name(group) : "", gnutls_cipher_get_name(gnutls_cipher_get(session)));
	return buf;
}

#endif
