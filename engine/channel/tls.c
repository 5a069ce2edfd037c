#include "engine/channel/tls.h"

#include "base/assert.h"
#include "base/be.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/text.h"
#include "config.h"
#include "engine/channel/channel.h"
#include "engine/channel/tls_creds.h"

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

bool tls_chan_ended_clean(const struct chan *ch)
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

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#define RECORD_HEADER_BYTES 5
#define RECORD_PLAIN_BYTES_MAX 16384
/* RFC 5246 6.2.3; RFC 8446 5.2 has less. */
#define RECORD_BYTES_MAX (RECORD_HEADER_BYTES + RECORD_PLAIN_BYTES_MAX + 2048)

/*
 * One read of the plain channel for several records. Between 64 and 512 KiB bench_tls shows no difference beyond its
 * own spread; 32 KiB costs more. The smallest is taken: there may be hundreds of connections.
 */
#define IN_BYTES (64u << 10)
/* A record, and what a renewal of keys puts in front of it. */
#define OUT_BYTES (RECORD_BYTES_MAX + 1024)

/* How long a failed handshake takes to tell the source why. */
#define ALERT_NS NS_PER_S

enum record_type { RECORD_CCS = 20, RECORD_ALERT, RECORD_HANDSHAKE, RECORD_DATA, RECORD_HEARTBEAT };

struct tls_chan {
	struct chan chan;
	struct chan *plain; /* owned */
	gnutls_session_t session;
	struct tls_seen seen;
	bool x509; /* we show a certificate */

	/*
	 * in[in_start..in_whole) are whole records that GnuTLS has not taken so far, in[in_whole..in_end) is the
	 * beginning of one.
	 */
	uint8_t *in; /* owned, IN_BYTES */
	size_t in_start, in_whole, in_end;
	bool in_eof; /* the plain channel has ended */

	gnutls_packet_t packet; /* owned; a decrypted record that is not read to its end, or NULL */
	const uint8_t *packet_data;
	size_t packet_bytes;

	bool session_over; /* nothing more will come out of GnuTLS: close_notify or an error */
	bool ended_clean;  /* it was close_notify */
	struct err fault;  /* what ends the reading, told when what came before it has been read */

	uint8_t out[OUT_BYTES];
	size_t out_bytes;
	bool out_broken; /* a write ended half way */
};

/* ---- GnuTLS's side: copying between buffers; never parks -------------------------------------------------------- */

static ssize_t tls_pull(gnutls_transport_ptr_t ptr, void *buf, size_t bytes)
{
	struct tls_chan *tc = ptr;
	size_t n = tc->in_whole - tc->in_start;

	if (n == 0) {
		gnutls_transport_set_errno(tc->session, EAGAIN);
		return -1;
	}
	if (n > bytes)
		n = bytes;
	memcpy(buf, tc->in + tc->in_start, n);
	tc->in_start += n;
	return (ssize_t)n;
}

static int tls_pull_timeout(gnutls_transport_ptr_t ptr, unsigned ms)
{
	const struct tls_chan *tc = ptr;

	(void)ms; /* deadlines are ours */
	return tc->in_start < tc->in_whole;
}

static ssize_t tls_push(gnutls_transport_ptr_t ptr, const void *buf, size_t bytes)
{
	struct tls_chan *tc = ptr;
	size_t n = OUT_BYTES - tc->out_bytes;

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
	tc->in_start = tc->in_whole = 0;
	tc->in_end = left;
}

/* One read of the plain channel. Return: 0, also at its end (in_eof) and with a fault in what came; its error. */
static may_park int fill(struct tls_chan *tc, uint64_t deadline_ns, struct err *err)
{
	struct iovec iov;
	ssize_t n;

	if (tc->in_eof || tc->fault.code)
		return 0;
	ASSERT(tc->in_start == tc->in_whole);
	make_room(tc);
	iov = (struct iovec){ tc->in + tc->in_end, IN_BYTES - tc->in_end };
	n = chan_readv(tc->plain, &iov, 1, deadline_ns, err);
	if (n < 0)
		return (int)n;
	tc->in_eof = n == 0;
	tc->in_end += (size_t)n;
	find_records(tc);
	return 0;
}

/*
 * Send what GnuTLS has put into the out buffer. More may be put behind it during the park (by (1), whole records), so
 * only what was sent is taken out.
 */
static may_park int drain(struct tls_chan *tc, uint64_t deadline_ns, struct err *err)
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

static bool is_again(ssize_t code)
{
	return code == GNUTLS_E_AGAIN || code == GNUTLS_E_INTERRUPTED;
}

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
			return 1;
		}
		drop_packet(tc);
		if ((is_again(n) || n == GNUTLS_E_WARNING_ALERT_RECEIVED) && tc->in_start > before)
			continue;
		tc->session_over = true;
		tc->ended_clean = n == 0;
		if (n < 0)
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
		r = fill(tc, deadline_ns, err);
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
		int r = drain(tc, deadline_ns, err);

		if (r < 0)
			return r;
		if (n >= 0) {
			*ret_written = (size_t)n;
			return 0;
		}
		if (!is_again(n))
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

/* ---- the handshake ---------------------------------------------------------------------------------------------- */

/* What the source sent instead of a ClientHello. */
static int not_tls(const struct tls_chan *tc, struct err *err)
{
	size_t n = tc->in_end < 4 ? tc->in_end : 4;

	if (n == 4 && !memcmp(tc->in, "QEVM", 4))
		return err_set(err, -EPROTO, "the source speaks without TLS, which is required here: "
			       "set parameter tls-creds at the source");
	return err_set(err, -EPROTO, "TLS is required here, but the connection began with '%s', which is not TLS",
		       TEXT_QUOTE(tc->in, n));
}

/* An end or a reset. */
static int hung_up(const struct tls_chan *tc, struct err *err)
{
	if (tc->plain->bytes_in == 0)
		return err_set(err, -ENODATA, "closed before the TLS handshake");
	if (tc->plain->bytes_out == 0 && tc->out_bytes == 0)
		return err_set(err, -ENODATA, "closed in the middle of its first TLS message");
	return err_set(err, -ENODATA, "closed in the middle of the TLS handshake: usually this means that the source "
		       "%s; its log says why",
		       tc->x509 ? "does not trust our certificate, or has credentials of another type" :
				  "has other keys, or credentials of another type");
}

static may_park int handshake_fill(struct tls_chan *tc, uint64_t deadline_ns, struct err *err)
{
	bool first = tc->plain->bytes_in == 0;
	int r = fill(tc, deadline_ns, err);

	if (r == -ETIMEDOUT)
		return err_set(err, r, "the TLS handshake was not over before the deadline; %llu bytes came",
			       (unsigned long long)tc->plain->bytes_in);
	if (r == -ECONNRESET)
		return hung_up(tc, err);
	if (r < 0)
		return err_up(err, r, "in the TLS handshake");
	if (first && tc->in_end > 0 && tc->in[0] != RECORD_HANDSHAKE)
		return not_tls(tc, err);
	if (tc->in_start < tc->in_whole)
		return 0;
	if (tc->fault.code)
		*err = tc->fault;
	else if (tc->in_eof)
		return hung_up(tc, err);
	return tc->fault.code;
}

static int refused(const struct tls_chan *tc, struct err *err)
{
	gnutls_alert_description_t alert = gnutls_alert_get(tc->session);
	const char *name = gnutls_alert_get_name(alert);
	const char *help = "";

	switch (alert) {
	case GNUTLS_A_UNKNOWN_CA:
		help = ": it does not know the CA of our certificate; both sides need the same ca-cert.pem";
		break;
	case GNUTLS_A_BAD_CERTIFICATE:
	case GNUTLS_A_CERTIFICATE_UNKNOWN:
	case GNUTLS_A_CERTIFICATE_REVOKED:
		help = ": it does not accept our certificate; is it made for this host's name?";
		break;
	case GNUTLS_A_CERTIFICATE_EXPIRED:
		help = ": it finds our certificate out of its dates; compare the clocks";
		break;
	case GNUTLS_A_HANDSHAKE_FAILURE:
	case GNUTLS_A_INSUFFICIENT_SECURITY:
	case GNUTLS_A_PROTOCOL_VERSION:
		help = ": compare the types of credentials and the priority strings";
		break;
	case GNUTLS_A_DECRYPT_ERROR:
	case GNUTLS_A_UNKNOWN_PSK_IDENTITY:
		help = ": compare the keys of both sides";
		break;
	default:
		break;
	}
	return err_set(err, -ECONNREFUSED, "the source ends the TLS handshake with the alert '%s'%s",
		       name ? name : "unknown", help);
}

/* A key that does not fit shows in a MAC that does not fit; GnuTLS's code says only that. */
static bool is_wrong_key(const struct tls_seen *seen, int code)
{
	if (!seen->identity_asked)
		return false;
	return code == GNUTLS_E_RECEIVED_ILLEGAL_PARAMETER || /* the binder in TLS 1.3 */
	       code == GNUTLS_E_DECRYPTION_FAILED ||           /* the end of the handshake in TLS 1.2, */
	       (code == GNUTLS_E_FATAL_ALERT_RECEIVED && !seen->identity_known); /* which the source may see first */
}

static int wrong_key(const struct tls_seen *seen, struct err *err)
{
	if (!seen->identity_known)
		return err_set(err, -EACCES, "the source's pre-shared key identity '%s' is not in keys.psk",
			       seen->identity);
	return err_set(err, -EACCES, "the source's pre-shared key for identity '%s' is not the one in keys.psk",
		       seen->identity);
}

static int handshake_error(struct tls_chan *tc, int code, struct err *err)
{
	if (is_wrong_key(&tc->seen, code))
		return wrong_key(&tc->seen, err);
	switch (code) {
	case GNUTLS_E_FATAL_ALERT_RECEIVED:
		return refused(tc, err);
	case GNUTLS_E_CERTIFICATE_REQUIRED:
	case GNUTLS_E_NO_CERTIFICATE_FOUND:
		return err_set(err, -EACCES, "the source shows no certificate, and one is required: "
			       "it needs client-cert.pem and client-key.pem");
	case GNUTLS_E_NO_CIPHER_SUITES:
	case GNUTLS_E_NO_COMMON_KEY_SHARE:
	case GNUTLS_E_INSUFFICIENT_CREDENTIALS:
	case GNUTLS_E_UNSUPPORTED_VERSION_PACKET:
	case GNUTLS_E_UNSUPPORTED_SIGNATURE_ALGORITHM:
	case GNUTLS_E_UNKNOWN_CIPHER_SUITE:
	case GNUTLS_E_NO_PRIORITIES_WERE_SET:
		return err_set(err, -ECONNREFUSED, "nothing in common with the source (%s): "
			       "compare the types of credentials (x509, psk, anon) and the priority strings",
			       gnutls_strerror(code));
	case GNUTLS_E_MEMORY_ERROR:
		return err_set(err, -ENOMEM, "no memory for the TLS handshake");
	default:
		return err_set(err, -EPROTO, "TLS handshake: %s", gnutls_strerror(code));
	}
}

/* Tell the source, if it can be done soon. Return: 0, or -ECANCELED, which must not get lost. */
static may_park int send_alert(struct tls_chan *tc, gnutls_alert_description_t alert, uint64_t deadline_ns)
{
	uint64_t soon = deadline_after_ns(ALERT_NS);
	struct err ignored = ERR_NONE;

	if (gnutls_alert_send(tc->session, GNUTLS_AL_FATAL, alert) < 0)
		return 0;
	return drain(tc, soon < deadline_ns ? soon : deadline_ns, &ignored) == -ECANCELED ? -ECANCELED : 0;
}

/* The alert that belongs to an error of the handshake, once what it is has been said in @err. */
static may_park int fail_with_alert(struct tls_chan *tc, int code, uint64_t deadline_ns, struct err *err)
{
	int r = handshake_error(tc, code, err);
	int level = 0, alert;

	if (code == GNUTLS_E_FATAL_ALERT_RECEIVED)
		return r;
	alert = gnutls_error_to_alert(code, &level);
	if (alert >= 0 && send_alert(tc, (gnutls_alert_description_t)alert, deadline_ns) == -ECANCELED)
		return err_set(err, -ECANCELED, "cancelled");
	return r;
}

static may_park int shake_hands(struct tls_chan *tc, uint64_t deadline_ns, struct err *err)
{
	for (;;) {
		size_t whole = tc->in_whole - tc->in_start;
		int code = gnutls_handshake(tc->session);
		int r;

		if (code < 0 && !is_again(code) && code != GNUTLS_E_WARNING_ALERT_RECEIVED)
			return fail_with_alert(tc, code, deadline_ns, err);
		/* What is to be sent first goes first: the source may be waiting for it. */
		if (tc->out_bytes > 0) {
			r = drain(tc, deadline_ns, err);
			if (r == -EPIPE || r == -ECONNRESET)
				return hung_up(tc, err);
			if (r < 0)
				return err_up(err, r, "in the TLS handshake");
			if (code < 0)
				continue;
		}
		if (code == 0)
			return 0;
		if (tc->in_start < tc->in_whole && whole != tc->in_whole - tc->in_start)
			continue;
		if (tc->in_start < tc->in_whole)
			return handshake_error(tc, GNUTLS_E_UNEXPECTED_PACKET, err);
		r = handshake_fill(tc, deadline_ns, err);
		if (r < 0)
			return r;
	}
}

/* ---- who is it? ------------------------------------------------------------------------------------------------- */

static int explain_status(unsigned status, gnutls_alert_description_t *ret_alert, struct err *err)
{
	*ret_alert = GNUTLS_A_BAD_CERTIFICATE;
	if (status & GNUTLS_CERT_REVOKED) {
		*ret_alert = GNUTLS_A_CERTIFICATE_REVOKED;
		return err_set(err, -EACCES, "the source's certificate has been revoked (ca-crl.pem)");
	}
	if (status & GNUTLS_CERT_EXPIRED) {
		*ret_alert = GNUTLS_A_CERTIFICATE_EXPIRED;
		return err_set(err, -EACCES, "the source's certificate has expired");
	}
	if (status & GNUTLS_CERT_NOT_ACTIVATED) {
		*ret_alert = GNUTLS_A_CERTIFICATE_EXPIRED;
		return err_set(err, -EACCES, "the source's certificate is not yet valid; compare the clocks");
	}
	if (status & (GNUTLS_CERT_SIGNER_NOT_FOUND | GNUTLS_CERT_SIGNER_NOT_CA | GNUTLS_CERT_SIGNATURE_FAILURE)) {
		*ret_alert = GNUTLS_A_UNKNOWN_CA;
		return err_set(err, -EACCES, "the source's certificate is not signed by the CA in ca-cert.pem");
	}
	if (status & GNUTLS_CERT_PURPOSE_MISMATCH)
		return err_set(err, -EACCES, "the source's certificate's key purpose does not permit a TLS client");
	if (status & (GNUTLS_CERT_REVOCATION_DATA_SUPERSEDED | GNUTLS_CERT_REVOCATION_DATA_ISSUED_IN_FUTURE))
		return err_set(err, -EACCES, "the list of revoked certificates (ca-crl.pem) is out of its dates");
	if (status & GNUTLS_CERT_INSECURE_ALGORITHM)
		return err_set(err, -EACCES, "the source's certificate is signed with an insecure algorithm");
	return err_set(err, -EACCES, "the source's certificate does not verify (status 0x%x)", status);
}

/* The name in the source's certificate. Return: 0, -ENOMEM, -EACCES. @ret_dn: freed by gnutls_free */
static int peer_name(struct tls_chan *tc, gnutls_datum_t *ret_dn, struct err *err)
{
	unsigned count = 0;
	const gnutls_datum_t *list = gnutls_certificate_get_peers(tc->session, &count);
	gnutls_x509_crt_t crt;
	int r;

	if (!list || count == 0)
		return err_set(err, -EACCES, "the source shows no certificate");
	if (gnutls_x509_crt_init(&crt) < 0)
		return err_set(err, -ENOMEM, "no memory for the source's certificate");
	r = gnutls_x509_crt_import(crt, &list[0], GNUTLS_X509_FMT_DER);
	if (r == 0)
		r = gnutls_x509_crt_get_dn3(crt, ret_dn, GNUTLS_X509_DN_FLAG_COMPAT);
	gnutls_x509_crt_deinit(crt);
	if (r < 0)
		return err_set(err, -EACCES, "the source's certificate has no readable name: %s", gnutls_strerror(r));
	return 0;
}

static int authorise(struct tls_chan *tc, const char *patterns, gnutls_alert_description_t *ret_alert, struct err *err)
{
	gnutls_datum_t dn = { NULL, 0 };
	int r;

	*ret_alert = GNUTLS_A_ACCESS_DENIED;
	r = peer_name(tc, &dn, err);
	if (r < 0)
		return r;
	/* A NUL in it would hide its end from us. */
	if (memchr(dn.data, '\0', dn.size) || !tls_authz_match(patterns, (const char *)dn.data))
		r = err_set(err, -EACCES, "the source '%s' is not among those that tls-authz accepts",
			    TEXT_QUOTE(dn.data, dn.size));
	gnutls_free(dn.data);
	return r;
}

static int verify(struct tls_chan *tc, const struct tls_options *o, gnutls_alert_description_t *ret_alert,
		  struct err *err)
{
	gnutls_typed_vdata_st purpose = { GNUTLS_DT_KEY_PURPOSE_OID, (unsigned char *)GNUTLS_KP_TLS_WWW_CLIENT, 0 };
	unsigned status = 0;
	int r;

	if (o->type != TLS_CREDS_X509 || !o->verify_peer)
		return 0;
	r = gnutls_certificate_verify_peers(tc->session, &purpose, 1, &status);
	if (r < 0) {
		*ret_alert = GNUTLS_A_BAD_CERTIFICATE;
		return err_set(err, r == GNUTLS_E_MEMORY_ERROR ? -ENOMEM : -EACCES, "the source's certificate: %s",
			       gnutls_strerror(r));
	}
	if (status)
		return explain_status(status, ret_alert, err);
	return o->authz && o->authz[0] ? authorise(tc, o->authz, ret_alert, err) : 0;
}

/* ---- the channel ------------------------------------------------------------------------------------------------ */

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
	.close = tls_close,
};

/* For tests only: see the option. */
static int enable_tickets(struct tls_chan *tc)
{
	gnutls_datum_t key = { NULL, 0 };
	int r = gnutls_session_ticket_key_generate(&key);

	if (r == 0)
		r = gnutls_session_ticket_enable_server(tc->session, &key);
	if (key.data)
		gnutls_memset(key.data, 0, key.size);
	gnutls_free(key.data);
	return r;
}

static int session_init(struct tls_chan *tc, const struct tls_creds *creds, const struct tls_options *o,
			struct err *err)
{
	unsigned flags = GNUTLS_SERVER;
	int r;

	/* (3). GnuTLS sends none of its own accord; the flags say so again. */
	if (!o->tickets)
		flags |= GNUTLS_NO_TICKETS | GNUTLS_NO_TICKETS_TLS12;
	if (gnutls_init(&tc->session, flags) < 0) {
		tc->session = NULL;
		return err_set(err, -ENOMEM, "no memory for a TLS session");
	}
	if (o->tickets && enable_tickets(tc) < 0)
		return err_set(err, -ENOMEM, "no memory for session tickets");
	r = tls_creds_attach(creds, tc->session, &tc->seen, err);
	if (r < 0)
		return r;
	gnutls_handshake_set_timeout(tc->session, GNUTLS_INDEFINITE_TIMEOUT); /* the deadline is ours */
	gnutls_transport_set_ptr(tc->session, tc);
	gnutls_transport_set_pull_function(tc->session, tls_pull);
	gnutls_transport_set_pull_timeout_function(tc->session, tls_pull_timeout);
	gnutls_transport_set_push_function(tc->session, tls_push);
	return 0;
}

static may_park int establish(struct tls_chan *tc, const struct tls_creds *creds, const struct tls_options *o,
			      uint64_t deadline_ns, struct err *err)
{
	gnutls_alert_description_t alert = GNUTLS_A_BAD_CERTIFICATE;
	int r = session_init(tc, creds, o, err);

	if (r == 0)
		r = shake_hands(tc, deadline_ns, err);
	if (r < 0)
		return r;
	r = verify(tc, o, &alert, err);
	if (r < 0 && send_alert(tc, alert, deadline_ns) == -ECANCELED)
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
	tc->in = malloc(IN_BYTES);
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

bool tls_chan_ended_clean(const struct chan *ch)
{
	return tls_chan_is(ch) && ((const struct tls_chan *)ch)->ended_clean;
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
