/*
 * options.h - what a migration was told: its capabilities and parameters, as values
 *
 * Only what somebody here acts on has a place. What else QEMU knows is a row of a table (options_table.h), and a setter
 * (options_set.h) checks it and lets it go.
 *
 * Invariants:
 * (1) struct options is a plain value: it may be copied, compared by field and thrown away.
 * (2) Each single value in it is in range; what depends on two of them is checked by options_check, so that the order
 *     of setting does not matter (doc/wire/control.md 9).
 */
#ifndef ENGINE_OPTIONS_OPTIONS_H
#define ENGINE_OPTIONS_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

enum cap {
	CAP_XBZRLE,
	CAP_RDMA_PIN_ALL,
	CAP_AUTO_CONVERGE,
	CAP_ZERO_BLOCKS,
	CAP_COMPRESS,
	CAP_BLOCK,
	CAP_EVENTS,
	CAP_POSTCOPY_RAM,
	CAP_X_COLO,
	CAP_RELEASE_RAM,
	CAP_RETURN_PATH,
	CAP_PAUSE_BEFORE_SWITCHOVER,
	CAP_MULTIFD,
	CAP_DIRTY_BITMAPS,
	CAP_POSTCOPY_BLOCKTIME,
	CAP_LATE_BLOCK_ACTIVATE,
	CAP_X_IGNORE_SHARED,
	CAP_VALIDATE_UUID,
	CAP_BACKGROUND_SNAPSHOT,
	CAP_ZERO_COPY_SEND,
	CAP_POSTCOPY_PREEMPT,
	CAP_SWITCHOVER_ACK,
	CAP_DIRTY_LIMIT,
	CAP_MAPPED_RAM,
	CAP_COUNT,
};

/* A setting that follows from the machine type in the stream unless it is given. */
enum tristate { TRISTATE_AUTO, TRISTATE_ON, TRISTATE_OFF };

enum tls_creds_type { TLS_CREDS_X509, TLS_CREDS_PSK, TLS_CREDS_ANON };

enum multifd_compression {
	MULTIFD_COMPRESSION_NONE,
	MULTIFD_COMPRESSION_ZLIB,
	MULTIFD_COMPRESSION_ZSTD,
	MULTIFD_COMPRESSION_QPL,
	MULTIFD_COMPRESSION_UADK,
	MULTIFD_COMPRESSION_QATZIP,
};

/* A text parameter holds at most one byte less. */
#define OPTIONS_TEXT_BYTES 256

struct options {
	uint32_t caps; /* bit per enum cap; read with options_has */

	uint64_t multifd_channels;
	int multifd_compression;             /* enum multifd_compression */
	uint64_t multifd_window_limit_bytes; /* ours: engine/ram/multifd_decode.h */
	char tls_creds[OPTIONS_TEXT_BYTES];
	char tls_authz[OPTIONS_TEXT_BYTES];
	char tls_creds_dir[OPTIONS_TEXT_BYTES]; /* ours, as are the next three: engine/channel/tls/tls_creds.h */
	int tls_creds_type;                     /* enum tls_creds_type */
	char tls_priority[OPTIONS_TEXT_BYTES];
	bool tls_verify_peer;

	/* Compatibility properties of machine types. */
	bool send_configuration;              /* a configuration section follows the header */
	bool send_section_footer;             /* sections end in footers */
	bool suppress_vmdesc;                 /* no JSON description after a precopy stream */
	int multifd_flush_after_each_section; /* enum tristate */
	int switchover_ack_legacy;            /* the same */

	/* Ours. */
	bool looking; /* onlooker.h; not a parameter */
	bool has_uuid;
	uint8_t uuid[16];                 /* valid with has_uuid */
	char machine[OPTIONS_TEXT_BYTES]; /* type the stream must name; "": any */
	int tpage_bits;                   /* WIRE_TPAGE_BITS_MIN - 1 + this; 0: by the stream and the machine type */
	uint64_t ram_limit_bytes;         /* a stream whose RAM blocks are longer in all is refused */
	bool postcopy_prefetch;
	bool postcopy_kernel_faults; /* KVM or vhost will touch the guest's memory */
	uint64_t stuck_after_ms;     /* so long a callback may hold the thread in postcopy; 0: forever */
	uint64_t connect_deadline_s; /* an unidentified connection is closed after so long */
	uint64_t keepalive_idle_s;   /* of TCP connections; 0: no keepalive */
	uint64_t keepalive_interval_s;
	uint64_t keepalive_count;
	uint64_t tcp_user_timeout_ms; /* 0: the kernel's own */
};

static inline bool options_has(const struct options *opts, enum cap cap)
{
	return opts->caps >> cap & 1;
}

#endif
