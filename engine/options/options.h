/*
 * options.h - capabilities and parameters of a migration, by QEMU's names
 *
 * Management tools set the same capabilities and parameters on both sides of a migration. Every name of QEMU 7.2 to
 * 11.1 is known here: one table for capabilities, one for parameters (options_table.c), each row with its source and
 * what this library makes of it. Three answers are possible: it works; it is accepted and has nothing to do on a
 * destination; it is refused, and the row says why. A setting that matters and is not to be had is never accepted in
 * silence.
 *
 * Invariants:
 * (1) struct options is a plain value: it may be copied, compared by field and thrown away.
 * (2) A setter that fails has changed nothing.
 * (3) Each single value in it is in range; what depends on two of them is checked by options_check, so that the order
 *     of setting does not matter (doc/wire/control.md 9).
 *
 * Source: doc/wire/control.md 4, 5, doc/wire/stream.md 8
 */
#ifndef ENGINE_OPTIONS_OPTIONS_H
#define ENGINE_OPTIONS_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

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

/* What this library makes of an option. */
enum support {
	SUPPORT_WORKS,
	SUPPORT_NO_EFFECT, /* accepted: there is nothing to do for it on a destination */
	SUPPORT_REFUSED,   /* -ENOTSUP, with the row's reason */
};

/* Where an option has to be set (doc/wire/control.md 4). */
enum side {
	SIDE_BOTH,        /* the wire depends on it: source and destination alike */
	SIDE_DESTINATION, /* only here */
	SIDE_SOURCE,      /* only there; harmless here */
};

/* A row of the capability table. All capabilities are off by default. */
struct cap_row {
	const char *name;
	const char *since; /* first release of QEMU that has it; "7.2" stands for any before, too */
	const char *until; /* last release that has it; NULL: still there in 11.1 */
	enum side side;
	enum support support;
	const char *note; /* the reason of a refusal; else a remark for a table that people read, or NULL */
};

/* A setting that follows from the machine type in the stream unless it is given. */
enum tristate { TRISTATE_AUTO, TRISTATE_ON, TRISTATE_OFF };

enum multifd_compression {
	MULTIFD_COMPRESSION_NONE,
	MULTIFD_COMPRESSION_ZLIB,
	MULTIFD_COMPRESSION_ZSTD,
	MULTIFD_COMPRESSION_QPL,
	MULTIFD_COMPRESSION_UADK,
	MULTIFD_COMPRESSION_QATZIP,
};

enum migration_mode { MODE_NORMAL, MODE_CPR_REBOOT, MODE_CPR_TRANSFER, MODE_CPR_EXEC };

enum zero_page_detection { ZERO_PAGE_NONE, ZERO_PAGE_LEGACY, ZERO_PAGE_MULTIFD };

/* A text parameter holds at most one byte less. */
#define OPTIONS_TEXT_BYTES 256

/* Parameters that only a source acts on: kept so that a tool can read back what it has set (doc/wire/control.md 5). */
struct options_source {
	uint64_t xbzrle_cache_bytes;
	uint64_t max_bandwidth; /* bytes a second */
	uint64_t max_postcopy_bandwidth;
	uint64_t avail_switchover_bandwidth;
	uint64_t downtime_limit_ms;
	uint64_t throttle_trigger_percent;
	uint64_t cpu_throttle_initial_percent;
	uint64_t cpu_throttle_increment_percent;
	bool cpu_throttle_tailslow;
	uint64_t max_cpu_throttle_percent;
	uint64_t checkpoint_delay_ms;
	uint64_t vcpu_dirty_limit; /* MiB a second */
	uint64_t vcpu_dirty_limit_period_ms;
	uint64_t zlib_level, zstd_level, qatzip_level;
	uint64_t compress_level, compress_threads, decompress_threads;
	bool compress_wait_thread;
	bool block_incremental;
	uint64_t rdma_chunk_bytes;
	int zero_page_detection; /* enum zero_page_detection */
	char cpr_exec_command[OPTIONS_TEXT_BYTES];
};

struct options {
	uint32_t caps; /* bit per enum cap; read with options_has */

	uint64_t multifd_channels;
	int multifd_compression;             /* enum multifd_compression */
	uint64_t multifd_window_limit_bytes; /* ours: engine/ram/multifd_decode.h */
	int mode;                            /* enum migration_mode */
	bool direct_io;
	char tls_creds[OPTIONS_TEXT_BYTES];
	char tls_authz[OPTIONS_TEXT_BYTES];
	char tls_hostname[OPTIONS_TEXT_BYTES];
	char tls_creds_dir[OPTIONS_TEXT_BYTES]; /* ours, as are the next three: engine/channel/tls/tls_creds.h */
	int tls_creds_type;                     /* enum tls_creds_type */
	char tls_priority[OPTIONS_TEXT_BYTES];
	bool tls_verify_peer;
	char block_bitmap_mapping[OPTIONS_TEXT_BYTES];
	uint64_t announce_initial_ms, announce_max_ms, announce_rounds, announce_step_ms;
	struct options_source source;

	/* Compatibility properties of machine types. */
	bool send_configuration;   /* a configuration section follows the header */
	bool send_section_footer;  /* sections end in footers */
	bool suppress_vmdesc;      /* no JSON description after a precopy stream */
	bool store_global_state;   /* the section "globalstate" is sent; nothing depends on it */
	int send_switchover_start; /* enum tristate, as are the rest */
	int multifd_flush_after_each_section;
	int preempt_pre_7_2;
	int multifd_clean_tls_termination;
	int switchover_ack_legacy;

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

/* A value of a parameter that is one of a few words. */
struct option_word {
	const char *name;
	const char *refused; /* why this value is not to be had; NULL: it is */
};

enum param_type {
	PARAM_U64,   /* uint64_t field; number, min to max */
	PARAM_SIZE,  /* uint64_t field; number of bytes with a suffix, min to max */
	PARAM_POWER, /* as PARAM_SIZE, and a power of two */
	PARAM_BOOL,  /* bool field */
	PARAM_WORD,  /* int field: index into words */
	PARAM_TEXT,  /* char[OPTIONS_TEXT_BYTES] field; min to max bytes long */
	PARAM_UUID,  /* has_uuid and uuid */
};

/* A row of the parameter table. */
struct param_row {
	const char *name;
	const char *since, *until; /* as in cap_row; NULL since: a parameter of this library, not of QEMU */
	enum side side;
	enum support support; /* of any value but the default, which can always be set */
	enum param_type type;
	size_t field; /* offset in struct options */
	uint64_t min, max;
	const struct option_word *words; /* PARAM_WORD: ended by a NULL name */
	const char *unit;                /* "ms", "bytes", ...; "" */
	const char *def;                 /* default, as text that can be set */
	const char *note;                /* as in cap_row */
};

/** options_init - everything at its default */
void options_init(struct options *ret_opts);

static inline bool options_has(const struct options *opts, enum cap cap)
{
	return opts->caps >> cap & 1;
}

/**
 * options_set_capability - on or off; off is always right for a known name
 * Return: 0; -ENOENT unknown, the text has the name nearest to it; -ENOTSUP refused, the text says why.
 */
int options_set_capability(struct options *opts, const char *name, bool on, struct err *err);

/**
 * options_set_parameter - from text; every row's default is accepted for it, whatever its support
 * Return: as options_set_capability; -EINVAL not of the expected form, -ERANGE beyond the range; the text names both.
 */
int options_set_parameter(struct options *opts, const char *name, const char *value, struct err *err);

/**
 * options_get_parameter - the current value as text, such that setting it again changes nothing
 * @buf: OPTIONS_TEXT_BYTES long
 * Return: @buf; NULL for an unknown name.
 */
const char *options_get_parameter(const struct options *opts, const char *name, char buf[static OPTIONS_TEXT_BYTES]);

/**
 * options_check - does everything fit together?
 * Return: 0; -EINVAL, the text names the options and their conflict; -ENOTSUP: they are those of a stream that cannot
 * be landed.
 * Source: doc/wire/control.md 4
 */
int options_check(const struct options *opts, struct err *err);

/** options_cap_row - the row of a capability; NULL for @index >= CAP_COUNT. The index is enum cap. */
const struct cap_row *options_cap_row(unsigned index);

/** options_param_row - the @index-th row of the parameter table; NULL when there are no more */
const struct param_row *options_param_row(unsigned index);

/** options_param_form - what a value looks like, for errors and tables: "1..255", "none|zlib|zstd". Return: @buf. */
const char *options_param_form(const struct param_row *row, char buf[static OPTIONS_TEXT_BYTES]);

/** support_name, side_name - "works", "no effect", "refused"; "both", "destination", "source" */
const char *support_name(enum support support);
const char *side_name(enum side side);

#endif
