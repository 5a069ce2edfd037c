#include "engine/options/options_table.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "config.h"

#define ARRAY_COUNT(a) (sizeof(a) / sizeof((a)[0]))

#define BOTH SIDE_BOTH
#define DEST SIDE_DESTINATION
#define SRC SIDE_SOURCE
#define WORKS SUPPORT_WORKS
#define NONE SUPPORT_NO_EFFECT
#define REFUSED SUPPORT_REFUSED

/*
 * Every capability of QEMU 7.2 to 11.1: doc/wire/control.md 4 for presence and side, doc/wire/stream.md 8 for what each
 * means to a destination; what is beside that stands after the row.
 */
static const struct cap_row caps[CAP_COUNT] = {
	[CAP_XBZRLE] = { "xbzrle", "7.2", NULL, BOTH, WORKS, NULL }, /* doc/wire/stream.md 4.3 */
	[CAP_RDMA_PIN_ALL] = { "rdma-pin-all", "7.2", NULL, BOTH, REFUSED,
	                       "RDMA is another protocol, which this library does not speak" },
	[CAP_AUTO_CONVERGE] = { "auto-converge", "7.2", NULL, SRC, NONE, NULL },
	[CAP_ZERO_BLOCKS] = { "zero-blocks", "7.2", "10.2", SRC, NONE, NULL },
	[CAP_COMPRESS] = { "compress", "7.2", "9.0", BOTH, WORKS, NULL }, /* doc/wire/stream.md 4.4 */
	[CAP_BLOCK] = { "block", "7.2", "9.0", BOTH, REFUSED,
	                "disk contents inside the stream are not taken; mirror the disks over NBD, as later releases "
	                "do" },
	[CAP_EVENTS] = { "events", "7.2", NULL, DEST, WORKS, NULL },
	[CAP_POSTCOPY_RAM] = { "postcopy-ram", "7.2", NULL, BOTH, WORKS, /* doc/wire/stream.md 5 */
	                       "see the command probe for what it needs of the kernel" },
	[CAP_X_COLO] = { "x-colo", "7.2", NULL, BOTH, REFUSED, /* doc/wire/stream.md 8 */
	                 "with COLO the source goes on with checkpoints instead of handing the guest over" },
	[CAP_RELEASE_RAM] = { "release-ram", "7.2", NULL, SRC, NONE, NULL },
	[CAP_RETURN_PATH] = { "return-path", "7.2", NULL, BOTH, WORKS, /* doc/wire/stream.md 3 */
	                      "recommended: the source then waits until the guest has landed" },
	[CAP_PAUSE_BEFORE_SWITCHOVER] = { "pause-before-switchover", "7.2", NULL, SRC, WORKS,
	                                  "the stream may be silent for any time" }, /* doc/wire/stream.md 1.5 */
	[CAP_MULTIFD] = { "multifd", "7.2", NULL, BOTH, WORKS, NULL },
	[CAP_DIRTY_BITMAPS] = { "dirty-bitmaps", "7.2", NULL, BOTH, WORKS, /* doc/wire/stream.md 7.6 */
	                        "bitmaps are read and dropped" },
	[CAP_POSTCOPY_BLOCKTIME] = { "postcopy-blocktime", "7.2", NULL, DEST, NONE, "always measured" },
	[CAP_LATE_BLOCK_ACTIVATE] = { "late-block-activate", "7.2", NULL, DEST, NONE, "always late" },
	[CAP_X_IGNORE_SHARED] = { "x-ignore-shared", "7.2", NULL, BOTH, WORKS, NULL }, /* doc/wire/stream.md 4.1 */
	[CAP_VALIDATE_UUID] = { "validate-uuid", "7.2", NULL, BOTH, WORKS,             /* doc/wire/stream.md 1.3 */
	                        "compared with parameter uuid" },
	[CAP_BACKGROUND_SNAPSHOT] = { "background-snapshot", "7.2", NULL, SRC, REFUSED, /* doc/wire/stream.md 1.5 */
	                              "it is a snapshot of a guest that goes on at the source: landing it live would "
	                              "run it twice" },
	[CAP_ZERO_COPY_SEND] = { "zero-copy-send", "7.2", NULL, SRC, NONE, "for multifd" },
	[CAP_POSTCOPY_PREEMPT] = { "postcopy-preempt", "7.2", NULL, BOTH, WORKS, NULL }, /* doc/wire/stream.md 6 */
	[CAP_SWITCHOVER_ACK] = { "switchover-ack", "8.1", NULL, BOTH, WORKS, NULL },     /* doc/wire/stream.md 3 */
	[CAP_DIRTY_LIMIT] = { "dirty-limit", "8.1", NULL, SRC, NONE, NULL },
	[CAP_MAPPED_RAM] = { "mapped-ram", "9.0", NULL, BOTH, REFUSED,
	                     "a file with a fixed place for each page is not read here; save the guest with mapped-ram "
	                     "off" },
};

static const struct option_word compression_words[] = {
	[MULTIFD_COMPRESSION_NONE] = { "none", NULL },
	[MULTIFD_COMPRESSION_ZLIB] = { "zlib", NULL },
	[MULTIFD_COMPRESSION_ZSTD] = { "zstd", NULL },
	[MULTIFD_COMPRESSION_QPL] = { "qpl", "QPL's coding is not decoded here" },
	[MULTIFD_COMPRESSION_UADK] = { "uadk", "UADK's coding is not decoded here" },
	[MULTIFD_COMPRESSION_QATZIP] = { "qatzip", "QATzip's coding is not decoded here" },
	{ NULL, NULL },
};

#define CPR_REASON "guest memory would come as descriptors in the layout of QEMU itself"

static const struct option_word mode_words[] = {
	{ "normal", NULL },         { "cpr-reboot", NULL }, { "cpr-transfer", CPR_REASON },
	{ "cpr-exec", CPR_REASON }, { NULL, NULL },
};

static const struct option_word zero_page_words[] = {
	{ "none", NULL },
	{ "legacy", NULL },
	{ "multifd", NULL },
	{ NULL, NULL },
};

static const struct option_word tls_type_words[] = {
	[TLS_CREDS_X509] = { "x509", NULL },
	[TLS_CREDS_PSK] = { "psk", NULL },
	[TLS_CREDS_ANON] = { "anon", NULL },
	{ NULL, NULL },
};

static const struct option_word tristate_words[] = {
	[TRISTATE_AUTO] = { "auto", NULL },
	[TRISTATE_ON] = { "on", NULL },
	[TRISTATE_OFF] = { "off", NULL },
	{ NULL, NULL },
};

/* The first is auto, the next WIRE_TPAGE_BITS_MIN. */
static const struct option_word tpage_bits_words[] = {
	{ "auto", NULL }, { "10", NULL }, { "11", NULL }, { "12", NULL }, { "13", NULL },
	{ "14", NULL },   { "15", NULL }, { "16", NULL }, { NULL, NULL },
};

#define FIELD(name) offsetof(struct options, name)
#define TEXT_MAX (OPTIONS_TEXT_BYTES - 1)
#define SIZE_BYTES_MAX UINT64_MAX
#define POWER_MAX (1ull << 63)

/* A setting that is taken must work: a stream in the clear must not pass for one in TLS. */
#if HAVE_GNUTLS
#define TLS WORKS
#define TLS_NOTE(text) text
#else
#define TLS REFUSED
#define TLS_NOTE(text) "TLS is not in this build: it was configured without GnuTLS"
#endif

/*
 * Every parameter of QEMU 7.2 to 11.1, its machine types' compatibility properties, and ours. Names, defaults and
 * releases: doc/wire/control.md 5. The ranges that its table leaves open are those that QEMU 7.2 and 10.0 answer with
 * when a value is out of range; 7.2 takes any byte for the two levels.
 */
static const struct param_row params[] = {
	/* doc/wire/multifd.md 1 */
	{ "multifd-channels", "4.0", NULL, BOTH, WORKS, PARAM_U64, FIELD(multifd_channels), 1, 255, NULL, "", "2",
	  "for multifd" },
	{ "multifd-compression", "5.0", NULL, BOTH, WORKS, PARAM_WORD, FIELD(multifd_compression), 0, 0,
	  compression_words, "", "none", "for multifd" },
	{ "multifd-zlib-level", "5.0", NULL, SRC, NONE, PARAM_U64, OPTIONS_NOWHERE, 0, 255, NULL, "", "1", NULL },
	{ "multifd-zstd-level", "5.0", NULL, SRC, NONE, PARAM_U64, OPTIONS_NOWHERE, 0, 255, NULL, "", "1", NULL },
	{ "multifd-qatzip-level", "9.2", NULL, SRC, NONE, PARAM_U64, OPTIONS_NOWHERE, 1, 9, NULL, "", "1", NULL },
	{ "zero-page-detection", "9.0", NULL, SRC, NONE, PARAM_WORD, OPTIONS_NOWHERE, 0, 0, zero_page_words, "",
	  "multifd", NULL },
	{ "direct-io", "9.1", NULL, BOTH, NONE, PARAM_BOOL, OPTIONS_NOWHERE, 0, 0, NULL, "", "off",
	  "for mapped-ram with multifd" }, /* doc/wire/mapped-ram.md 3 */

	/* doc/wire/channels.md 8 */
	{ "tls-creds", "2.7", NULL, BOTH, TLS, PARAM_TEXT, FIELD(tls_creds), 0, TEXT_MAX, NULL, "", "",
	  TLS_NOTE("any name turns TLS on, for every channel; the files are in tls-creds-dir") },
	{ "tls-authz", "4.0", NULL, DEST, TLS, PARAM_TEXT, FIELD(tls_authz), 0, TEXT_MAX, NULL, "", "",
	  TLS_NOTE("not an object: names that may come, as O=mf,CN=*;CN=other; empty: all of our CA") },
	{ "tls-hostname", "2.7", NULL, SRC, NONE, PARAM_TEXT, OPTIONS_NOWHERE, 0, TEXT_MAX, NULL, "", "", NULL },
	{ "tls-creds-dir", NULL, NULL, DEST, TLS, PARAM_TEXT, FIELD(tls_creds_dir), 0, TEXT_MAX, NULL, "", "",
	  TLS_NOTE("of ca-cert.pem, server-cert.pem, server-key.pem, or keys.psk") },
	{ "tls-creds-type", NULL, NULL, DEST, TLS, PARAM_WORD, FIELD(tls_creds_type), 0, 0, tls_type_words, "", "x509",
	  TLS_NOTE("anon encrypts and authenticates nobody") },
	{ "tls-priority", NULL, NULL, DEST, TLS, PARAM_TEXT, FIELD(tls_priority), 0, TEXT_MAX, NULL, "", "",
	  TLS_NOTE("GnuTLS priority string; empty: TLS 1.2 and 1.3 with the fastest of their good ciphers") },
	{ "tls-verify-peer", NULL, NULL, DEST, TLS, PARAM_BOOL, FIELD(tls_verify_peer), 0, 0, NULL, "", "on",
	  TLS_NOTE("off: a source needs no certificate") },

	/* doc/wire/mapped-ram.md 6 */
	{ "mode", "8.2", NULL, BOTH, WORKS, PARAM_WORD, OPTIONS_NOWHERE, 0, 0, mode_words, "", "normal", NULL },
	{ "cpr-exec-command", "10.2", NULL, SRC, NONE, PARAM_TEXT, OPTIONS_NOWHERE, 0, TEXT_MAX, NULL, "", "", NULL },

	/* doc/wire/control.md 5: the side that has the guest's network sends them, that is the embedder */
	{ "announce-initial", "4.0", NULL, DEST, NONE, PARAM_U64, OPTIONS_NOWHERE, 0, 100000, NULL, "ms", "50",
	  "announcing is the embedder's" },
	{ "announce-max", "4.0", NULL, DEST, NONE, PARAM_U64, OPTIONS_NOWHERE, 0, 100000, NULL, "ms", "550",
	  "announcing is the embedder's" },
	{ "announce-rounds", "4.0", NULL, DEST, NONE, PARAM_U64, OPTIONS_NOWHERE, 0, 1000, NULL, "", "5",
	  "announcing is the embedder's" },
	{ "announce-step", "4.0", NULL, DEST, NONE, PARAM_U64, OPTIONS_NOWHERE, 1, 10000, NULL, "ms", "100",
	  "announcing is the embedder's" },
	{ "block-bitmap-mapping", "5.2", NULL, DEST, NONE, PARAM_TEXT, OPTIONS_NOWHERE, 0, TEXT_MAX, NULL, "", "",
	  "bitmaps are dropped" },

	/* doc/wire/control.md 5: the source's own */
	{ "max-bandwidth", "7.2", NULL, SRC, NONE, PARAM_SIZE, OPTIONS_NOWHERE, 0, SIZE_BYTES_MAX, NULL, "bytes/s",
	  "128M", NULL },
	{ "max-postcopy-bandwidth", "3.0", NULL, SRC, NONE, PARAM_SIZE, OPTIONS_NOWHERE, 0, SIZE_BYTES_MAX, NULL,
	  "bytes/s", "0", NULL },
	{ "avail-switchover-bandwidth", "8.2", NULL, SRC, NONE, PARAM_SIZE, OPTIONS_NOWHERE, 0, SIZE_BYTES_MAX, NULL,
	  "bytes/s", "0", NULL },
	{ "downtime-limit", "7.2", NULL, SRC, NONE, PARAM_U64, OPTIONS_NOWHERE, 0, 2000000, NULL, "ms", "300", NULL },
	{ "xbzrle-cache-size", "2.11", NULL, SRC, NONE, PARAM_POWER, OPTIONS_NOWHERE, 4096, POWER_MAX, NULL, "bytes",
	  "64M", NULL },
	{ "throttle-trigger-threshold", "7.2", NULL, SRC, NONE, PARAM_U64, OPTIONS_NOWHERE, 1, 100, NULL, "%", "50",
	  NULL },
	{ "cpu-throttle-initial", "7.2", NULL, SRC, NONE, PARAM_U64, OPTIONS_NOWHERE, 1, 99, NULL, "%", "20", NULL },
	{ "cpu-throttle-increment", "7.2", NULL, SRC, NONE, PARAM_U64, OPTIONS_NOWHERE, 1, 99, NULL, "%", "10", NULL },
	{ "cpu-throttle-tailslow", "7.2", NULL, SRC, NONE, PARAM_BOOL, OPTIONS_NOWHERE, 0, 0, NULL, "", "off", NULL },
	{ "max-cpu-throttle", "7.2", NULL, SRC, NONE, PARAM_U64, OPTIONS_NOWHERE, 1, 99, NULL, "%", "99", NULL },
	{ "vcpu-dirty-limit", "8.1", NULL, SRC, NONE, PARAM_U64, OPTIONS_NOWHERE, 1, UINT64_MAX, NULL, "MiB/s", "1",
	  NULL },
	{ "x-vcpu-dirty-limit-period", "8.1", NULL, SRC, NONE, PARAM_U64, OPTIONS_NOWHERE, 1, 1000, NULL, "ms", "1000",
	  NULL },
	{ "x-checkpoint-delay", "7.2", NULL, SRC, NONE, PARAM_U64, OPTIONS_NOWHERE, 0, UINT32_MAX, NULL, "ms", "20000",
	  NULL },
	{ "x-rdma-chunk-size", "11.1", NULL, BOTH, NONE, PARAM_SIZE, OPTIONS_NOWHERE, 0, SIZE_BYTES_MAX, NULL, "bytes",
	  "1M", NULL },
	{ "compress-level", "7.2", "9.0", SRC, NONE, PARAM_U64, OPTIONS_NOWHERE, 0, 9, NULL, "", "1", NULL },
	{ "compress-threads", "7.2", "9.0", SRC, NONE, PARAM_U64, OPTIONS_NOWHERE, 1, 255, NULL, "", "8", NULL },
	{ "compress-wait-thread", "7.2", "9.0", SRC, NONE, PARAM_BOOL, OPTIONS_NOWHERE, 0, 0, NULL, "", "on", NULL },
	{ "decompress-threads", "7.2", "9.0", DEST, NONE, PARAM_U64, OPTIONS_NOWHERE, 1, 255, NULL, "", "2",
	  "pages are inflated by the one thread" },
	{ "block-incremental", "7.2", "9.0", SRC, NONE, PARAM_BOOL, OPTIONS_NOWHERE, 0, 0, NULL, "", "off", NULL },

	/* Compatibility properties: doc/wire/control.md 5, last paragraph; doc/wire/stream.md 1.3, 1.4, 1.6, 7.5 */
	{ "send-configuration", "7.2", NULL, BOTH, WORKS, PARAM_BOOL, FIELD(send_configuration), 0, 0, NULL, "", "on",
	  "off for machine types up to 2.3" },
	{ "send-section-footer", "7.2", NULL, BOTH, WORKS, PARAM_BOOL, FIELD(send_section_footer), 0, 0, NULL, "", "on",
	  "off for machine types up to 2.3" },
	{ "suppress-vmdesc", "7.2", NULL, BOTH, WORKS, PARAM_BOOL, FIELD(suppress_vmdesc), 0, 0, NULL, "", "off",
	  "on for machine types up to 2.2" },
	{ "store-global-state", "7.2", NULL, SRC, NONE, PARAM_BOOL, OPTIONS_NOWHERE, 0, 0, NULL, "", "on",
	  "the section is used where there is one" },
	{ "send-switchover-start", "10.0", NULL, SRC, NONE, PARAM_WORD, OPTIONS_NOWHERE, 0, 0, tristate_words, "",
	  "auto", "the command is taken wherever it comes" },
	{ "multifd-flush-after-each-section", "8.1", NULL, BOTH, WORKS, PARAM_WORD,
	  FIELD(multifd_flush_after_each_section), 0, 0, tristate_words, "", "auto", "for multifd" },
	{ "x-preempt-pre-7-2", "8.0", NULL, BOTH, NONE, PARAM_WORD, OPTIONS_NOWHERE, 0, 0, tristate_words, "", "auto",
	  "for postcopy-preempt" }, /* doc/wire/channels.md 0 */
	{ "multifd-clean-tls-termination", "10.0", NULL, DEST, NONE, PARAM_WORD, OPTIONS_NOWHERE, 0, 0, tristate_words,
	  "", "auto", "for multifd" }, /* doc/wire/multifd.md 9.2 */
	{ "switchover-ack-legacy", "11.1", NULL, BOTH, WORKS, PARAM_WORD, FIELD(switchover_ack_legacy), 0, 0,
	  tristate_words, "", "auto", "on for machine types up to 11.0" }, /* doc/wire/stream.md 3, 12 */

	/* Ours */
	{ "uuid", NULL, NULL, DEST, WORKS, PARAM_UUID, FIELD(uuid), 0, 0, NULL, "", "",
	  "of the guest, for validate-uuid" },
	{ "machine", NULL, NULL, DEST, WORKS, PARAM_TEXT, FIELD(machine), 0, TEXT_MAX, NULL, "", "",
	  "machine type the stream must name; empty: any" },
	{ "target-page-bits", NULL, NULL, DEST, WORKS, PARAM_WORD, FIELD(tpage_bits), 0, 0, tpage_bits_words, "",
	  "auto", "of a source that does not say it; auto: 10 for ARM boards that are known, 12 for others" },
	{ "ram-limit", NULL, NULL, DEST, WORKS, PARAM_SIZE, FIELD(ram_limit_bytes), 4096, SIZE_BYTES_MAX, NULL, "bytes",
	  "16T", "a guest with more RAM is refused" },
	{ "multifd-window-limit", NULL, NULL, DEST, WORKS, PARAM_SIZE, FIELD(multifd_window_limit_bytes), 1u << 20,
	  SIZE_BYTES_MAX, NULL, "bytes", "1G", "memory of all channels together for decompressing zstd" },
	{ "connect-deadline", NULL, NULL, DEST, WORKS, PARAM_U64, FIELD(connect_deadline_s), 1, 86400, NULL, "s", "10",
	  "for a connection to say what it is, and for an expected channel to come" },
	{ "postcopy-prefetch", NULL, NULL, DEST, WORKS, PARAM_BOOL, FIELD(postcopy_prefetch), 0, 0, NULL, "", "on",
	  "ask ahead for threads that walk through memory" },
	{ "postcopy-kernel-faults", NULL, NULL, DEST, WORKS, PARAM_BOOL, FIELD(postcopy_kernel_faults), 0, 0, NULL, "",
	  "on", "off: neither KVM nor vhost touches the guest; inmigrate listen, which runs none, has it off" },
	{ "stuck-after", NULL, NULL, DEST, WORKS, PARAM_U64, FIELD(stuck_after_ms), 0, 86400000, NULL, "ms", "5000",
	  "in postcopy a callback that runs longer without a park is named: inm_stuck_fd; 0: never" },
	/* The three keepalive ranges are those of tcp(7). The defaults notice a peer that is gone within 40 s. */
	{ "keepalive-idle", NULL, NULL, DEST, WORKS, PARAM_U64, FIELD(keepalive_idle_s), 0, 32767, NULL, "s", "10",
	  "0: no keepalive" },
	{ "keepalive-interval", NULL, NULL, DEST, WORKS, PARAM_U64, FIELD(keepalive_interval_s), 1, 32767, NULL, "s",
	  "5", NULL },
	{ "keepalive-count", NULL, NULL, DEST, WORKS, PARAM_U64, FIELD(keepalive_count), 1, 127, NULL, "", "6", NULL },
	{ "tcp-user-timeout", NULL, NULL, DEST, WORKS, PARAM_U64, FIELD(tcp_user_timeout_ms), 0, INT32_MAX, NULL, "ms",
	  "40000", "0: the kernel's own" },
};

const struct cap_row *options_cap_row(unsigned index)
{
	return index < CAP_COUNT ? &caps[index] : NULL;
}

const struct param_row *options_param_row(unsigned index)
{
	return index < ARRAY_COUNT(params) ? &params[index] : NULL;
}

const char *options_param_form(const struct param_row *row, char buf[static OPTIONS_TEXT_BYTES])
{
	size_t used = 0;

	switch (row->type) {
	case PARAM_U64:
		snprintf(buf, OPTIONS_TEXT_BYTES, "%" PRIu64 "..%" PRIu64, row->min, row->max);
		break;
	case PARAM_SIZE:
		snprintf(buf, OPTIONS_TEXT_BYTES, "%" PRIu64 "..%" PRIu64 " (k, M, G, T)", row->min, row->max);
		break;
	case PARAM_POWER:
		snprintf(buf, OPTIONS_TEXT_BYTES, "power of two, %" PRIu64 "..%" PRIu64 " (k, M, G, T)", row->min,
		         row->max);
		break;
	case PARAM_BOOL:
		snprintf(buf, OPTIONS_TEXT_BYTES, "on|off");
		break;
	case PARAM_WORD:
		buf[0] = '\0';
		for (const struct option_word *w = row->words; w->name; w++)
			if (!w->refused)
				used += (size_t)snprintf(buf + used, OPTIONS_TEXT_BYTES - used, "%s%s", used ? "|" : "",
				                         w->name);
		break;
	case PARAM_TEXT:
		snprintf(buf, OPTIONS_TEXT_BYTES, "text, %" PRIu64 "..%" PRIu64 " bytes", row->min, row->max);
		break;
	case PARAM_UUID:
		snprintf(buf, OPTIONS_TEXT_BYTES, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx");
		break;
	}
	return buf;
}

const char *support_name(enum support support)
{
	switch (support) {
	case SUPPORT_WORKS:
		return "works";
	case SUPPORT_NO_EFFECT:
		return "no effect";
	case SUPPORT_REFUSED:
		return "refused";
	}
	return "?";
}

const char *side_name(enum side side)
{
	switch (side) {
	case SIDE_BOTH:
		return "both";
	case SIDE_DESTINATION:
		return "destination";
	case SIDE_SOURCE:
		return "source";
	}
	return "?";
}
