/*
 * tls.h - a channel inside TLS, over any other channel; this side is the server
 *
 * GnuTLS is used as a pure transformation of bytes. Its transport functions only copy from and to two buffers of the
 * channel and say EAGAIN when those are empty or full; parking for the plain channel is done by this file, when GnuTLS
 * has returned. So no frame of GnuTLS is ever parked:
 *
 *   plain channel --big reads--> [in: whole records] --> GnuTLS --> the caller's iovecs
 *   plain channel <------------- [out] <---------------- GnuTLS <-- the caller's bytes
 *
 * Invariants:
 * (1) No park inside GnuTLS. One coroutine may read while another writes, because each call into the session is whole
 *     when the other one runs; locks of GnuTLS are never held over a park. Deadlines and cancels never pass through
 *     GnuTLS, so after one a read goes on where it was.
 * (2) GnuTLS gets whole records only. So the end of the plain channel is known to be on a record border or not.
 * (3) Reading writes nothing. When the source renews its keys and asks us to do so, our part goes out with the next
 *     write, if there ever is one. No session tickets, no close_notify, no alerts after the handshake: a byte that the
 *     source never reads makes a reset of its close, and pages are lost (doc/wire/channels.md 8.6,
 *     doc/wire/multifd.md 9.3).
 * (4) Renegotiation (TLS 1.2) is an error.
 * (5) What is no data is bounded, before and after the source is verified: TLS_APART_BYTES_MAX (tls_parts.h). So a
 *     connection holds at most TLS_CHAN_BYTES_MAX.
 *
 * Source: doc/wire/channels.md 8
 */
#ifndef ENGINE_CHANNEL_TLS_TLS_H
#define ENGINE_CHANNEL_TLS_TLS_H

#include "coroutine/co.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* More than a handshake takes of the coroutine's stack (measured: test_tls_handshake_fits_the_stack). */
#define TLS_STACK_BYTES (64u << 10)

/* Buffers, a session, what GnuTLS keeps of a message twice, the stack (test_held_strangers: 176 KiB). */
#define TLS_CHAN_BYTES_MAX (512u << 10)

struct chan;
struct err;
struct tls_creds;
struct tls_options;

/**
 * tls_chan_wrap - shake hands and verify the source; the result speaks plain text
 * @plain: consumed, also on failure
 * @creds: outlive the channel. @o: those that @creds were loaded with; needed only for the call
 * Nothing of the source's application data is looked at before it is verified and authorised.
 * Parks: yes, until @deadline_ns, which is for the whole of it. Return: 0; -EPROTO the source speaks no TLS, or breaks
 * it; -ECONNREFUSED it refuses us or has nothing in common with us; -EACCES it is not who it must be (certificate,
 * name, pre-shared key); -ENODATA it hangs up; -ETIMEDOUT, -ECANCELED, -ENOMEM, or the error of @plain. The text says
 * what a person has to do.
 */
may_park int tls_chan_wrap(struct chan **ret_chan, struct chan *plain, const struct tls_creds *creds,
                           const struct tls_options *o, uint64_t deadline_ns, struct err *err);

/* True for what tls_chan_wrap made. */
bool tls_chan_is(const struct chan *ch);

#define TLS_SESSION_TEXT_BYTES 96

/**
 * tls_chan_describe - "TLS1.3 ECDHE-PSK SECP256R1 AES-128-GCM", for logs and statistics
 * Return: @buf; "" for other channels.
 */
const char *tls_chan_describe(const struct chan *ch, char buf[static TLS_SESSION_TEXT_BYTES]);

#endif
