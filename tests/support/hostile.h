/*
 * hostile.h - one lie in an otherwise honest stream, and what must follow from it
 *
 * The stream has a header, configuration, OPEN_RETURN_PATH, PING 1, START ram of two blocks, one PART, END, one device,
 * globalstate, EOF and a description. A row names the place of its lie. Its bytes stand there, either instead of what
 * belongs there or in addition, as the place says.
 */
#ifndef TESTS_SUPPORT_HOSTILE_H
#define TESTS_SUPPORT_HOSTILE_H

#include "tests/support/embedder.h"
#include "tests/support/wire.h"

#define HOSTILE_MACHINE "pc-i440fx-7.2"
#define HOSTILE_RAM "pc.ram"    /* four pages */
#define HOSTILE_VICTIM "victim" /* two pages that no record names: must stay zero */
#define HOSTILE_UNSENT "unsent" /* the embedder's, not in the stream */
#define HOSTILE_RAM_ID 2u

enum hostile_place {
	AT_HEADER,        /* instead of the header */
	AT_CONFIG,        /* instead of the configuration section */
	AT_CONFIG_MORE,   /* after it: subsections */
	AT_FIRST,         /* before OPEN_RETURN_PATH */
	AT_COMMANDS,      /* after PING 1 */
	AT_START,         /* instead of the head of START ram */
	AT_BLOCKS,        /* instead of the MEM_SIZE record */
	AT_SETUP,         /* between START and PART */
	AT_RECORDS,       /* in PART, before page 0 of pc.ram */
	AT_RECORDS_LATER, /* in PART, after page 0 */
	AT_FOOTER,        /* instead of PART's footer */
	AT_ELEMENT,       /* between PART and END */
	AT_END,           /* instead of END */
	AT_DEVICES,       /* instead of the devices */
	AT_TAIL,          /* instead of EOF and description */
	AT_BEHIND,        /* after everything */
};

/* Any error will do, where the wire alone does not say which. */
#define ANY_ERROR 1

struct hostile_row {
	const char *what;
	enum hostile_place place;
	void (*put)(struct wire *w, const struct hostile_row *row); /* or: */
	const char *bytes;
	size_t len;

	/* For @put. */
	const char *text;
	uint64_t n, total, victim_bytes;

	int code;          /* 0: it must land all the same */
	const char *words; /* the error must have one of these, separated by '|'; NULL: any text */
	bool ends;         /* shows only when the stream ends, so it ends after the last byte */
	const char *const *caps;
	const char *const *params;
	struct inm_config config;
	uint64_t ram_max; /* with it pc.ram is resizable up to this */
};

#define RAW(text) .bytes = (text), .len = sizeof(text) - 1

void hostile_build(struct wire *w, const struct hostile_row *row);

/* Play it, and check the error, its text, its offset, the other memory, what the source was told, and the census. */
void hostile_check(const struct hostile_row *row);

#endif
