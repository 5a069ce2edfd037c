/* How a session begins, or why it does not, in words that say what to do about it. Source: doc/wire/channels.md 8 */
#include "engine/channel/tls/tls_parts.h"

#if HAVE_GNUTLS

#include "base/clock.h"
#include "base/text.h"

#include <errno.h>
#include <string.h>

/* How long a failed handshake takes to tell the source why. */
#define ALERT_NS NS_PER_S

/* What the source sent instead of a ClientHello. */
static int not_tls(const struct tls_chan *tc, struct err *err)
{
	size_t n = tc->in_end < 4 ? tc->in_end : 4;

	if (n == 4 && !memcmp(tc->in, "QEVM", 4))
		return err_set(err, -EPROTO,
		               "the source speaks without TLS, which is required here: "
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
	return err_set(err, -ENODATA,
	               "closed in the middle of the TLS handshake: usually this means that the source "
	               "%s; its log says why",
	               tc->x509 ? "does not trust our certificate, or has credentials of another type" :
	                          "has other keys, or credentials of another type");
}

static may_park int handshake_fill(struct tls_chan *tc, uint64_t deadline_ns, struct err *err)
{
	bool first = tc->plain->bytes_in == 0;
	int r = tls_records_fill(tc, deadline_ns, err);

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
	       code == GNUTLS_E_DECRYPTION_FAILED ||          /* the end of the handshake in TLS 1.2, */
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
	if (tc->apart_too_much) {
		*err = tc->fault;
		return err->code;
	}
	if (is_wrong_key(&tc->seen, code))
		return wrong_key(&tc->seen, err);
	switch (code) {
	case GNUTLS_E_FATAL_ALERT_RECEIVED:
		return refused(tc, err);
	case GNUTLS_E_CERTIFICATE_REQUIRED:
	case GNUTLS_E_NO_CERTIFICATE_FOUND:
		return err_set(err, -EACCES,
		               "the source shows no certificate, and one is required: "
		               "it needs client-cert.pem and client-key.pem");
	case GNUTLS_E_NO_CIPHER_SUITES:
	case GNUTLS_E_NO_COMMON_KEY_SHARE:
	case GNUTLS_E_INSUFFICIENT_CREDENTIALS:
	case GNUTLS_E_UNSUPPORTED_VERSION_PACKET:
	case GNUTLS_E_UNSUPPORTED_SIGNATURE_ALGORITHM:
	case GNUTLS_E_UNKNOWN_CIPHER_SUITE:
	case GNUTLS_E_NO_PRIORITIES_WERE_SET:
		return err_set(err, -ECONNREFUSED,
		               "nothing in common with the source (%s): "
		               "compare the types of credentials (x509, psk, anon) and the priority strings",
		               gnutls_strerror(code));
	case GNUTLS_E_MEMORY_ERROR:
		return err_set(err, -ENOMEM, "no memory for the TLS handshake");
	default:
		return err_set(err, -EPROTO, "TLS handshake: %s", gnutls_strerror(code));
	}
}

may_park int tls_handshake_alert(struct tls_chan *tc, gnutls_alert_description_t alert, uint64_t deadline_ns)
{
	uint64_t soon = deadline_after_ns(ALERT_NS);
	struct err ignored = ERR_NONE;

	if (gnutls_alert_send(tc->session, GNUTLS_AL_FATAL, alert) < 0)
		return 0;
	return tls_records_drain(tc, soon < deadline_ns ? soon : deadline_ns, &ignored) == -ECANCELED ? -ECANCELED : 0;
}

/* The alert that belongs to an error of the handshake, once what it is has been said in @err. */
static may_park int fail_with_alert(struct tls_chan *tc, int code, uint64_t deadline_ns, struct err *err)
{
	int r = handshake_error(tc, code, err);
	int level = 0, alert;

	if (code == GNUTLS_E_FATAL_ALERT_RECEIVED)
		return r;
	alert = gnutls_error_to_alert(code, &level);
	if (alert >= 0 && tls_handshake_alert(tc, (gnutls_alert_description_t)alert, deadline_ns) == -ECANCELED)
		return err_set(err, -ECANCELED, "cancelled");
	return r;
}

may_park int tls_handshake(struct tls_chan *tc, uint64_t deadline_ns, struct err *err)
{
	for (;;) {
		size_t whole = tc->in_whole - tc->in_start;
		int code = gnutls_handshake(tc->session);
		int r;

		if (code < 0 && !tls_is_again(code) && code != GNUTLS_E_WARNING_ALERT_RECEIVED)
			return fail_with_alert(tc, code, deadline_ns, err);
		/* What is to be sent first goes first: the source may be waiting for it. */
		if (tc->out_bytes > 0) {
			r = tls_records_drain(tc, deadline_ns, err);
			if (r == -EPIPE || r == -ECONNRESET)
				return hung_up(tc, err);
			if (r < 0)
				return err_up(err, r, "in the TLS handshake");
			if (code < 0)
				continue;
		}
		if (code == 0) {
			tls_records_established(tc);
			return 0;
		}
		if (tc->in_start < tc->in_whole && whole != tc->in_whole - tc->in_start)
			continue;
		if (tc->in_start < tc->in_whole)
			return handshake_error(tc, GNUTLS_E_UNEXPECTED_PACKET, err);
		r = handshake_fill(tc, deadline_ns, err);
		if (r < 0)
			return r;
	}
}

#endif
