/* Pre-shared keys: the lines of keys.psk, and which of them a source asks for. Source: doc/wire/channels.md 8.3 */
#include "engine/channel/tls/tls_creds_parts.h"

#if HAVE_GNUTLS

#include "base/err.h"
#include "base/text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* GnuTLS hands out copies of the key and overwrites them. */
static const struct tls_psk *psk_find(const struct tls_creds *creds, const void *identity, size_t bytes)
{
	for (size_t i = 0; i < creds->key_count; i++)
		if (creds->keys[i].identity_bytes == bytes && !memcmp(creds->keys[i].identity, identity, bytes))
			return &creds->keys[i];
	return NULL;
}

static int psk_callback(gnutls_session_t session, const gnutls_datum_t *identity, gnutls_datum_t *ret_key)
{
	struct tls_seen *seen = gnutls_session_get_ptr(session);
	const struct tls_psk *psk = psk_find(seen->creds, identity->data, identity->size);

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

static int psk_parse(struct tls_psk *psk, const char *line, size_t bytes)
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

static void psk_fini(struct tls_psk *psk)
{
	if (psk->key)
		explicit_bzero(psk->key, psk->key_bytes);
	free(psk->key);
	free(psk->identity);
}

/* The array grows by the lines of a file of our own, which is bounded. */
static int psk_add(struct tls_creds *creds, const struct tls_file *f, const char *line, size_t bytes, unsigned number,
                   struct err *err)
{
	struct tls_psk *keys = reallocarray(creds->keys, creds->key_count + 1, sizeof(*keys));
	struct tls_psk psk = { 0 };
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

static int load_keys(struct tls_creds *creds, const struct tls_file *f, struct err *err)
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

int tls_psk_load(struct tls_creds *creds, const char *dir, struct err *err)
{
	struct tls_file f;
	int r;

	if (gnutls_psk_allocate_server_credentials(&creds->psk) < 0)
		return err_set(err, -ENOMEM, "no memory for credentials");
	gnutls_psk_set_server_credentials_function2(creds->psk, psk_callback);
	if (creds->dh)
		gnutls_psk_set_server_dh_params(creds->psk, creds->dh);
	else
		gnutls_psk_set_server_known_dh_params(creds->psk, GNUTLS_SEC_PARAM_MEDIUM);
	r = tls_file_read(&f, dir, "keys.psk", false, err);
	if (r < 0)
		return r;
	r = load_keys(creds, &f, err);
	tls_file_fini(&f);
	return r;
}

void tls_psk_wipe(struct tls_creds *creds)
{
	for (size_t i = 0; i < creds->key_count; i++)
		psk_fini(&creds->keys[i]);
	free(creds->keys);
}

#endif
