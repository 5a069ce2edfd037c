#include "engine/options/options_set.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/err.h"
#include "base/parse.h"
#include "base/text.h"
#include "engine/options/options.h"
#include "engine/options/options_table.h"

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

/* The error of a value that cannot be. */
static int bad_value(const struct param_row *row, int code, const char *value, struct err *err)
{
	char form[OPTIONS_TEXT_BYTES];
	char quoted[TEXT_QUOTE_BYTES];

	return err_set(err, code, "parameter '%s': '%s' is %s; expected %s", row->name,
	               text_quote(quoted, value, strlen(value)),
	               code == -ERANGE ? "out of range" : "not of the right form", options_param_form(row, form));
}

static int set_number(uint64_t *field, const struct param_row *row, const char *value, struct err *err)
{
	uint64_t number = 0;
	int r = row->type == PARAM_U64 ? parse_u64(value, &number) : parse_size(value, &number);

	if (r == 0 && (number < row->min || number > row->max))
		r = -ERANGE;
	if (r == 0 && row->type == PARAM_POWER && (number & (number - 1)))
		r = -ERANGE;
	if (r < 0)
		return bad_value(row, r, value, err);
	*field = number;
	return 0;
}

static int set_word(int *field, const struct param_row *row, const char *value, struct err *err)
{
	for (int i = 0; row->words[i].name; i++) {
		if (strcmp(value, row->words[i].name))
			continue;
		if (row->words[i].refused)
			return err_set(err, -ENOTSUP, "parameter '%s': value '%s': %s", row->name, row->words[i].name,
			               row->words[i].refused);
		*field = i;
		return 0;
	}
	return bad_value(row, -EINVAL, value, err);
}

static int set_text(char *field, const struct param_row *row, const char *value, struct err *err)
{
	size_t bytes = strlen(value);

	if (bytes < row->min || bytes > row->max)
		return bad_value(row, -ERANGE, value, err);
	/* The rest is cleared: equal settings are equal byte by byte. */
	memset(field, 0, OPTIONS_TEXT_BYTES);
	memcpy(field, value, bytes);
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
	union {
		uint64_t number;
		int word;
		bool on;
		char text[OPTIONS_TEXT_BYTES];
	} nowhere;
	void *field = row->field == OPTIONS_NOWHERE ? (void *)&nowhere : (char *)opts + row->field;

	switch (row->type) {
	case PARAM_U64:
	case PARAM_SIZE:
	case PARAM_POWER:
		return set_number(field, row, value, err);
	case PARAM_BOOL:
		if (parse_on_off(value, field) < 0)
			return bad_value(row, -EINVAL, value, err);
		return 0;
	case PARAM_WORD:
		return set_word(field, row, value, err);
	case PARAM_TEXT:
		return set_text(field, row, value, err);
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

void options_init(struct options *ret_opts)
{
	const struct param_row *row;

	memset(ret_opts, 0, sizeof(*ret_opts));
	for (unsigned i = 0; (row = options_param_row(i)); i++) {
		struct err err;

		ASSERT(set_value(ret_opts, row, row->def, &err) == 0);
	}
}
