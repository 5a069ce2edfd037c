/*
 * tls_creds_parts.h - what the parts of tls_creds.h share: the credentials themselves, and a file of their directory;
 * not for others
 *
 * Without GnuTLS there are no parts.
 */
#ifndef ENGINE_CHANNEL_TLS_TLS_CREDS_PARTS_H
#define ENGINE_CHANNEL_TLS_TLS_CREDS_PARTS_H

#include "config.h"
#include "engine/channel/tls/tls_creds.h"

#if HAVE_GNUTLS

#include <gnutls/gnutls.h>
#include <limits.h>

struct tls_psk {
	char *identity; /* owned; may hold any byte */
	size_t identity_bytes;
	uint8_t *key; /* owned, overwritten before it is freed */
	size_t key_bytes;
};

struct tls_creds {
	enum tls_creds_type type;
	bool verify_peer;
	gnutls_priority_t priority;
	gnutls_certificate_credentials_t x509;
	gnutls_psk_server_credentials_t psk;
	gnutls_anon_server_credentials_t anon;
	gnutls_dh_params_t dh;
	struct tls_psk *keys;
	size_t key_count;
};

/* ---- tls_file.c ---- */

struct tls_file {
	char path[PATH_MAX];
	char *data; /* owned, NUL-terminated, overwritten before it is freed; NULL: there is no such file */
	size_t bytes;
};

/**
 * tls_file_read - all of @dir/@name
 * @f: written in any case; tls_file_fini releases what was read. One that may be missing leaves f->data NULL and is no
 *     error.
 * Return: 0; -EINVAL empty or no file, -EFBIG, -ENAMETOOLONG, -ENOMEM, or the errno of reading it; the text names it.
 */
int tls_file_read(struct tls_file *f, const char *dir, const char *name, bool may_be_missing, struct err *err);
void tls_file_fini(struct tls_file *f);
gnutls_datum_t tls_file_datum(const struct tls_file *f);

/** tls_file_bad - the error of content that GnuTLS does not take. Return: -EINVAL or -ENOMEM. */
int tls_file_bad(const struct tls_file *f, int gnutls_code, struct err *err);

/* ---- tls_x509.c ---- */

/**
 * tls_x509_load - fill in creds->x509, with creds->dh if there are such
 * Return: 0, or the error of tls_creds_load; what was made is released with @creds in either case. So also below.
 */
int tls_x509_load(struct tls_creds *creds, const char *dir, struct err *err);

/* ---- tls_psk.c ---- */

/** tls_psk_load - fill in creds->psk and the keys */
int tls_psk_load(struct tls_creds *creds, const char *dir, struct err *err);

/** tls_psk_wipe - overwrite and free the keys */
void tls_psk_wipe(struct tls_creds *creds);

#endif

#endif
