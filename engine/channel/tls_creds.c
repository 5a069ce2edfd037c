#include "engine/channel/tls_creds.h"

#include "base/err.h"
#include "config.h"
#include "engine/options.h"

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

/* ---- distinguished names ---------------------------------------------------------------------------------------- */

/* A character with the backslash before it is one: what follows a '*' must not begin in its middle. */
static size_t step_bytes(const char *text)
{
	return text[0] == '\\' && text[1] ? 2 : 1;
}

/* Bytes of @dn, from the front, that may belong to a '*': up to an unescaped border of a part of the name. */
static size_t value_bytes(const char *dn)
{
	size_t n = 0;

	while (dn[n] && dn[n] != ',' && dn[n] != '+')
		n += step_bytes(dn + n);
	return n;
}

/* The pattern has @bytes. Each '*' takes at most one value, so the work is bounded by the values' lengths in turn. */
static bool glob_match(const char *pattern, size_t bytes, const char *dn)
{
	const char *star = NULL;      /* behind the last '*' */
	const char *retry = NULL;     /* where its run ends so far */
	const char *run_end = NULL;   /* where it must end at the latest */
	const char *end = pattern + bytes;

	while (*dn || pattern < end) {
		if (pattern < end && *pattern == '*') {
			star = ++pattern;
			retry = dn;
			run_end = dn + value_bytes(dn);
		} else if (pattern < end && *dn && *pattern == *dn) {
			pattern++;
			dn++;
		} else if (star && retry < run_end) {
			pattern = star;
			retry += step_bytes(retry);
			dn = retry;
		} else {
			return false;
		}
	}
	return true;
}

bool tls_authz_match(const char *patterns, const char *dn)
{
	for (;;) {
		size_t n = 0;

		while (patterns[n] && patterns[n] != ';')
			n += step_bytes(patterns + n);
		if (n > 0 && glob_match(patterns, n, dn))
			return true;
		if (!patterns[n])
			return false;
		patterns += n + 1;
	}
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

#include "base/assert.h"

#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <limits.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct psk {
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
	struct psk *keys;
	size_t key_count;
};

/* ---- files ------------------------------------------------------------------------------------------------------ */

/* Certificates and keys are a few KiB; a list of revoked ones may be long. */
#define FILE_BYTES_MAX (4u << 20)

struct file {
	char path[PATH_MAX];
	char *data; /* owned, NUL-terminated, overwritten before it is freed; NULL: there is no such file */
	size_t bytes;
};

static void file_fini(struct file *f)
{
	if (f->data)
		explicit_bzero(f->data, f->bytes);
	free(f->data);
	f->data = NULL;
}

static int file_read_fd(struct file *f, int fd, struct err *err)
{
	struct stat st;
	ssize_t n = 0;

	if (fstat(fd, &st) < 0)
		return err_set(err, -errno, "%s: %m", f->path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "%s: is not a file", f->path);
	if (st.st_size > (off_t)FILE_BYTES_MAX)
		return err_set(err, -EFBIG, "%s: is longer than %u bytes", f->path, FILE_BYTES_MAX);
	f->data = malloc((size_t)st.st_size + 1);
	if (!f->data)
		return err_set(err, -ENOMEM, "no memory for %s", f->path);
	while (f->bytes < (size_t)st.st_size) {
		n = read(fd, f->data + f->bytes, (size_t)st.st_size - f->bytes);
		if (n < 0)
			return err_set(err, -errno, "%s: %m", f->path);
		if (n == 0)
			break;
		f->bytes += (size_t)n;
	}
	f->data[f->bytes] = '\0';
	return f->bytes > 0 ? 0 : err_set(err, -EINVAL, "%s: is empty", f->path);
}

/* A file that may be missing leaves f->data NULL and is no error then. */
static int file_read(struct file *f, const char *dir, const char *name, bool may_be_missing, struct err *err)
{
	int fd, r;

	f->data = NULL;
	f->bytes = 0;
	if ((size_t)snprintf(f->path, sizeof(f->path), "%s/%s", dir, name) >= sizeof(f->path))
		return err_set(err, -ENAMETOOLONG, "the path of %s is too long", name);
	fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* not even a FIFO may hold us */
	if (fd < 0 && errno == ENOENT && may_be_missing)
		return 0;
	if (fd < 0)
		return err_set(err, -errno, "%s: %m", f->path);
	r = file_read_fd(f, fd, err);
	close(fd);
	if (r < 0)
		file_fini(f);
	return r;
}

static gnutls_datum_t file_datum(const struct file *f)
{
	return (gnutls_datum_t){ (unsigned char *)f->data, (unsigned)f->bytes };
}

/* The words of GnuTLS name kinds of mistakes, never content. */
static int bad_file(const struct file *f, int gnutls_code, struct err *err)
{
	if (gnutls_code == GNUTLS_E_MEMORY_ERROR)
		return err_set(err, -ENOMEM, "no memory for %s", f->path);
	return err_set(err, -EINVAL, "%s: %s", f->path, gnutls_strerror(gnutls_code));
}

/* ---- certificates ----------------------------------------------------------------------------------------------- */

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

static int certs_import(struct certs *c, const struct file *f, struct err *err)
{
	gnutls_datum_t pem = file_datum(f);
	int r = gnutls_x509_crt_list_import2(&c->list, &c->count, &pem, GNUTLS_X509_FMT_PEM, 0);

	if (r == GNUTLS_E_NO_CERTIFICATE_FOUND || r == GNUTLS_E_BASE64_UNEXPECTED_HEADER_ERROR)
		return err_set(err, -EINVAL, "%s: there is no certificate in it (PEM)", f->path);
	return r < 0 ? bad_file(f, r, err) : 0;
}

#define DATE_BYTES 32

static const char *date_text(char buf[static DATE_BYTES], time_t t)
{
	struct tm tm;

	if (!gmtime_r(&t, &tm) || !strftime(buf, DATE_BYTES, "%Y-%m-%d %H:%M:%S UTC", &tm))
		snprintf(buf, DATE_BYTES, "%lld", (long long)t);
	return buf;
}

static int check_dates(const struct file *f, gnutls_x509_crt_t crt, struct err *err)
{
	time_t now = time(NULL);
	time_t from = gnutls_x509_crt_get_activation_time(crt);
	time_t to = gnutls_x509_crt_get_expiration_time(crt);
	char date[DATE_BYTES];

	if (from != (time_t)-1 && now < from)
		return err_set(err, -EINVAL, "%s: the certificate is not yet valid: not before %s", f->path,
			       date_text(date, from));
	if (to != (time_t)-1 && now > to)
		return err_set(err, -EINVAL, "%s: the certificate has expired, on %s", f->path, date_text(date, to));
	return 0;
}

static int check_ca(const struct file *f, gnutls_x509_crt_t crt, struct err *err)
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

static int check_server(const struct file *f, gnutls_x509_crt_t crt, struct err *err)
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
static int check_chain(const struct file *f, const struct certs *chain, const struct certs *ca, struct err *err)
{
	unsigned status = 0;
	gnutls_datum_t text;
	int r = gnutls_x509_crt_list_verify(chain->list, (int)chain->count, ca->list, (int)ca->count, NULL, 0, 0,
					    &status);

	if (r < 0)
		return bad_file(f, r, err);
	if (status == 0)
		return 0;
	if (status & (GNUTLS_CERT_SIGNER_NOT_FOUND | GNUTLS_CERT_SIGNATURE_FAILURE))
		return err_set(err, -EINVAL, "%s: the certificate is not signed by the CA in ca-cert.pem", f->path);
	r = gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0);
	if (r < 0)
		return bad_file(f, r, err);
	err_set(err, -EINVAL, "%s: %s", f->path, (const char *)text.data);
	gnutls_free(text.data);
	return -EINVAL;
}

static int key_import(gnutls_x509_privkey_t *ret_key, const struct file *f, struct err *err)
{
	gnutls_datum_t pem = file_datum(f);
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
	return bad_file(f, r, err);
}

static int use_identity(struct tls_creds *creds, const struct file *cert, const struct file *key,
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
			r = r < 0 ? bad_file(key, r, err) : 0;
	}
	gnutls_x509_privkey_deinit(privkey);
	certs_fini(&chain);
	return r;
}

static int load_identity(struct tls_creds *creds, const char *dir, const char *cert_name, const char *key_name,
			 bool may_be_missing, const struct certs *ca, struct err *err)
{
	struct file cert, key;
	int r = file_read(&cert, dir, cert_name, may_be_missing, err);

	if (r < 0 || !cert.data)
		return r;
	r = file_read(&key, dir, key_name, false, err);
	if (r == 0) {
		r = use_identity(creds, &cert, &key, ca, err);
		file_fini(&key);
	}
	file_fini(&cert);
	return r;
}

static int load_ca(struct tls_creds *creds, const char *dir, struct certs *ca, struct err *err)
{
	struct file f;
	int r = file_read(&f, dir, "ca-cert.pem", false, err);

	if (r < 0)
		return r;
	r = certs_import(ca, &f, err);
	for (unsigned i = 0; r == 0 && i < ca->count; i++)
		r = check_ca(&f, ca->list[i], err);
	if (r == 0) {
		r = gnutls_certificate_set_x509_trust(creds->x509, ca->list, (int)ca->count);
		r = r < 0 ? bad_file(&f, r, err) : 0;
	}
	file_fini(&f);
	return r;
}

static int check_crl_dates(const struct file *f, gnutls_x509_crl_t crl, struct err *err)
{
	time_t now = time(NULL);
	time_t from = gnutls_x509_crl_get_this_update(crl);
	time_t to = gnutls_x509_crl_get_next_update(crl);
	char date[DATE_BYTES];

	if (from != (time_t)-1 && now < from)
		return err_set(err, -EINVAL, "%s: the list is not yet valid: not before %s", f->path,
			       date_text(date, from));
	if (to != (time_t)-1 && now > to)
		return err_set(err, -EINVAL, "%s: the list is out of date since %s", f->path, date_text(date, to));
	return 0;
}

static int load_crl(struct tls_creds *creds, const char *dir, struct err *err)
{
	gnutls_x509_crl_t *crls = NULL;
	unsigned count = 0;
	gnutls_datum_t pem;
	struct file f;
	int r = file_read(&f, dir, "ca-crl.pem", true, err);

	if (r < 0 || !f.data)
		return r;
	pem = file_datum(&f);
	r = gnutls_x509_crl_list_import2(&crls, &count, &pem, GNUTLS_X509_FMT_PEM, 0);
	r = r < 0 ? bad_file(&f, r, err) : 0;
	for (unsigned i = 0; r == 0 && i < count; i++)
		r = check_crl_dates(&f, crls[i], err);
	if (r == 0) {
		r = gnutls_certificate_set_x509_crl(creds->x509, crls, (int)count);
		r = r < 0 ? bad_file(&f, r, err) : 0;
	}
	for (unsigned i = 0; i < count; i++)
		gnutls_x509_crl_deinit(crls[i]);
	gnutls_free(crls);
	file_fini(&f);
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

static int load_x509(struct tls_creds *creds, const char *dir, struct err *err)
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

/* ---- pre-shared keys -------------------------------------------------------------------------------------------- */

/* GnuTLS hands out copies of the key and overwrites them. */
static const struct psk *psk_find(const struct tls_creds *creds, const void *identity, size_t bytes)
{
	for (size_t i = 0; i < creds->key_count; i++)
		if (creds->keys[i].identity_bytes == bytes && !memcmp(creds->keys[i].identity, identity, bytes))
			return &creds->keys[i];
	return NULL;
}

static int psk_callback(gnutls_session_t session, const gnutls_datum_t *identity, gnutls_datum_t *ret_key)
{
	struct tls_seen *seen = gnutls_session_get_ptr(session);
	const struct psk *psk = psk_find(seen->creds, identity->data, identity->size);

	seen->identity_asked = true;
	seen->identity_known = psk != NULL;
	text_quote(seen->identity, identity->data, identity->size);
	if (!psk)
		return 1; /* GnuTLS goes on with a random key, so that a stranger cannot find out which names exist */
	ret_key->data = gnutls_malloc(psk->key_bytes);
	if (!ret_key->data)
		return -1;
	memcpy(ret_key->data, psk->key, psk->key_bytes);
	ret_key->size = (unsigned)psk->key_bytes;
	return 0;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Return: 0, -EINVAL no hexadecimal bytes, -ENOMEM. */
static int hex_decode(const char *text, size_t text_bytes, uint8_t **ret_bytes, size_t *ret_count)
{
	uint8_t *bytes;

	if (text_bytes == 0 || text_bytes % 2)
		return -EINVAL;
	for (size_t i = 0; i < text_bytes; i++)
		if (hex_digit(text[i]) < 0)
			return -EINVAL;
	bytes = malloc(text_bytes / 2);
	if (!bytes)
		return -ENOMEM;
	for (size_t i = 0; i < text_bytes / 2; i++)
		bytes[i] = (uint8_t)(hex_digit(text[2 * i]) << 4 | hex_digit(text[2 * i + 1]));
	*ret_bytes = bytes;
	*ret_count = text_bytes / 2;
	return 0;
}

static int psk_parse(struct psk *psk, const char *line, size_t bytes)
{
	const char *colon = memchr(line, ':', bytes);
	size_t name_bytes;
	int r;

	if (!colon || colon == line)
		return -EINVAL;
	name_bytes = (size_t)(colon - line);
	if (line[0] == '#') {
		r = hex_decode(line + 1, name_bytes - 1, (uint8_t **)&psk->identity, &psk->identity_bytes);
		if (r < 0)
			return r;
	} else {
		psk->identity = malloc(name_bytes);
		if (!psk->identity)
			return -ENOMEM;
		memcpy(psk->identity, line, name_bytes);
		psk->identity_bytes = name_bytes;
	}
	return hex_decode(colon + 1, bytes - name_bytes - 1, &psk->key, &psk->key_bytes);
}

static void psk_fini(struct psk *psk)
{
	if (psk->key)
		explicit_bzero(psk->key, psk->key_bytes);
	free(psk->key);
	free(psk->identity);
}

/* The array grows by the lines of a file of our own, which is bounded. */
static int psk_add(struct tls_creds *creds, const struct file *f, const char *line, size_t bytes, unsigned number,
		   struct err *err)
{
	struct psk *keys = reallocarray(creds->keys, creds->key_count + 1, sizeof(*keys));
	struct psk psk = { 0 };
	int r;

	if (!keys)
		return err_set(err, -ENOMEM, "no memory for %s", f->path);
	creds->keys = keys;
	r = psk_parse(&psk, line, bytes);
	if (r < 0) {
		psk_fini(&psk);
		if (r == -ENOMEM)
			return err_set(err, r, "no memory for %s", f->path);
		return err_set(err, r, "%s: line %u is not of the form identity:hexkey", f->path, number);
	}
	keys[creds->key_count++] = psk;
	return 0;
}

static int load_keys(struct tls_creds *creds, const struct file *f, struct err *err)
{
	const char *line = f->data, *end = f->data + f->bytes;

	for (unsigned number = 1; line < end; number++) {
		const char *newline = memchr(line, '\n', (size_t)(end - line));
		const char *next = newline ? newline + 1 : end;
		size_t bytes = (size_t)((newline ? newline : end) - line);
		int r;

		if (bytes > 0 && line[bytes - 1] == '\r')
			bytes--;
		r = bytes > 0 ? psk_add(creds, f, line, bytes, number, err) : 0;
		if (r < 0)
			return r;
		line = next;
	}
	return creds->key_count > 0 ? 0 : err_set(err, -EINVAL, "%s: there is no key in it", f->path);
}

static int load_psk(struct tls_creds *creds, const char *dir, struct err *err)
{
	struct file f;
	int r;

	if (gnutls_psk_allocate_server_credentials(&creds->psk) < 0)
		return err_set(err, -ENOMEM, "no memory for credentials");
	gnutls_psk_set_server_credentials_function2(creds->psk, psk_callback);
	if (creds->dh)
		gnutls_psk_set_server_dh_params(creds->psk, creds->dh);
	else
		gnutls_psk_set_server_known_dh_params(creds->psk, GNUTLS_SEC_PARAM_MEDIUM);
	r = file_read(&f, dir, "keys.psk", false, err);
	if (r < 0)
		return r;
	r = load_keys(creds, &f, err);
	file_fini(&f);
	return r;
}

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

/* ---- all together ----------------------------------------------------------------------------------------------- */

static int load_dh(struct tls_creds *creds, const char *dir, struct err *err)
{
	gnutls_datum_t pem;
	struct file f;
	int r = file_read(&f, dir, "dh-params.pem", true, err);

	if (r < 0 || !f.data)
		return r;
	pem = file_datum(&f);
	r = gnutls_dh_params_init(&creds->dh);
	if (r == 0)
		r = gnutls_dh_params_import_pkcs3(creds->dh, &pem, GNUTLS_X509_FMT_PEM);
	r = r < 0 ? bad_file(&f, r, err) : 0;
	file_fini(&f);
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
		return load_x509(creds, dir, err);
	case TLS_CREDS_PSK:
		return load_psk(creds, dir, err);
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
	for (size_t i = 0; i < creds->key_count; i++)
		psk_fini(&creds->keys[i]);
	free(creds->keys);
	free(creds);
}

static int set_credentials(const struct tls_creds *creds, gnutls_session_t session)
{
	switch (creds->type) {
	case TLS_CREDS_X509:
		gnutls_certificate_server_set_request(session, creds->verify_peer ? GNUTLS_CERT_REQUIRE :
										     GNUTLS_CERT_IGNORE);
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
