/* Who the source is: its certificate, and the name in it. Source: doc/wire/channels.md 8.4 */
#include "engine/channel/tls/tls_parts.h"

#if HAVE_GNUTLS

#include "base/text.h"

#include <errno.h>
#include <gnutls/x509.h>
#include <string.h>

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
		return err_set(err, -EACCES,
		               "the source's certificate is valid only from a later time on; compare the clocks");
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

int tls_verify(struct tls_chan *tc, const struct tls_options *o, gnutls_alert_description_t *ret_alert, struct err *err)
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

#endif
