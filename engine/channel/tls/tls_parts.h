/*
 * tls_parts.h - what the parts of tls.h share: the channel, and who does what with it; not for others
 *
 *   tls.c            the channel as its users see it: reading, writing, its beginning and end
 *   tls_records.c    records between the plain channel, the two buffers, and GnuTLS
 *   tls_handshake.c  how a session begins, or why it does not
 *   tls_verify.c     who the source is
 *
 * Without GnuTLS there are no parts.
 */
#ifndef ENGINE_CHANNEL_TLS_TLS_PARTS_H
#define ENGINE_CHANNEL_TLS_TLS_PARTS_H

#include "config.h"

#if HAVE_GNUTLS

#include "base/err.h"
#include "coroutine/co.h"
#include "engine/channel/channel.h"
#include "engine/channel/tls/tls_creds.h"

#include <gnutls/gnutls.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define RECORD_HEADER_BYTES 5
#define RECORD_PLAIN_BYTES_MAX 16384
/* RFC 5246 6.2.3; RFC 8446 5.2 has less. */
#define RECORD_BYTES_MAX (RECORD_HEADER_BYTES + RECORD_PLAIN_BYTES_MAX + 2048)

/*
 * One read of the plain channel for several records. Between 64 and 512 KiB bench_tls shows no difference beyond its
 * own spread; 32 KiB costs more. The smallest is taken: there may be hundreds of connections.
 */
#define TLS_IN_BYTES (64u << 10)
/* A record, and what a renewal of keys puts in front of it. */
#define TLS_OUT_BYTES (RECORD_BYTES_MAX + 1024)

/*
 * What GnuTLS may take that is no data: the handshake, which nobody has been verified in, and after it changes of keys
 * and what else there is. GnuTLS keeps a handshake message of up to 16 MiB while it comes, whatever its own limit of
 * 128 KiB says: that is looked at when it is whole. An honest chain of certificates has 2 to 10 KiB; GnuTLS sends
 * none above 128 KiB, OpenSSL takes none above 100. An honest handshake has less than 20 records, and at 512 bytes a
 * record, the least that two sides agree on, 256 make 128 KiB. A record costs some microseconds whatever is in it.
 *
 * What has been data earns a little more, so that a session that lasts for weeks can go on renewing its keys.
 */
#define TLS_APART_BYTES_MAX (128u << 10)
#define TLS_APART_RECORDS_MAX 512u
#define TLS_APART_DATA_SHIFT 12        /* 1 byte more for 4 KiB of data, */
#define TLS_APART_RECORD_DATA_SHIFT 20 /* and 1 record more for 1 MiB */

enum record_type { RECORD_CCS = 20, RECORD_ALERT, RECORD_HANDSHAKE, RECORD_DATA, RECORD_HEARTBEAT };

struct tls_chan {
	struct chan chan;
	struct chan *plain; /* owned */
	gnutls_session_t session;
	struct tls_seen seen;
	bool x509;        /* we show a certificate */
	bool established; /* the handshake is over; whether the source is who it must be is another question */

	/*
	 * in[in_start..in_whole) are whole records that GnuTLS has not taken yet, in[in_whole..in_end) is the
	 * beginning of one.
	 */
	uint8_t *in; /* owned, TLS_IN_BYTES */
	size_t in_start, in_whole, in_end;
	bool in_eof; /* the plain channel has ended */

	/* What GnuTLS has taken that was no data; see TLS_APART_BYTES_MAX. */
	size_t in_counted; /* in[..in_counted) are records that are counted */
	uint64_t apart_bytes;
	uint64_t apart_records;
	size_t last_record_bytes; /* the last one that was counted: no longer apart if data comes out of it */
	uint64_t data_bytes;      /* that came out of GnuTLS */
	bool apart_too_much;      /* and fault says so */

	gnutls_packet_t packet; /* owned; a decrypted record that is not read to its end, or NULL */
	const uint8_t *packet_data;
	size_t packet_bytes;

	bool session_over; /* nothing more will come out of GnuTLS: close_notify or an error */
	struct err fault;  /* what ends the reading, told when what came before it has been read */

	uint8_t out[TLS_OUT_BYTES];
	size_t out_bytes;
	bool out_broken; /* a write ended half way */
};

/* ---- tls_records.c ---- */

/** tls_records_attach - the session's transport is the two buffers: GnuTLS copies, and never parks */
void tls_records_attach(struct tls_chan *tc);

/**
 * tls_records_fill - one read of the plain channel, when all whole records are taken
 * Parks: yes. Return: 0, also at its end (in_eof) and with a fault in what came; its error.
 */
may_park int tls_records_fill(struct tls_chan *tc, uint64_t deadline_ns, struct err *err);

/**
 * tls_records_drain - send what GnuTLS has put into the out buffer
 * Parks: yes. Return: 0; an error of the plain channel, and then out_broken is set.
 */
may_park int tls_records_drain(struct tls_chan *tc, uint64_t deadline_ns, struct err *err);

/** tls_records_established - the handshake is over: what it took does not count any more */
void tls_records_established(struct tls_chan *tc);

/** tls_records_data - @bytes of data have come out of the record that was taken last */
void tls_records_data(struct tls_chan *tc, size_t bytes);

/* Has GnuTLS only found a buffer empty or full? */
static inline bool tls_is_again(ssize_t code)
{
	return code == GNUTLS_E_AGAIN || code == GNUTLS_E_INTERRUPTED;
}

/* ---- tls_handshake.c ---- */

/**
 * tls_handshake - to its end; the source is told of what fails here
 * Parks: yes. Return: as tls_chan_wrap, except that it does not check who the source is.
 */
may_park int tls_handshake(struct tls_chan *tc, uint64_t deadline_ns, struct err *err);

/**
 * tls_handshake_alert - tell the source why it ends, if it can be done soon
 * Parks: yes. Return: 0, or -ECANCELED, which must not get lost.
 */
may_park int tls_handshake_alert(struct tls_chan *tc, gnutls_alert_description_t alert, uint64_t deadline_ns);

/* ---- tls_verify.c ---- */

/**
 * tls_verify - after the handshake: is the source who it must be, by its certificate and the name in it?
 * @ret_alert: what to tell it on failure
 * Return: 0, -EACCES, -ENOMEM.
 */
int tls_verify(struct tls_chan *tc, const struct tls_options *o, gnutls_alert_description_t *ret_alert,
               struct err *err);

#endif

#endif
