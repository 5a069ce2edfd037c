/* Capabilities and parameters by QEMU's names: engine/options/ */
#include "engine/options/options.h"
#include "engine/options/options_check.h"
#include "engine/options/options_set.h"
#include "engine/options/options_table.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/parse.h"
#include "config.h"
#include "engine/channel/tls/tls_creds.h"
#include "tests/support/check_main.h"

#define ARRAY_COUNT(a) (sizeof(a) / sizeof((a)[0]))

static struct options opts;
static struct err err;

static void setup(void)
{
	memset(&opts, 0xff, sizeof(opts)); /* init must not rely on zeros */
	options_init(&opts);
	err = ERR_NONE;
}

static void ck_says(const char *words)
{
	ck_assert_msg(strstr(err.text, words) != NULL, "'%s' is not in: %s", words, err.text);
}

static void must_enable(const char *name)
{
	ck_assert_msg(options_set_capability(&opts, name, true, &err) == 0, "%s", err.text);
}

static void must_set(const char *name, const char *value)
{
	ck_assert_msg(options_set_parameter(&opts, name, value, &err) == 0, "%s", err.text);
}

/* ---- the tables ----------------------------------------------------------------------------------------------- */

/* The answers of query-migrate-capabilities, 7.2.22 first and what 10.0.2 has more: written down a second time, so that
 * a row lost from the table is seen. */
static const char *const qemu_caps[] = {
	"xbzrle",           "rdma-pin-all",   "auto-converge",       "zero-blocks",
	"compress",         "events",         "postcopy-ram",        "x-colo",
	"release-ram",      "block",          "return-path",         "pause-before-switchover",
	"multifd",          "dirty-bitmaps",  "postcopy-blocktime",  "late-block-activate",
	"x-ignore-shared",  "validate-uuid",  "background-snapshot", "zero-copy-send",
	"postcopy-preempt", "switchover-ack", "dirty-limit",         "mapped-ram",
};

/* The answers of query-migrate-parameters, as text, too; and what doc/wire/control.md 5 has of later releases. */
static const struct {
	const char *name, *value;
} qemu_params[] = {
	{ "cpu-throttle-tailslow", "off" },
	{ "xbzrle-cache-size", "67108864" },
	{ "cpu-throttle-initial", "20" },
	{ "announce-max", "550" },
	{ "decompress-threads", "2" },
	{ "compress-threads", "8" },
	{ "compress-level", "1" },
	{ "multifd-channels", "2" },
	{ "multifd-zstd-level", "1" },
	{ "announce-initial", "50" },
	{ "block-incremental", "off" },
	{ "compress-wait-thread", "on" },
	{ "downtime-limit", "300" },
	{ "tls-authz", "" },
	{ "multifd-compression", "none" },
	{ "announce-rounds", "5" },
	{ "announce-step", "100" },
	{ "tls-creds", "" },
	{ "multifd-zlib-level", "1" },
	{ "max-cpu-throttle", "99" },
	{ "max-postcopy-bandwidth", "0" },
	{ "tls-hostname", "" },
	{ "throttle-trigger-threshold", "50" },
	{ "max-bandwidth", "134217728" },
	{ "x-checkpoint-delay", "20000" },
	{ "cpu-throttle-increment", "10" },
	{ "direct-io", "off" },
	{ "avail-switchover-bandwidth", "0" },
	{ "zero-page-detection", "multifd" },
	{ "multifd-qatzip-level", "1" },
	{ "mode", "normal" },
	{ "vcpu-dirty-limit", "1" },
	{ "x-vcpu-dirty-limit-period", "1000" },
	{ "cpr-exec-command", "" },
	{ "x-rdma-chunk-size", "1048576" },
	{ "block-bitmap-mapping", "" },
	/* properties */
	{ "send-configuration", "on" },
	{ "send-section-footer", "on" },
	{ "suppress-vmdesc", "off" },
	{ "store-global-state", "on" },
	{ "send-switchover-start", "auto" },
	{ "multifd-flush-after-each-section", "auto" },
	{ "x-preempt-pre-7-2", "auto" },
	{ "multifd-clean-tls-termination", "auto" },
	{ "switchover-ack-legacy", "auto" },
	/* ours */
	{ "uuid", "" },
	{ "machine", "" },
	{ "ram-limit", "17592186044416" },
	{ "target-page-bits", "auto" },
	{ "multifd-window-limit", "1073741824" },
	{ "connect-deadline", "10" },
	{ "postcopy-prefetch", "on" },
	{ "stuck-after", "5000" },
	{ "postcopy-kernel-faults", "on" },
	{ "keepalive-idle", "10" },
	{ "keepalive-interval", "5" },
	{ "keepalive-count", "6" },
	{ "tcp-user-timeout", "40000" },
	{ "tls-creds-dir", "" },
	{ "tls-creds-type", "x509" },
	{ "tls-priority", "" },
	{ "tls-verify-peer", "on" },
};

TEST_CASE("tables", 4, .checked = { .setup = setup });

TEST(test_options_know_every_capability_of_qemu)
{
	ck_assert_uint_eq(ARRAY_COUNT(qemu_caps), CAP_COUNT);
	for (size_t i = 0; i < ARRAY_COUNT(qemu_caps); i++)
		ck_assert_msg(options_set_capability(&opts, qemu_caps[i], false, &err) == 0, "%s", err.text);
}

static const struct param_row *row_of(const char *name)
{
	const struct param_row *row;
	unsigned i = 0;

	while ((row = options_param_row(i)) && strcmp(row->name, name))
		i++;
	ck_assert_msg(row != NULL, "no parameter '%s'", name);
	return row;
}

/* QEMU answers with plain numbers; ours may have suffixes. */
static bool is_same_value(const struct param_row *row, const char *a, const char *b)
{
	uint64_t x, y;

	if (row->type != PARAM_SIZE && row->type != PARAM_POWER)
		return !strcmp(a, b);
	return parse_size(a, &x) == 0 && parse_size(b, &y) == 0 && x == y;
}

TEST(test_options_know_every_parameter_with_its_default)
{
	unsigned rows = 0;

	while (options_param_row(rows))
		rows++;
	ck_assert_uint_eq(rows, ARRAY_COUNT(qemu_params));
	for (size_t i = 0; i < ARRAY_COUNT(qemu_params); i++) {
		const struct param_row *row = row_of(qemu_params[i].name);

		ck_assert_msg(is_same_value(row, row->def, qemu_params[i].value), "%s: %s", row->name, row->def);
	}
}

TEST(test_options_rows_are_complete)
{
	for (unsigned i = 0; i < CAP_COUNT; i++) {
		const struct cap_row *row = options_cap_row(i);

		ck_assert_ptr_nonnull(row->name);
		ck_assert_ptr_nonnull(row->since);
		ck_assert_msg(row->support != SUPPORT_REFUSED || row->note, "%s: refused without a reason", row->name);
	}
	ck_assert_ptr_null(options_cap_row(CAP_COUNT));
	for (unsigned i = 0; options_param_row(i); i++) {
		const struct param_row *row = options_param_row(i);

		ck_assert_ptr_nonnull(row->name);
		ck_assert_ptr_nonnull(row->unit);
		ck_assert_msg(row->support != SUPPORT_REFUSED || row->note, "%s: refused without a reason", row->name);
		ck_assert_msg((row->type == PARAM_WORD) == (row->words != NULL), "%s", row->name);
		if (row->field == OPTIONS_NOWHERE) {
			ck_assert_msg(row->support != SUPPORT_WORKS || row->type == PARAM_WORD, "%s", row->name);
			continue;
		}
		ck_assert_uint_lt(row->field, sizeof(struct options));
		for (unsigned j = 0; j < i; j++) {
			ck_assert_str_ne(row->name, options_param_row(j)->name);
			ck_assert_msg(row->field != options_param_row(j)->field, "%s shares its field", row->name);
		}
	}
}

TEST(test_options_words_of_the_tables)
{
	ck_assert_str_eq(support_name(SUPPORT_WORKS), "works");
	ck_assert_str_eq(support_name(SUPPORT_NO_EFFECT), "no effect");
	ck_assert_str_eq(support_name(SUPPORT_REFUSED), "refused");
	ck_assert_str_eq(side_name(SIDE_BOTH), "both");
	ck_assert_str_eq(side_name(SIDE_DESTINATION), "destination");
	ck_assert_str_eq(side_name(SIDE_SOURCE), "source");
}

/* ---- capabilities --------------------------------------------------------------------------------------------- */

TEST_CASE("set", 4, .checked = { .setup = setup });

TEST(test_capability_is_set_and_cleared_alone)
{
	for (unsigned i = 0; i < CAP_COUNT; i++) {
		const struct cap_row *row = options_cap_row(i);

		if (row->support == SUPPORT_REFUSED)
			continue;
		must_enable(row->name);
		ck_assert_uint_eq(opts.caps, 1u << i);
		ck_assert(options_has(&opts, i));
		must_enable(row->name); /* again is right, too: tools repeat themselves */
		ck_assert_int_eq(options_set_capability(&opts, row->name, false, &err), 0);
		ck_assert_uint_eq(opts.caps, 0);
	}
}

TEST(test_capability_refused_says_why_and_may_be_off)
{
	for (unsigned i = 0; i < CAP_COUNT; i++) {
		const struct cap_row *row = options_cap_row(i);

		if (row->support != SUPPORT_REFUSED)
			continue;
		ck_assert_int_eq(options_set_capability(&opts, row->name, true, &err), -ENOTSUP);
		ck_says(row->name);
		ck_says(row->note);
		ck_assert_uint_eq(opts.caps, 0);
		ck_assert_int_eq(options_set_capability(&opts, row->name, false, &err), 0);
	}
}

TEST(test_capability_unknown_offers_the_nearest)
{
	static const struct {
		const char *name, *offer;
	} rows[] = {
		{ "multifdd", "'multifd'" },           { "x-multifd", "'multifd'" }, /* as -global spells it */
		{ "return_path", "'return-path'" },    { "post-copy-ram", "'postcopy-ram'" },
		{ "validate_uid", "'validate-uuid'" }, { "blck", "'block'" },
	};

	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		ck_assert_int_eq(options_set_capability(&opts, rows[i].name, true, &err), -ENOENT);
		ck_says("did you mean");
		ck_says(rows[i].offer);
	}
}

TEST(test_capability_unknown_without_likeness_offers_none)
{
	static const char *const names[] = {
		"",
		"x",
		"zzz",
		"Return",
		"teleport",
		"blog",
		"a-name-that-is-much-longer-than-any-capability-there-has-ever-been-in-any-release-of-qemu",
	};

	for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
		ck_assert_int_eq(options_set_capability(&opts, names[i], true, &err), -ENOENT);
		ck_assert_msg(!strstr(err.text, "mean"), "%s", err.text);
	}
	ck_assert_int_eq(options_set_capability(&opts, "\033[2J", false, &err), -ENOENT);
	ck_says("\\x1b[2J");
}

/* ---- parameters ----------------------------------------------------------------------------------------------- */

TEST(test_parameter_default_is_always_accepted_and_what_it_was)
{
	for (unsigned i = 0; options_param_row(i); i++) {
		const struct param_row *row = options_param_row(i);
		struct options before = opts;

		must_set(row->name, row->def);
		ck_assert_mem_eq(&before, &opts, sizeof(opts));
	}
}

TEST(test_parameter_range_ends_are_in_and_their_neighbours_out)
{
	for (unsigned i = 0; options_param_row(i); i++) {
		const struct param_row *row = options_param_row(i);
		const uint64_t *field = (const void *)((const char *)&opts + row->field);
		char text[32];
		uint64_t ends[2] = { row->min, row->max };

		if (row->type != PARAM_U64 && row->type != PARAM_SIZE && row->type != PARAM_POWER)
			continue;
		for (int end = 0; end < 2; end++) {
			snprintf(text, sizeof(text), "%llu", (unsigned long long)ends[end]);
			must_set(row->name, text);
			if (row->field != OPTIONS_NOWHERE)
				ck_assert_uint_eq(*field, ends[end]);
		}
		if (row->min > 0) {
			snprintf(text, sizeof(text), "%llu", (unsigned long long)row->min - 1);
			ck_assert_int_eq(options_set_parameter(&opts, row->name, text, &err), -ERANGE);
			ck_says(row->name);
		}
		if (row->max < UINT64_MAX) {
			snprintf(text, sizeof(text), "%llu", (unsigned long long)row->max + 1);
			ck_assert_int_eq(options_set_parameter(&opts, row->name, text, &err), -ERANGE);
		}
		ck_assert_int_eq(options_set_parameter(&opts, row->name, "18446744073709551616", &err), -ERANGE);
	}
}

TEST(test_parameter_values_reach_their_fields)
{
	must_set("multifd-channels", "8");
	ck_assert_uint_eq(opts.multifd_channels, 8);
	must_set("multifd-compression", "zstd");
	ck_assert_int_eq(opts.multifd_compression, MULTIFD_COMPRESSION_ZSTD);
	must_set("send-configuration", "off");
	ck_assert(!opts.send_configuration);
	must_set("send-section-footer", "off");
	ck_assert(!opts.send_section_footer);
	must_set("suppress-vmdesc", "on");
	ck_assert(opts.suppress_vmdesc);
	must_set("switchover-ack-legacy", "off");
	ck_assert_int_eq(opts.switchover_ack_legacy, TRISTATE_OFF);
	must_set("multifd-flush-after-each-section", "on");
	ck_assert_int_eq(opts.multifd_flush_after_each_section, TRISTATE_ON);
	must_set("machine", "pc-q35-7.2");
	ck_assert_str_eq(opts.machine, "pc-q35-7.2");
	must_set("ram-limit", "4G");
	ck_assert_uint_eq(opts.ram_limit_bytes, 4ull << 30);
	must_set("connect-deadline", "3");
	ck_assert_uint_eq(opts.connect_deadline_s, 3);
	must_set("keepalive-idle", "0");
	ck_assert_uint_eq(opts.keepalive_idle_s, 0);
	must_set("tcp-user-timeout", "0");
	ck_assert_uint_eq(opts.tcp_user_timeout_ms, 0);
}

/* As the tools of a source set them on both sides. */
TEST(test_parameter_that_nobody_here_acts_on_is_checked_and_changes_nothing)
{
	static const struct {
		const char *name, *good, *bad;
	} rows[] = {
		{ "mode", "cpr-reboot", "cpr-exec" },        { "direct-io", "true", "perhaps" },
		{ "max-bandwidth", "10G", "fast" },          { "downtime-limit", "2000000", "2000001" },
		{ "zero-page-detection", "legacy", "both" }, { "tls-hostname", "source.example", NULL },
		{ "xbzrle-cache-size", "1G", "3G" },
	};
	struct options before = opts;

	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		must_set(rows[i].name, rows[i].good);
		if (rows[i].bad)
			ck_assert_int_lt(options_set_parameter(&opts, rows[i].name, rows[i].bad, &err), 0);
		ck_assert_mem_eq(&before, &opts, sizeof(opts));
	}
}

TEST(test_parameter_uuid_is_text_outside_and_bytes_inside)
{
	static const uint8_t want[16] = { 0,    0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
		                          0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff };

	ck_assert(!opts.has_uuid);
	must_set("uuid", "00112233-4455-6677-8899-AABBCCDDEEFF");
	ck_assert(opts.has_uuid);
	ck_assert_mem_eq(opts.uuid, want, 16);
	ck_assert_int_eq(options_set_parameter(&opts, "uuid", "0011", &err), -EINVAL);
	ck_assert_mem_eq(opts.uuid, want, 16);
	must_set("uuid", "00000000-0000-0000-0000-000000000000");
	ck_assert(opts.has_uuid);
	must_set("uuid", "");
	ck_assert(!opts.has_uuid);
}

/* Refused with the right number and the word that helps; nothing is changed. */
TEST(test_parameter_refuses_and_says_why)
{
	static const struct {
		const char *name, *value;
		int r;
		const char *says;
	} rows[] = {
		{ "multifd-chanels", "2", -ENOENT, "did you mean 'multifd-channels'" },
		{ "multifd_channels", "2", -ENOENT, "did you mean 'multifd-channels'" },
		{ "", "2", -ENOENT, "unknown parameter ''" },
		{ "volume", "2", -ENOENT, "unknown parameter 'volume'" },
		{ "multifd-channels", "0", -ERANGE, "1..255" },
		{ "multifd-channels", "256", -ERANGE, "'256'" },
		{ "multifd-channels", "two", -EINVAL, "1..255" },
		{ "multifd-channels", "", -EINVAL, "1..255" },
		{ "multifd-channels", "2k", -EINVAL, "1..255" },
		{ "multifd-channels", "-1", -EINVAL, "1..255" },
		{ "multifd-compression", "lzma", -EINVAL, "none|zlib|zstd" },
		{ "multifd-compression", "", -EINVAL, "none|zlib|zstd" },
		{ "multifd-compression", "qpl", -ENOTSUP, "QPL" },
		{ "multifd-compression", "uadk", -ENOTSUP, "UADK" },
		{ "multifd-compression", "qatzip", -ENOTSUP, "QATzip" },
		{ "mode", "cpr-transfer", -ENOTSUP, "descriptors" },
		{ "mode", "cpr-exec", -ENOTSUP, "descriptors" },
		{ "mode", "turbo", -EINVAL, "normal|cpr-reboot" },
#if HAVE_GNUTLS
		{ "tls-creds-type", "srp", -EINVAL, "x509|psk|anon" },
		{ "tls-verify-peer", "maybe", -EINVAL, "on|off" },
#else
		{ "tls-creds", "tls0", -ENOTSUP, "TLS is not in this build" },
		{ "tls-authz", "CN=*", -ENOTSUP, "TLS is not in this build" },
		{ "tls-verify-peer", "off", -ENOTSUP, "TLS is not in this build" },
#endif
		{ "xbzrle-cache-size", "3M", -ERANGE, "power of two" },
		{ "xbzrle-cache-size", "2048", -ERANGE, "power of two" },
		{ "xbzrle-cache-size", "big", -EINVAL, "power of two" },
		{ "max-bandwidth", "16E", -ERANGE, "k, M, G, T" },
		{ "suppress-vmdesc", "auto", -EINVAL, "on|off" },
		{ "switchover-ack-legacy", "yes", -EINVAL, "auto|on|off" },
		{ "uuid", "00112233-4455-6677-8899-aabbccddeef", -EINVAL, "xxxxxxxx-" },
		{ "ram-limit", "0", -ERANGE, "4096.." },
		{ "multifd-window-limit", "4096", -ERANGE, "1048576.." },
		{ "connect-deadline", "0", -ERANGE, "1..86400" },
		{ "keepalive-count", "128", -ERANGE, "1..127" },
	};

	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		struct options before = opts;
		int r = options_set_parameter(&opts, rows[i].name, rows[i].value, &err);

		ck_assert_msg(r == rows[i].r, "%s=%s: %d, %s", rows[i].name, rows[i].value, r, err.text);
		ck_assert_int_eq(err.code, r);
		ck_says(rows[i].says);
		ck_assert_mem_eq(&before, &opts, sizeof(opts));
	}
}

TEST(test_parameter_text_fits_or_is_refused_whole)
{
	char text[OPTIONS_TEXT_BYTES + 1];

	memset(text, 'a', sizeof(text));
	text[OPTIONS_TEXT_BYTES - 1] = '\0';
	must_set("machine", text);
	ck_assert_str_eq(opts.machine, text);
	text[OPTIONS_TEXT_BYTES - 1] = 'a';
	text[OPTIONS_TEXT_BYTES] = '\0';
	ck_assert_int_eq(options_set_parameter(&opts, "machine", text, &err), -ERANGE);
	ck_assert_uint_eq(strlen(opts.machine), OPTIONS_TEXT_BYTES - 1);
	must_set("machine", "q35");
	ck_assert_str_eq(opts.machine, "q35");
}

TEST(test_parameter_form_offers_only_what_is_taken)
{
	char buf[OPTIONS_TEXT_BYTES];

	for (unsigned i = 0; options_param_row(i); i++) {
		const struct param_row *row = options_param_row(i);
		char word[64], *save;

		options_param_form(row, buf);
		ck_assert_msg(buf[0] && strlen(buf) < OPTIONS_TEXT_BYTES - 1, "%s", row->name);
		if (row->type != PARAM_WORD || row->support == SUPPORT_REFUSED)
			continue;
		for (char *w = strtok_r(buf, "|", &save); w; w = strtok_r(NULL, "|", &save)) {
			snprintf(word, sizeof(word), "%s", w);
			must_set(row->name, word);
		}
	}
}

/* ---- what fits together ---------------------------------------------------------------------------------------- */

/* Rows of capabilities that this version refuses are tested, too: their bits are set past the setter. */
static const struct {
	uint32_t caps;
	const char *says; /* NULL: fits */
} combinations[] = {
#define BIT(cap) (1u << CAP_##cap)
	{ 0, NULL },
	{ BIT(RETURN_PATH), NULL },
	{ BIT(SWITCHOVER_ACK), "'switchover-ack' needs capability 'return-path'" },
	{ BIT(SWITCHOVER_ACK) | BIT(RETURN_PATH), NULL },
	{ BIT(POSTCOPY_PREEMPT), "'postcopy-preempt' needs capability 'postcopy-ram'" },
	{ BIT(POSTCOPY_PREEMPT) | BIT(POSTCOPY_RAM), NULL },
	{ BIT(ZERO_COPY_SEND), "'zero-copy-send' needs capability 'multifd'" },
	{ BIT(ZERO_COPY_SEND) | BIT(MULTIFD), NULL },
	{ BIT(MULTIFD) | BIT(XBZRLE), "'multifd' excludes capability 'xbzrle'" },
	{ BIT(MULTIFD) | BIT(COMPRESS), "'multifd' excludes capability 'compress'" },
	{ BIT(MULTIFD) | BIT(POSTCOPY_RAM), NULL }, /* 7.2 and 10.1 on */
	{ BIT(MAPPED_RAM) | BIT(XBZRLE), "'mapped-ram' excludes capability 'xbzrle'" },
	{ BIT(MAPPED_RAM) | BIT(POSTCOPY_RAM), "'mapped-ram' excludes capability 'postcopy-ram'" },
	{ BIT(MAPPED_RAM) | BIT(MULTIFD), NULL },
	{ BIT(MAPPED_RAM) | BIT(X_IGNORE_SHARED), NULL },
	{ BIT(X_IGNORE_SHARED) | BIT(POSTCOPY_RAM), "'x-ignore-shared' excludes capability 'postcopy-ram'" },
	{ BIT(XBZRLE) | BIT(COMPRESS) | BIT(RETURN_PATH) | BIT(EVENTS), NULL },
	{ BIT(AUTO_CONVERGE) | BIT(DIRTY_LIMIT), NULL },
#undef BIT
};

TEST_CASE("fit", 4, .checked = { .setup = setup });

TEST(test_check_of_capabilities)
{
	for (size_t i = 0; i < ARRAY_COUNT(combinations); i++) {
		int r;

		opts.caps = combinations[i].caps;
		r = options_check(&opts, &err);
		if (combinations[i].says) {
			ck_assert_msg(r == -EINVAL, "%s: %d", combinations[i].says, r);
			ck_says(combinations[i].says);
		} else {
			ck_assert_msg(r == 0, "%#x: %s", combinations[i].caps, err.text);
		}
	}
}

TEST(test_check_of_coding_and_tls)
{
	opts.caps = 1u << CAP_ZERO_COPY_SEND | 1u << CAP_MULTIFD;
	must_set("multifd-compression", "zlib");
	ck_assert_int_eq(options_check(&opts, &err), -EINVAL);
	ck_says("'multifd-compression' = 'zlib'");
	opts.caps = 1u << CAP_MAPPED_RAM;
	ck_assert_int_eq(options_check(&opts, &err), -EINVAL);
	ck_says("'mapped-ram'");
	must_set("multifd-compression", "none");
	ck_assert_int_eq(options_check(&opts, &err), 0);
	opts.tls_creds[0] = opts.tls_creds_dir[0] = 'x';
	ck_assert_int_eq(options_check(&opts, &err), -EINVAL);
	ck_says("TLS");
	opts.caps = 1u << CAP_MULTIFD;
	ck_assert_int_eq(options_check(&opts, &err), 0);
}

TEST(test_check_of_tls_settings_that_would_be_in_vain)
{
	strcpy(opts.tls_creds_dir, "somewhere");
	ck_assert_int_eq(options_check(&opts, &err), -EINVAL);
	ck_says("'tls-creds-dir' is set, but TLS is off");
	strcpy(opts.tls_creds, "tls0");
	ck_assert_int_eq(options_check(&opts, &err), 0);
	strcpy(opts.tls_creds_dir, "");
	ck_assert_int_eq(options_check(&opts, &err), -EINVAL);
	ck_says("needs 'tls-creds-dir'");
	opts.tls_creds_type = TLS_CREDS_ANON;
	ck_assert_int_eq(options_check(&opts, &err), 0);
	strcpy(opts.tls_creds_dir, "somewhere");
	strcpy(opts.tls_authz, "CN=source");
	for (opts.tls_creds_type = TLS_CREDS_X509; opts.tls_creds_type <= TLS_CREDS_ANON; opts.tls_creds_type++) {
		bool fits = opts.tls_creds_type == TLS_CREDS_X509;

		ck_assert_int_eq(options_check(&opts, &err), fits ? 0 : -EINVAL);
	}
	ck_says("'tls-authz' needs");
	opts.tls_creds_type = TLS_CREDS_X509;
	opts.tls_verify_peer = false;
	ck_assert_int_eq(options_check(&opts, &err), -EINVAL);
	opts.tls_verify_peer = true;
	strcpy(opts.tls_creds, "");
	strcpy(opts.tls_creds_dir, "");
	ck_assert_int_eq(options_check(&opts, &err), -EINVAL);
	ck_says("'tls-authz' is set, but TLS is off");
}
