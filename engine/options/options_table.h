/*
 * options_table.h - every capability and parameter of QEMU 7.2 to 11.1, and ours, by name
 *
 * Management tools set the same capabilities and parameters on both sides of a migration. So every name is known here:
 * one table for capabilities, one for parameters, each row with its source and what this library makes of it. Three
 * answers are possible: it works; it is accepted and has nothing to do on a destination; it is refused, and the row
 * says why. A setting that matters and is not to be had is never accepted in silence.
 *
 * Source: doc/wire/control.md 4, 5, doc/wire/stream.md 8
 */
#ifndef ENGINE_OPTIONS_OPTIONS_TABLE_H
#define ENGINE_OPTIONS_OPTIONS_TABLE_H

#include "engine/options/options.h"

#include <stddef.h>
#include <stdint.h>

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

#define OPTIONS_NOWHERE SIZE_MAX

/* A row of the parameter table. */
struct param_row {
	const char *name;
	const char *since, *until; /* as in cap_row; NULL since: a parameter of this library, not of QEMU */
	enum side side;
	enum support support; /* of any value but the default, which can always be set */
	enum param_type type;
	size_t field; /* offset in struct options; OPTIONS_NOWHERE: it is checked, and nobody here acts on it */
	uint64_t min, max;
	const struct option_word *words; /* PARAM_WORD: ended by a NULL name */
	const char *unit;                /* "ms", "bytes", ...; "" */
	const char *def;                 /* default, as text that can be set */
	const char *note;                /* as in cap_row */
};

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
