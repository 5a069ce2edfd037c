/*
 * sections.h - which handlers have spoken in this stream
 *
 * A section id is the source's: it comes with START or FULL and is used by PART, END and the footer
 * (doc/wire/stream.md 1.4).
 */
#ifndef ENGINE_LOAD_SECTIONS_H
#define ENGINE_LOAD_SECTIONS_H

#include "engine/devices/split.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct sched;

/* Live handlers and early devices of one stream; real ones have a handful. */
#define SECTIONS_MAX 1024

enum section_kind {
	SECTION_NONE,
	SECTION_RAM,
	SECTION_DIRTY_BITMAP,
	SECTION_HTAB,               /* of pseries; see live.h, as for the next */
	SECTION_STORAGE_ATTRIBUTES, /* of s390 */
	SECTION_EARLY_DEVICE,
};

struct section {
	enum section_kind kind;
	uint32_t section_id;
	uint32_t instance_id;
	uint32_t version_id;
	bool owes_end; /* its START announced something: without its END the guest is not whole */
	bool ended;
	bool ended_late;   /* after the switch to postcopy: a source that recovers ends it again */
	size_t body_bytes; /* of an early device, as the next */
	uint64_t body_off; /* in the stream */
	char name[256];
};

struct sections {
	struct section **list;  /* owned */
	struct section **by_id; /* owned; the same ones, sorted by id */
	size_t count;
};

void sections_fini(struct sections *s);

/** sections_add - Return: 0; -EEXIST for an id or a (name, instance) there is; -E2BIG; -ENOMEM. */
int sections_add(struct sections *s, enum section_kind kind, const char *name, uint32_t instance_id,
                 uint32_t section_id, struct section **ret);

/** sections_find - by id, live ones only; NULL if there is none */
struct section *sections_find(const struct sections *s, uint32_t section_id);

/** sections_all_ended - has a live section had its END, and so have all that owe one? */
bool sections_all_ended(const struct sections *s);

/** sections_ram_ended - has section `ram` had its END? */
bool sections_ram_ended(const struct sections *s);

/** sections_first_open - the first live section that owes an END and has not had it, or NULL */
const struct section *sections_first_open(const struct sections *s);

/** sections_reopen - those that ended after the switch are open again */
void sections_reopen(struct sections *s);

/* What split.h has to know of a stream. */
struct sections_split {
	struct split_opts opts;
	struct split_handler *handlers; /* owned; what opts points to, whose names point into struct sections */
};

/** sections_split_begin - @footers: the stream has them. Return: 0 or -ENOMEM. */
int sections_split_begin(struct sections_split *ret, const struct sections *s, bool footers, struct sched *sched,
                         struct err *err);

/** sections_split_end - dividing is over, with @result: a cancel that was heard is taken. Return: @result. */
int sections_split_end(struct sections_split *split, int result);

#endif
