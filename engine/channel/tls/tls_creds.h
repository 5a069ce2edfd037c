/*
 * tls_creds.h - what the TLS server shows and asks for: certificates or keys, read from a directory
 *
 * The names of the files are those that QEMU uses:
 *
 *   x509  ca-cert.pem, server-cert.pem, server-key.pem; optional ca-crl.pem, dh-params.pem, and further identities
 *         server-cert-N.pem with server-key-N.pem (N from 0 to 9)
 *   psk   keys.psk: lines of identity:hexkey (an identity that begins with # is hexadecimal, too);
 *         optional dh-params.pem
 *   anon  nothing; optional dh-params.pem. Encryption without authentication: only if asked for by name
 *
 * Everything is read and checked once, before the migration begins: a handshake touches no file. What would make every
 * handshake fail, or worse, succeed with the wrong party, is an error here, where it names the file and the reason.
 *
 * Invariants:
 * (1) No secret (private key, pre-shared key, part of either) is ever in an error text; files are named, lines
 *     numbered.
 * (2) Keys that this module holds itself are overwritten before their memory is given back.
 * (3) Loaded credentials are never changed: any number of sessions may use them at once. They outlive their sessions.
 *
 * Source: doc/wire/channels.md 8.3, 8.4
 */
#ifndef ENGINE_CHANNEL_TLS_TLS_CREDS_H
#define ENGINE_CHANNEL_TLS_TLS_CREDS_H

#include "base/text.h"
#include "engine/options/options.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct gnutls_session_int;
struct tls_creds;

/* Strings are borrowed; NULL and "" mean the same. */
struct tls_options {
	enum tls_creds_type type;
	const char *dir;      /* of the files above; may be empty for anon */
	const char *priority; /* GnuTLS priority string; empty: tls_creds_priority's own choice */
	const char *authz;    /* accepted distinguished names, see tls_authz_match; empty: all that are verified */
	bool verify_peer;     /* x509: the source must show a certificate of our CA */
};

/** tls_options_of - the TLS part of a migration's options; the strings are those of @opts */
struct tls_options tls_options_of(const struct options *opts);

/**
 * tls_creds_load - read and check the files of @o->dir
 * Blocks on files: for before the migration. Return: 0; -ENOENT and other errno of a file that cannot be read; -EINVAL
 * what is in it does not serve, the text names the file and says why; -ENOTSUP built without TLS; -ENOMEM.
 */
int tls_creds_load(struct tls_creds **ret_creds, const struct tls_options *o, struct err *err);

/* No session may be using them. NULL is allowed. */
void tls_creds_free(struct tls_creds *creds);

/**
 * tls_authz_match - is this distinguished name one of those accepted?
 * @dn: as the certificate has it, in its own order: "O=mf,CN=mfsource" (doc/wire/channels.md 8.4)
 * @patterns: names, separated by ';'. In each '*' stands for any characters, none included, up to the next ',' or '+'
 *            that is not escaped: "O=mf,CN=*" takes every name in mf, and no longer name that only begins like it. All
 *            else is compared as it is; characters that are special in a name (, + " \ < > ;) are written with the
 *            backslash that the name has before them.
 */
bool tls_authz_match(const char *patterns, const char *dn);

/* The longest string tls_creds_priority makes of a parameter's text. */
#define TLS_PRIORITY_BYTES 512

/**
 * tls_creds_priority - the priority string of sessions
 * The server chooses the cipher. Of its own accord it takes TLS 1.3 and 1.2 with authenticated ciphers only, and the
 * one that this processor is fast at first: AES-128-GCM, then AES-256-GCM, where it has AES instructions, else
 * CHACHA20-POLY1305. A string of the user's is taken as it is. Either way the key exchanges of psk and anon are added,
 * as QEMU does. Return: @buf. Source: doc/wire/channels.md 8.3
 */
const char *tls_creds_priority(char buf[static TLS_PRIORITY_BYTES], const struct tls_options *o, bool fast_aes);

/* What the source showed in a handshake, for errors. Lives as long as its session. */
struct tls_seen {
	const struct tls_creds *creds;
	bool identity_asked; /* psk: the source named an identity, */
	bool identity_known; /* which is in keys.psk */
	char identity[TEXT_QUOTE_BYTES];
};

/**
 * tls_creds_attach - make a session (of GnuTLS, a server's) use these credentials
 * @seen: filled in during the handshake; belongs to the caller and lives as long as the session
 * Return: 0 or -ENOMEM.
 */
int tls_creds_attach(const struct tls_creds *creds, struct gnutls_session_int *session, struct tls_seen *seen,
                     struct err *err);

#endif
