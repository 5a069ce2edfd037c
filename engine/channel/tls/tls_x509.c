/*
 * The files of certificates: each is checked for what would make handshakes fail, or succeed with the wrong party.
 * Source: doc/wire/channels.md 8.3
 */
#include "engine/channel/tls/tls_creds_parts.h"

#if HAVE_GNUTLS

#include "base/err.h"

#include <errno.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

struct certs {
	gnutls_x509_crt_t *list; /* owned, with what is in it, unless handed on */
	unsigned count;
};

static void certs_fini(struct certs *c)
{
	for (unsigned i = 0; i < c->count; i++)
		gnutls_x509_crt_deinit(c->list[i]);
	gnutls_free(c->list);
	*c = (struct certs){ 0 };
}

static int certs_import(struct certs *c, const struct tls_file *f, struct err *err)
{
	gnutls_datum_t pem = tls_file_datum(f);
	int r = gnutls_x509_crt_list_import2(&c->list, &c->count, &pem, GNUTLS_X509_FMT_PEM, 0);

	if (r == GNUTLS_E_NO_CERTIFICATE_FOUND || r == GNUTLS_E_BASE64_UNEXPECTED_HEADER_ERROR)
		return err_set(err, -EINVAL, "%s: there is no certificate in it (PEM)", f->path);
	return r < 0 ? tls_file_bad(f, r, err) : 0;
}

#define DATE_BYTES 32

static const char *date_text(char buf[static DATE_BYTES], time_t t)
{
	struct tm tm;

	if (!gmtime_r(&t, &tm) || !strftime(buf, DATE_BYTES, "%Y-%m-%d %H:%M:%S UTC", &tm))
		snprintf(buf, DATE_BYTES, "%lld", (long long)t);
	return buf;
}

static int check_dates(const struct tls_file *f, gnutls_x509_crt_t crt, struct err *err)
{
	time_t now = time(NULL);
	time_t from = gnutls_x509_crt_get_activation_time(crt);
	time_t to = gnutls_x509_crt_get_expiration_time(crt);
	char date[DATE_BYTES];

	if (from != (time_t)-1 && now < from)
		return err_set(err, -EINVAL, "%s: the certificate is valid only from %s on", f->path,
		               date_text(date, from));
	if (to != (time_t)-1 && now > to)
		return err_set(err, -EINVAL, "%s: the certificate has expired, on %s", f->path, date_text(date, to));
	return 0;
}

static int check_ca(const struct tls_file *f, gnutls_x509_crt_t crt, struct err *err)
{
	unsigned critical, ca = 0, usage = 0;
	int r = check_dates(f, crt, err);

	if (r < 0)
		return r;
	/* Certificates of version 1 have no extensions; such a one would have to be trusted blindly. */
	r = gnutls_x509_crt_get_basic_constraints(crt, &critical, &ca, NULL);
	if (r < 0 || !ca)
		return err_set(err, -EINVAL, "%s: the certificate is not one of a CA: basic constraints do not say CA",
		               f->path);
	r = gnutls_x509_crt_get_key_usage(crt, &usage, &critical);
	if (r == 0 && !(usage & GNUTLS_KEY_KEY_CERT_SIGN))
		return err_set(err, -EINVAL, "%s: the CA's key usage does not permit it to sign certificates", f->path);
	return 0;
}

/* Return: may the certificate be used for @purpose? One that names no purpose may be used for all. */
static bool purpose_permits(gnutls_x509_crt_t crt, const char *purpose)
{
	char oid[128];

	for (unsigned i = 0;; i++) {
		size_t bytes = sizeof(oid);
		int r = gnutls_x509_crt_get_key_purpose_oid(crt, i, oid, &bytes, NULL);

		if (r == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
			return i == 0;
		if (r == GNUTLS_E_SHORT_MEMORY_BUFFER)
			continue; /* longer than any that we know */
		if (r < 0)
			return false;
		if (!strcmp(oid, purpose) || !strcmp(oid, GNUTLS_KP_ANY))
			return true;
	}
}

static int check_server(const struct tls_file *f, gnutls_x509_crt_t crt, struct err *err)
{
	unsigned critical, usage = 0;
	int r = check_dates(f, crt, err);

	if (r < 0)
		return r;
	r = gnutls_x509_crt_get_key_usage(crt, &usage, &critical);
	/* TLS 1.3 always signs. */
	if (r == 0 && !(usage & GNUTLS_KEY_DIGITAL_SIGNATURE))
		return err_set(err, -EINVAL, "%s: the certificate's key usage does not permit digital signatures",
		               f->path);
	if (!purpose_permits(crt, GNUTLS_KP_TLS_WWW_SERVER))
		return err_set(err, -EINVAL, "%s: the certificate's key purpose does not permit a TLS server", f->path);
	return 0;
}

/* What the source will find: does the chain lead to the CA? */
static int check_chain(const struct tls_file *f, const struct certs *chain, const struct certs *ca, struct err *err)
{
	unsigned status = 0;
	gnutls_datum_t text;
	int r = gnutls_x509_crt_list_verify(chain->list, (int)chain->count, ca->list, (int)ca->count, NULL, 0, 0,
	                                    &status);

	if (r < 0)
		return tls_file_bad(f, r, err);
	if (status == 0)
		return 0;
	if (status & (GNUTLS_CERT_SIGNER_NOT_FOUND | GNUTLS_CERT_SIGNATURE_FAILURE))
		return err_set(err, -EINVAL, "%s: the certificate is not signed by the CA in ca-cert.pem", f->path);
	r = gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0);
	if (r < 0)
		return tls_file_bad(f, r, err);
	err_set(err, -EINVAL, "%s: %s", f->path, (const char *)text.data);
	gnutls_free(text.data);
	return -EINVAL;
}

static int key_import(gnutls_x509_privkey_t *ret_key, const struct tls_file *f, struct err *err)
{
	gnutls_datum_t pem = tls_file_datum(f);
	gnutls_x509_privkey_t key;
	int r = gnutls_x509_privkey_init(&key);

	if (r == 0)
		r = gnutls_x509_privkey_import2(key, &pem, GNUTLS_X509_FMT_PEM, NULL, 0);
	if (r == 0) {
		*ret_key = key;
		return 0;
	}
	gnutls_x509_privkey_deinit(key);
	if (r == GNUTLS_E_DECRYPTION_FAILED || r == GNUTLS_E_PKCS1_WRONG_PAD)
		return err_set(err, -EINVAL, "%s: the key is protected by a password, which is not supported here",
		               f->path);
	if (r == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE || r == GNUTLS_E_BASE64_UNEXPECTED_HEADER_ERROR)
		return err_set(err, -EINVAL, "%s: there is no private key in it (PEM)", f->path);
	return tls_file_bad(f, r, err);
}

static int use_identity(struct tls_creds *creds, const struct tls_file *cert, const struct tls_file *key,
                        const struct certs *ca, struct err *err)
{
	gnutls_x509_privkey_t privkey = NULL;
	struct certs chain = { 0 };
	int r = certs_import(&chain, cert, err);

	if (r == 0)
		r = check_server(cert, chain.list[0], err);
	if (r == 0)
		r = check_chain(cert, &chain, ca, err);
	if (r == 0)
		r = key_import(&privkey, key, err);
	if (r == 0) {
		r = gnutls_certificate_set_x509_key(creds->x509, chain.list, (int)chain.count, privkey);
		if (r == GNUTLS_E_CERTIFICATE_KEY_MISMATCH)
			r = err_set(err, -EINVAL, "%s: the key does not belong to the certificate in %s", key->path,
			            strrchr(cert->path, '/') + 1);
		else
			r = r < 0 ? tls_file_bad(key, r, err) : 0;
	}
	gnutls_x509_privkey_deinit(privkey);
	certs_fini(&chain);
	return r;
}

static int load_identity(struct tls_creds *creds, const char *dir, const char *cert_name, const char *key_name,
                         bool may_be_missing, const struct certs *ca, struct err *err)
{
	struct tls_file cert, key;
	int r = tls_file_read(&cert, dir, cert_name, may_be_missing, err);

	if (r < 0 || !cert.data)
		return r;
	r = tls_file_read(&key, dir, key_name, false, err);
	if (r == 0) {
		r = use_identity(creds, &cert, &key, ca, err);
		tls_file_fini(&key);
	}
	tls_file_fini(&cert);
	return r;
}

static int load_ca(struct tls_creds *creds, const char *dir, struct certs *ca, struct err *err)
{
	struct tls_file f;
	int r = tls_file_read(&f, dir, "ca-cert.pem", false, err);

	if (r < 0)
		return r;
	r = certs_import(ca, &f, err);
	for (unsigned i = 0; r == 0 && i < ca->count; i++)
		r = check_ca(&f, ca->list[i], err);
	if (r == 0) {
		r = gnutls_certificate_set_x509_trust(creds->x509, ca->list, (int)ca->count);
		r = r < 0 ? tls_file_bad(&f, r, err) : 0;
	}
	tls_file_fini(&f);
	return r;
}

static int check_crl_dates(const struct tls_file *f, gnutls_x509_crl_t crl, struct err *err)
{
	time_t now = time(NULL);
	time_t from = gnutls_x509_crl_get_this_update(crl);
	time_t to = gnutls_x509_crl_get_next_update(crl);
	char date[DATE_BYTES];

	if (from != (time_t)-1 && now < from)
		return err_set(err, -EINVAL, "%s: the list is valid only from %s on", f->path, date_text(date, from));
	if (to != (time_t)-1 && now > to)
		return err_set(err, -EINVAL, "%s: the list is out of date since %s", f->path, date_text(date, to));
	return 0;
}

static int load_crl(struct tls_creds *creds, const char *dir, struct err *err)
{
	gnutls_x509_crl_t *crls = NULL;
	unsigned count = 0;
	gnutls_datum_t pem;
	struct tls_file f;
	int r = tls_file_read(&f, dir, "ca-crl.pem", true, err);

	if (r < 0 || !f.data)
		return r;
	pem = tls_file_datum(&f);
	r = gnutls_x509_crl_list_import2(&crls, &count, &pem, GNUTLS_X509_FMT_PEM, 0);
	r = r < 0 ? tls_file_bad(&f, r, err) : 0;
	for (unsigned i = 0; r == 0 && i < count; i++)
		r = check_crl_dates(&f, crls[i], err);
	if (r == 0) {
		r = gnutls_certificate_set_x509_crl(creds->x509, crls, (int)count);
		r = r < 0 ? tls_file_bad(&f, r, err) : 0;
	}
	for (unsigned i = 0; i < count; i++)
		gnutls_x509_crl_deinit(crls[i]);
	gnutls_free(crls);
	tls_file_fini(&f);
	return r;
}

static int load_identities(struct tls_creds *creds, const char *dir, const struct certs *ca, struct err *err)
{
	int r = load_identity(creds, dir, "server-cert.pem", "server-key.pem", false, ca, err);

	for (int i = 0; r == 0 && i < 10; i++) {
		char cert[32], key[32];

		snprintf(cert, sizeof(cert), "server-cert-%d.pem", i);
		snprintf(key, sizeof(key), "server-key-%d.pem", i);
		r = load_identity(creds, dir, cert, key, true, ca, err);
	}
	return r;
}

int tls_x509_load(struct tls_creds *creds, const char *dir, struct err *err)
{
	struct certs ca = { 0 };
	int r;

	if (gnutls_certificate_allocate_credentials(&creds->x509) < 0)
		return err_set(err, -ENOMEM, "no memory for credentials");
	if (creds->dh)
		gnutls_certificate_set_dh_params(creds->x509, creds->dh);
	else
		gnutls_certificate_set_known_dh_params(creds->x509, GNUTLS_SEC_PARAM_MEDIUM);
	r = load_ca(creds, dir, &ca, err);
	if (r == 0)
		r = load_crl(creds, dir, err);
	if (r == 0)
		r = load_identities(creds, dir, &ca, err);
	certs_fini(&ca);
	return r;
}

#endif
