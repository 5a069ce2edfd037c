#include "engine/options/options.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/err.h"
#include "base/parse.h"
#include "base/text.h"
#include "engine/channel/tls/tls_creds.h"

#define ARRAY_COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* ---- "did you mean" -------------------------------------------------------------------------------------------- */

#define NAME_BYTES_MAX 48 /* longer than any of ours */

/* Levenshtein's distance; a name too long to be one of ours is far from all. */
static unsigned edit_distance(const char *a, const char *b)
{
	unsigned row[NAME_BYTES_MAX + 1];
	size_t a_bytes = strlen(a), b_bytes = strlen(b);

	if (a_bytes > NAME_BYTES_MAX || b_bytes > NAME_BYTES_MAX)
		return NAME_BYTES_MAX;
	for (size_t j = 0; j <= b_bytes; j++)
		row[j] = (unsigned)j;
	for (size_t i = 1; i <= a_bytes; i++) {
		unsigned diagonal = row[0];

		row[0] = (unsigned)i;
		for (size_t j = 1; j <= b_bytes; j++) {
			unsigned swap = diagonal + (a[i - 1] != b[j - 1]);
			unsigned less = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;

			diagonal = row[j];
			row[j] = less < swap ? less : swap;
		}
	}
	return row[b_bytes];
}

/* Keeps the name nearest to what was asked for. */
struct nearest {
	const char *name;
	unsigned distance;
};

static void nearest_offer(struct nearest *nearest, const char *wanted, const char *offer)
{
	unsigned distance = edit_distance(wanted, offer);

	if (distance < nearest->distance)
		*nearest = (struct nearest){ offer, distance };
}

static int unknown_name(const char *kind, const char *wanted, struct nearest nearest, struct err *err)
{
	char quoted[TEXT_QUOTE_BYTES];

	text_quote(quoted, wanted, strlen(wanted));
	/* A third of the letters may be wrong; more is another word. */
	if (nearest.name && nearest.distance <= 2 + strlen(nearest.name) / 8 &&
	    nearest.distance * 3 <= strlen(nearest.name))
		return err_set(err, -ENOENT, "unknown %s '%s'; did you mean '%s'?", kind, quoted, nearest.name);
	return err_set(err, -ENOENT, "unknown %s '%s'", kind, quoted);
}

/* ---- capabilities ----------------------------------------------------------------------------------------------- */

int options_set_capability(struct options *opts, const char *name, bool on, struct err *err)
{
	struct nearest nearest = { NULL, NAME_BYTES_MAX };

	_Static_assert(CAP_COUNT <= 32, "options.caps has 32 bits");
	for (unsigned i = 0; i < CAP_COUNT; i++) {
		const struct cap_row *row = options_cap_row(i);

		if (strcmp(name, row->name)) {
			nearest_offer(&nearest, name, row->name);
			continue;
		}
		if (on && row->support == SUPPORT_REFUSED)
			return err_set(err, -ENOTSUP, "capability '%s': %s", row->name, row->note);
		opts->caps = (opts->caps & ~(1u << i)) | (uint32_t)on << i;
		return 0;
	}
	return unknown_name("capability", name, nearest, err);
}

/* ---- parameters ------------------------------------------------------------------------------------------------- */

static void *field_of(struct options *opts, const struct param_row *row)
{
	return (char *)opts + row->field;
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

/* The error of a value that cannot be. */
static int bad_value(const struct param_row *row, int code, const char *value, struct err *err)
{
	char form[OPTIONS_TEXT_BYTES];
	char quoted[TEXT_QUOTE_BYTES];

	return err_set(err, code, "parameter '%s': '%s' is %s; expected %s", row->name,
	               text_quote(quoted, value, strlen(value)),
	               code == -ERANGE ? "out of range" : "not of the right form", options_param_form(row, form));
}

static int set_number(struct options *opts, const struct param_row *row, const char *value, struct err *err)
{
	uint64_t number = 0;
	int r = row->type == PARAM_U64 ? parse_u64(value, &number) : parse_size(value, &number);

	if (r == 0 && (number < row->min || number > row->max))
		r = -ERANGE;
	if (r == 0 && row->type == PARAM_POWER && (number & (number - 1)))
		r = -ERANGE;
	if (r < 0)
		return bad_value(row, r, value, err);
	*(uint64_t *)field_of(opts, row) = number;
	return 0;
}

static int set_word(struct options *opts, const struct param_row *row, const char *value, struct err *err)
{
	for (int i = 0; row->words[i].name; i++) {
		if (strcmp(value, row->words[i].name))
			continue;
		if (row->words[i].refused)
			return err_set(err, -ENOTSUP, "parameter '%s': value '%s': %s", row->name, row->words[i].name,
			               row->words[i].refused);
		*(int *)field_of(opts, row) = i;
		return 0;
	}
	return bad_value(row, -EINVAL, value, err);
}

static int set_text(struct options *opts, const struct param_row *row, const char *value, struct err *err)
{
	size_t bytes = strlen(value);

	if (bytes < row->min || bytes > row->max)
		return bad_value(row, -ERANGE, value, err);
	/* By (1), the rest is cleared: equal settings are equal byte by byte. */
	memset(field_of(opts, row), 0, OPTIONS_TEXT_BYTES);
	memcpy(field_of(opts, row), value, bytes);
	return 0;
}

static int set_uuid(struct options *opts, const struct param_row *row, const char *value, struct err *err)
{
	uint8_t uuid[16] = { 0 };

	if (value[0] && parse_uuid(value, uuid) < 0)
		return bad_value(row, -EINVAL, value, err);
	opts->has_uuid = value[0] != '\0';
	memcpy(opts->uuid, uuid, sizeof(uuid));
	return 0;
}

static int set_value(struct options *opts, const struct param_row *row, const char *value, struct err *err)
{
	switch (row->type) {
	case PARAM_U64:
	case PARAM_SIZE:
	case PARAM_POWER:
		return set_number(opts, row, value, err);
	case PARAM_BOOL:
		if (parse_on_off(value, field_of(opts, row)) < 0)
			return bad_value(row, -EINVAL, value, err);
		return 0;
	case PARAM_WORD:
		return set_word(opts, row, value, err);
	case PARAM_TEXT:
		return set_text(opts, row, value, err);
	case PARAM_UUID:
		return set_uuid(opts, row, value, err);
	}
	return bad_value(row, -EINVAL, value, err);
}

static const struct param_row *param_find(const char *name, struct nearest *nearest)
{
	const struct param_row *row;

	for (unsigned i = 0; (row = options_param_row(i)); i++) {
		if (!strcmp(name, row->name))
			return row;
		nearest_offer(nearest, name, row->name);
	}
	return NULL;
}

int options_set_parameter(struct options *opts, const char *name, const char *value, struct err *err)
{
	struct nearest nearest = { NULL, NAME_BYTES_MAX };
	const struct param_row *row = param_find(name, &nearest);

	if (!row)
		return unknown_name("parameter", name, nearest, err);
	if (row->support == SUPPORT_REFUSED && strcmp(value, row->def))
		return err_set(err, -ENOTSUP, "parameter '%s': %s", row->name, row->note);
	return set_value(opts, row, value, err);
}

const char *options_get_parameter(const struct options *opts, const char *name, char buf[static OPTIONS_TEXT_BYTES])
{
	struct nearest nearest = { NULL, NAME_BYTES_MAX };
	const struct param_row *row = param_find(name, &nearest);
	const void *field;

	if (!row)
		return NULL;
	field = (const char *)opts + row->field;
	switch (row->type) {
	case PARAM_U64:
	case PARAM_SIZE:
	case PARAM_POWER:
		snprintf(buf, OPTIONS_TEXT_BYTES, "%" PRIu64, *(const uint64_t *)field);
		break;
	case PARAM_BOOL:
		snprintf(buf, OPTIONS_TEXT_BYTES, "%s", *(const bool *)field ? "on" : "off");
		break;
	case PARAM_WORD:
		snprintf(buf, OPTIONS_TEXT_BYTES, "%s", row->words[*(const int *)field].name);
		break;
	case PARAM_TEXT:
		memcpy(buf, field, OPTIONS_TEXT_BYTES);
		break;
	case PARAM_UUID:
		buf[0] = '\0';
		if (opts->has_uuid)
			format_uuid(buf, opts->uuid);
		break;
	}
	return buf;
}

void options_init(struct options *ret_opts)
{
	const struct param_row *row;

	memset(ret_opts, 0, sizeof(*ret_opts));
	for (unsigned i = 0; (row = options_param_row(i)); i++) {
		struct err err;

		ASSERT(set_value(ret_opts, row, row->def, &err) == 0);
	}
}

/* ---- what fits together ------------------------------------------------------------------------------------------ */

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

/* Both send pages as they lie in memory, which coding or TLS would not: doc/wire/control.md 4, doc/wire/multifd.md 1 */
static int check_plain(const struct options *opts, enum cap cap, struct err *err)
{
	char word[OPTIONS_TEXT_BYTES];

	if (!options_has(opts, cap))
		return 0;
	if (opts->multifd_compression != MULTIFD_COMPRESSION_NONE)
		return err_set(err, -EINVAL, "capability '%s' excludes parameter 'multifd-compression' = '%s'",
		               options_cap_row(cap)->name, options_get_parameter(opts, "multifd-compression", word));
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
