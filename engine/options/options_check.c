#include "engine/options/options_check.h"

#include "base/err.h"
#include "engine/options/options.h"
#include "engine/options/options_table.h"

#include <errno.h>
#include <stddef.h>

#define ARRAY_COUNT(a) (sizeof(a) / sizeof((a)[0]))

enum rule_kind { NEEDS, EXCLUDES };

/*
 * What capabilities ask of each other: doc/wire/control.md 4, and what QEMU 7.2 and 10.0 answer to every
 * pair. Not here: what releases forbid only for themselves (multifd with postcopy-ram, up to 10.0), because a source
 * of another release may do it, and what concerns a source alone (auto-converge with dirty-limit).
 */
static const struct cap_rule {
	enum cap cap;
	enum rule_kind kind;
	enum cap other;
} rules[] = {
	{ CAP_POSTCOPY_PREEMPT, NEEDS, CAP_POSTCOPY_RAM },
	{ CAP_SWITCHOVER_ACK, NEEDS, CAP_RETURN_PATH },
	{ CAP_ZERO_COPY_SEND, NEEDS, CAP_MULTIFD },
	{ CAP_ZERO_COPY_SEND, EXCLUDES, CAP_XBZRLE },
	{ CAP_MULTIFD, EXCLUDES, CAP_COMPRESS }, /* said by 7.2; later releases have no compress */
	{ CAP_MULTIFD, EXCLUDES, CAP_XBZRLE },   /* said by 8.0 and later (doc/wire/multifd.md 1) */
	{ CAP_MAPPED_RAM, EXCLUDES, CAP_XBZRLE },
	{ CAP_MAPPED_RAM, EXCLUDES, CAP_POSTCOPY_RAM },
	{ CAP_X_IGNORE_SHARED, EXCLUDES, CAP_POSTCOPY_RAM },
};

static const char *compression_name(int compression)
{
	const struct param_row *row = options_param_row(0);

	for (unsigned i = 0; row && row->field != offsetof(struct options, multifd_compression); i++)
		row = options_param_row(i);
	return row ? row->words[compression].name : "?";
}

/* Both send pages as they lie in memory, which coding or TLS would not: doc/wire/control.md 4, doc/wire/multifd.md 1 */
static int check_plain(const struct options *opts, enum cap cap, struct err *err)
{
	if (!options_has(opts, cap))
		return 0;
	if (opts->multifd_compression != MULTIFD_COMPRESSION_NONE)
		return err_set(err, -EINVAL, "capability '%s' excludes parameter 'multifd-compression' = '%s'",
		               options_cap_row(cap)->name, compression_name(opts->multifd_compression));
	if (opts->tls_creds[0])
		return err_set(err, -EINVAL, "capability '%s' excludes TLS (parameter 'tls-creds')",
		               options_cap_row(cap)->name);
	return 0;
}

/* Reject settings that would silently have no effect. */
static int check_tls(const struct options *opts, struct err *err)
{
	if (!opts->tls_creds[0] && opts->tls_creds_dir[0])
		return err_set(err, -EINVAL, "parameter 'tls-creds-dir' is set, but TLS is off: set 'tls-creds', too");
	if (!opts->tls_creds[0] && opts->tls_authz[0])
		return err_set(err, -EINVAL, "parameter 'tls-authz' is set, but TLS is off: set 'tls-creds', too");
	if (!opts->tls_creds[0])
		return 0;
	if (!opts->tls_creds_dir[0] && opts->tls_creds_type != TLS_CREDS_ANON)
		return err_set(err, -EINVAL, "parameter 'tls-creds' needs 'tls-creds-dir', the directory of the files");
	if (opts->tls_authz[0] && (opts->tls_creds_type != TLS_CREDS_X509 || !opts->tls_verify_peer))
		return err_set(err, -EINVAL,
		               "parameter 'tls-authz' needs 'tls-creds-type' x509 and 'tls-verify-peer' "
		               "on: only a verified certificate has a name");
	return 0;
}

/*
 * Without a description only footers tell where a device's state ends, and a package never has a description
 * (doc/wire/stream.md 7.4). Said here, because by the time the state comes the source has stopped its guest.
 */
static int check_division(const struct options *opts, struct err *err)
{
	if (opts->send_section_footer || opts->looking)
		return 0;
	if (opts->suppress_vmdesc)
		return err_set(err, -ENOTSUP,
		               "parameters 'send-section-footer' off and 'suppress-vmdesc' on: such a "
		               "stream does not tell where the state of a device ends; start the source with "
		               "-global migration.send-section-footer=on");
	if (options_has(opts, CAP_POSTCOPY_RAM))
		return err_set(err, -ENOTSUP,
		               "capability 'postcopy-ram' needs parameter 'send-section-footer' on: in "
		               "postcopy nothing else tells where the state of a device ends");
	return 0;
}

int options_check(const struct options *opts, struct err *err)
{
	int r;

	for (size_t i = 0; i < ARRAY_COUNT(rules); i++) {
		const struct cap_rule *rule = &rules[i];

		if (!options_has(opts, rule->cap))
			continue;
		if (options_has(opts, rule->other) != (rule->kind == NEEDS))
			return err_set(err, -EINVAL, "capability '%s' %s capability '%s'",
			               options_cap_row(rule->cap)->name, rule->kind == NEEDS ? "needs" : "excludes",
			               options_cap_row(rule->other)->name);
	}
	r = check_tls(opts, err);
	if (r == 0)
		r = check_division(opts, err);
	if (r == 0)
		r = check_plain(opts, CAP_ZERO_COPY_SEND, err);
	return r < 0 ? r : check_plain(opts, CAP_MAPPED_RAM, err);
}
