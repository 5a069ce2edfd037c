#include "engine/channel/tls/tls_creds.h"

#include "base/err.h"
#include "config.h"
#include "engine/channel/tls/tls_creds_parts.h"
#include "engine/options/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tls_options tls_options_of(const struct options *opts)
{
	return (struct tls_options){
		.type = (enum tls_creds_type)opts->tls_creds_type,
		.dir = opts->tls_creds_dir,
		.priority = opts->tls_priority,
		.authz = opts->tls_authz,
		.verify_peer = opts->tls_verify_peer,
	};
}

static bool is_set(const char *text)
{
	return text && text[0];
}

/* ---- the priority string ---------------------------------------------------------------------------------------- */

#define PRIORITY_VERSIONS "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-CIPHER-ALL"
#define PRIORITY_AES ":+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305:%SERVER_PRECEDENCE"
#define PRIORITY_CHACHA ":+CHACHA20-POLY1305:+AES-128-GCM:+AES-256-GCM:%SERVER_PRECEDENCE"

static const char *const priority_suffixes[] = {
	[TLS_CREDS_X509] = "",
	[TLS_CREDS_PSK] = ":+ECDHE-PSK:+DHE-PSK:+PSK",
	[TLS_CREDS_ANON] = ":+ANON-DH",
};

const char *tls_creds_priority(char buf[static TLS_PRIORITY_BYTES], const struct tls_options *o, bool fast_aes)
{
	if (is_set(o->priority))
		snprintf(buf, TLS_PRIORITY_BYTES, "%s%s", o->priority, priority_suffixes[o->type]);
	else
		snprintf(buf, TLS_PRIORITY_BYTES, "%s%s%s", PRIORITY_VERSIONS,
		         fast_aes ? PRIORITY_AES : PRIORITY_CHACHA, priority_suffixes[o->type]);
	return buf;
}

#if !HAVE_GNUTLS

int tls_creds_load(struct tls_creds **ret_creds, const struct tls_options *o, struct err *err)
{
	(void)ret_creds;
	(void)o;
	return err_set(err, -ENOTSUP, "TLS is not in this build: it was configured without GnuTLS");
}

void tls_creds_free(struct tls_creds *creds)
{
	(void)creds;
}

#else

#include <sys/auxv.h>

/* ---- loading ---------------------------------------------------------------------------------------------------- */

static int load_anon(struct tls_creds *creds, struct err *err)
{
	if (gnutls_anon_allocate_server_credentials(&creds->anon) < 0)
		return err_set(err, -ENOMEM, "no memory for credentials");
	if (creds->dh)
		gnutls_anon_set_server_dh_params(creds->anon, creds->dh);
	else
		gnutls_anon_set_server_known_dh_params(creds->anon, GNUTLS_SEC_PARAM_MEDIUM);
	return 0;
}

static int load_dh(struct tls_creds *creds, const char *dir, struct err *err)
{
	gnutls_datum_t pem;
	struct tls_file f;
	int r = tls_file_read(&f, dir, "dh-params.pem", true, err);

	if (r < 0 || !f.data)
		return r;
	pem = tls_file_datum(&f);
	r = gnutls_dh_params_init(&creds->dh);
	if (r == 0)
		r = gnutls_dh_params_import_pkcs3(creds->dh, &pem, GNUTLS_X509_FMT_PEM);
	r = r < 0 ? tls_file_bad(&f, r, err) : 0;
	tls_file_fini(&f);
	return r;
}

/* Instructions for AES and for the multiplication in GCM. */
static bool cpu_has_aes(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_cpu_init();
	return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
#elif defined(__aarch64__)
	return (getauxval(AT_HWCAP) & (1ul << 3 | 1ul << 4)) == (1ul << 3 | 1ul << 4); /* HWCAP_AES, HWCAP_PMULL */
#else
	return false;
#endif
}

static int load_priority(struct tls_creds *creds, const struct tls_options *o, struct err *err)
{
	char text[TLS_PRIORITY_BYTES];
	const char *where = text;
	int r;

	if (is_set(o->priority) && strlen(o->priority) > TLS_PRIORITY_BYTES - 64)
		return err_set(err, -EINVAL, "the TLS priority string is too long");
	tls_creds_priority(text, o, cpu_has_aes());
	r = gnutls_priority_init2(&creds->priority, text, &where, 0);
	if (r == GNUTLS_E_INVALID_REQUEST && where)
		return err_set(err, -EINVAL, "the TLS priority string is not understood from '%s' on",
		               TEXT_QUOTE(where, strlen(where)));
	return r < 0 ? err_set(err, -EINVAL, "the TLS priority string: %s", gnutls_strerror(r)) : 0;
}

static int load_type(struct tls_creds *creds, const char *dir, struct err *err)
{
	switch (creds->type) {
	case TLS_CREDS_X509:
		return tls_x509_load(creds, dir, err);
	case TLS_CREDS_PSK:
		return tls_psk_load(creds, dir, err);
	case TLS_CREDS_ANON:
		return load_anon(creds, err);
	}
	return err_set(err, -EINVAL, "unknown type of TLS credentials");
}

/* What would be asked for in vain must not pass for done. */
static int check_options(const struct tls_options *o, struct err *err)
{
	if (o->type != TLS_CREDS_ANON && !is_set(o->dir))
		return err_set(err, -EINVAL, "TLS credentials need a directory");
	if (is_set(o->authz) && (o->type != TLS_CREDS_X509 || !o->verify_peer))
		return err_set(err, -EINVAL, "names can be authorised only with x509 credentials and verified peers");
	return 0;
}

int tls_creds_load(struct tls_creds **ret_creds, const struct tls_options *o, struct err *err)
{
	struct tls_creds *creds;
	int r = check_options(o, err);

	if (r < 0)
		return r;
	creds = calloc(1, sizeof(*creds));
	if (!creds)
		return err_set(err, -ENOMEM, "no memory for credentials");
	creds->type = o->type;
	creds->verify_peer = o->verify_peer;
	r = load_priority(creds, o, err);
	if (r == 0 && is_set(o->dir))
		r = load_dh(creds, o->dir, err);
	if (r == 0)
		r = load_type(creds, o->dir, err);
	if (r < 0) {
		tls_creds_free(creds);
		return r;
	}
	*ret_creds = creds;
	return 0;
}

void tls_creds_free(struct tls_creds *creds)
{
	if (!creds)
		return;
	if (creds->x509)
		gnutls_certificate_free_credentials(creds->x509);
	if (creds->psk)
		gnutls_psk_free_server_credentials(creds->psk);
	if (creds->anon)
		gnutls_anon_free_server_credentials(creds->anon);
	if (creds->dh)
		gnutls_dh_params_deinit(creds->dh);
	gnutls_priority_deinit(creds->priority);
	tls_psk_wipe(creds);
	free(creds);
}

static int set_credentials(const struct tls_creds *creds, gnutls_session_t session)
{
	switch (creds->type) {
	case TLS_CREDS_X509:
		gnutls_certificate_server_set_request(session,
		                                      creds->verify_peer ? GNUTLS_CERT_REQUIRE : GNUTLS_CERT_IGNORE);
		return gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, creds->x509);
	case TLS_CREDS_PSK:
		return gnutls_credentials_set(session, GNUTLS_CRD_PSK, creds->psk);
	case TLS_CREDS_ANON:
		return gnutls_credentials_set(session, GNUTLS_CRD_ANON, creds->anon);
	}
	return GNUTLS_E_INVALID_REQUEST;
}

int tls_creds_attach(const struct tls_creds *creds, struct gnutls_session_int *session, struct tls_seen *seen,
                     struct err *err)
{
	int r = set_credentials(creds, session);

	*seen = (struct tls_seen){ .creds = creds };
	gnutls_session_set_ptr(session, seen);
	if (r == 0)
		r = gnutls_priority_set(session, creds->priority);
	return r < 0 ? err_set(err, -ENOMEM, "a TLS session: %s", gnutls_strerror(r)) : 0;
}

#endif
