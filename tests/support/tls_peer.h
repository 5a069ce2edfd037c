/*
 * tls_peer.h - the source's half of TLS for tests: certificates of every kind, and a GnuTLS client in a forked child
 *
 * A failure here aborts the test, except those that a report covers.
 */
#ifndef TESTS_SUPPORT_TLS_PEER_H
#define TESTS_SUPPORT_TLS_PEER_H

#include "config.h"
#include "tests/support/temp.h"

#if HAVE_GNUTLS

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* ---- certificates and keys -------------------------------------------------------------------------------------- */

struct tls_cert_plan {
	const char *name;  /* distinguished name as RFC 4514 has it, last part first: "CN=mfsource,O=mf" */
	long from_s, to_s; /* dates, from now; both 0: an hour ago to an hour from now */
	bool ca;
	bool no_constraints; /* leave the basic constraints out */
	unsigned usage;      /* GNUTLS_KEY_...; 0: none is said */
	const char *purpose; /* GNUTLS_KP_...; NULL: none is said */
	unsigned rsa_bits;   /* 0: an elliptic curve, P-256 */
};

struct tls_cert {
	gnutls_x509_crt_t crt;
	gnutls_x509_privkey_t key;
};

/* @issuer NULL: signed by itself. */
void tls_cert_make(struct tls_cert *ret_cert, const struct tls_cert_plan *plan, const struct tls_cert *issuer);
void tls_cert_free(struct tls_cert *cert);

/* Files of @dir; NULL for a name leaves that file out. */
void tls_cert_save(const struct tls_cert *cert, const char *dir, const char *cert_name, const char *key_name);
/* Writes a list of revoked certificates, signed by @issuer, to @dir/ca-crl.pem; @to_s as in the plan. */
void tls_crl_save(const struct tls_cert *issuer, const struct tls_cert *revoked, const char *dir, long to_s);
void tls_file_save(const char *dir, const char *name, const char *text);

#define TLS_PEER_PSK_KEY "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

/**
 * tls_dir_make - a new directory with everything in order, for both sides
 * ca-cert.pem, server-{cert,key}.pem (CN=localhost), client-{cert,key}.pem (O=mf,CN=mfsource), keys.psk (identity qemu,
 * TLS_PEER_PSK_KEY). @ret_ca: the CA, to make more with; NULL where it is not wanted.
 */
void tls_dir_make(char dir[static TEMP_NAME_BYTES], struct tls_cert *ret_ca);
void tls_dir_remove(const char *dir);

/* ---- the client ------------------------------------------------------------------------------------------------- */

struct tls_peer_report {
	int handshake;       /* GnuTLS's code */
	int alert;           /* received, in the handshake or by the act; -1: none */
	size_t bytes_unread; /* that the server had written when tls_peer_listen looked */
	int64_t value;       /* the act's own */
	char session[96];    /* GnuTLS's description */
};

struct tls_peer;

/* What the child does after the handshake. */
typedef void tls_peer_act(struct tls_peer *peer);

struct tls_peer_plan {
	enum { TLS_PEER_X509, TLS_PEER_PSK, TLS_PEER_ANON, TLS_PEER_RAW } kind; /* RAW: no TLS, the act at once */
	const char *dir;                  /* of client-cert.pem and client-key.pem */
	const char *cert_name, *key_name; /* NULL: those; "": show no certificate */
	const char *ca_name;        /* verify the server in the handshake with this file of dir; NULL: do not verify */
	const char *identity, *key; /* NULL: "qemu", TLS_PEER_PSK_KEY */
	const char *priority;       /* NULL: as QEMU's */
	unsigned listen_ms;         /* 0: 300 */
	size_t stall_after;   /* write so many bytes in the handshake, then wait until the server closes; 0: all */
	size_t hang_up_after; /* write so many bytes in the handshake, then close; 0: all */
	tls_peer_act *act;    /* NULL: close at once */
	const void *arg;
};

struct tls_peer {
	gnutls_session_t session; /* NULL for RAW */
	int fd;
	const struct tls_peer_plan *plan;
	struct tls_peer_report report;
	size_t written; /* to the socket */
	pid_t pid;      /* in the parent */
	int report_fd;
};

/* Start it on @fd, which is closed here. */
void tls_peer_start(struct tls_peer *peer, const struct tls_peer_plan *plan, int fd);
/* Wait for its end. Aborts if the child did not end well. */
void tls_peer_wait(struct tls_peer *peer, struct tls_peer_report *ret_report);

/* The handshake alone, in this process over @fd, which becomes the peer's: for several peers in one test. */
void tls_peer_shake(struct tls_peer *peer, const struct tls_peer_plan *plan, int fd);

/* For acts. Sending aborts on failure. */
void tls_peer_send(struct tls_peer *peer, const void *buf, size_t bytes);
/* Record bodies of many sizes, made by tls_pattern from @off on. */
void tls_peer_send_pattern(struct tls_peer *peer, uint64_t off, size_t bytes);
void tls_peer_send_raw(struct tls_peer *peer, const void *buf, size_t bytes);
/* Receive exactly. Return: 0, or GnuTLS's code. */
int tls_peer_recv(struct tls_peer *peer, void *buf, size_t bytes);
/* Look for plan.listen_ms at the socket itself, or until something comes: report.bytes_unread. */
void tls_peer_listen(struct tls_peer *peer);
/* Read until the server closes; an alert goes into the report. */
void tls_peer_until_closed(struct tls_peer *peer);

/* Distinct bytes for every offset of a stream. */
void tls_pattern(void *buf, uint64_t off, size_t bytes);

#endif
#endif
