/*
 * tls_source.h - a source in a process of its own, which sends over several connections inside TLS and reads nothing
 *
 * It does what QEMU does (doc/wire/multifd.md 9.3): after the handshakes it ignores what the destination writes on the
 * multifd channels, and closes them as soon as the kernel has their last byte. It keeps the main channel until the
 * destination closes it, so that main's end does not hide what becomes of the others. Three steps:
 *
 *   tls_source_start(&src, &plan);     connects, shakes hands, identifies its channels; then TLS_SOURCE_READY
 *   tls_source_go(&src);               sends everything, closes the channels; then TLS_SOURCE_CLOSED
 *   tls_source_wait(&src, &report);    when the migration has ended
 */
#ifndef TESTS_SUPPORT_TLS_SOURCE_H
#define TESTS_SUPPORT_TLS_SOURCE_H

#include "tests/support/tls_peer.h"

#if HAVE_GNUTLS

#include "tests/support/wire.h"

#define TLS_SOURCE_CHANNELS_MAX 8u

struct tls_source_plan {
	const struct multifd_honest *h; /* what is sent; at most TLS_SOURCE_CHANNELS_MAX channels */
	const char *address;            /* "tcp:127.0.0.1:40123" */
	struct tls_peer_plan tls;       /* without an act */
	int send_buffer_bytes;          /* of each socket; 0: the kernel's choice */
};

struct tls_source_report {
	size_t sent_bytes;   /* on the channels, inside TLS */
	size_t unread_bytes; /* on the channels: what the destination had written when they closed */
};

enum tls_source_step { TLS_SOURCE_STARTED, TLS_SOURCE_READY, TLS_SOURCE_CLOSED };

struct tls_source {
	pid_t pid;
	int to, from;
	enum tls_source_step step; /* the last one seen */
};

void tls_source_start(struct tls_source *src, const struct tls_source_plan *plan);
/* Waits at most @ms for it to go on. Return: how far it is. */
enum tls_source_step tls_source_step(struct tls_source *src, int ms);
void tls_source_go(struct tls_source *src);
/* Waits for its end. Aborts if it did not end well. */
void tls_source_wait(struct tls_source *src, struct tls_source_report *ret_report);

#endif
#endif
