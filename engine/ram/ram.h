/*
 * ram.h - the `ram` section of the main stream: records to pages in memory
 *
 * Each START, PART and END body is a run of records ended by EOS (doc/wire/stream.md 4). START lists the blocks first;
 * the embedder says where each one's memory is.
 */
#ifndef ENGINE_RAM_RAM_H
#define ENGINE_RAM_RAM_H

#include "coroutine/co.h"
#include "memory/land.h"

#include <stdbool.h>
#include <stdint.h>

struct err;
struct inflater;
struct inm_ram_block;
struct log;
struct options;
struct postcopy;
struct reader;
struct trace;

/* Blocks in one guest; real ones have a dozen. */
#define RAM_BLOCKS_MAX 4096

struct ram_counts {
	uint64_t normal, zero, xbzrle, compressed; /* records */
	uint64_t rounds;                           /* times the source began again from an earlier page */
};

struct ram_loader {
	struct ram *ram; /* not owned, as the rest up to the blank line */
	const struct options *opts;
	const struct trace *trace;
	const struct log *log;
	/* Where does this block go? As load_ops.ram_block. */
	int (*provide)(void *opaque, struct inm_ram_block *block, struct err *err);
	void *provide_opaque;
	/* The main stream is at a multifd sync point; NULL: multifd is off. */
	int (*sync)(void *opaque, struct err *err);
	void *sync_opaque;

	struct postcopy *postcopy;   /* not owned; set when the records are those of postcopy, else NULL */
	bool listed;                 /* the block list has been read */
	bool lists_gpa;              /* x-ignore-shared: the list says where each block is in guest memory */
	bool tpage_assumed;          /* nothing has said how large a target page is, and the machine may have others */
	bool advised;                /* POSTCOPY_ADVISE was read with page sizes: the list may hold some */
	bool closed;                 /* the guest runs, and all of RAM is here: no page may come */
	bool flushed;                /* a FLUSH record was read: they are the sync points, and not every EOS */
	struct block *last;          /* what CONTINUE means; survives sections */
	const struct block *touched; /* where the last page was written, and in which region of it: see ram.c */
	uint64_t touched_region;
	uint64_t last_position; /* of the last page, for counting rounds */
	struct ram_counts counts;
	struct iovec pages[LAND_PAGES_MAX];
	struct inflater *inflater; /* owned; made on first use */
	uint8_t *scratch;          /* owned; a tpage that must be whole before it is placed; made on first use */
};

/* @loader: zeroed, with the fields up to sync_opaque set. */
void ram_loader_fini(struct ram_loader *l);

/**
 * ram_load_body - a START, PART or END body, up to and with its EOS record
 * @start: it is the START body, which lists the blocks first
 * Parks: yes. Return: 0; -EPROTO with the record's offset; the embedder's refusal of a block, by name; the reader's.
 */
may_park int ram_load_body(struct ram_loader *l, struct reader *r, bool start, struct err *err);

/**
 * ram_load_preempt - the records of a preempt channel, which have no section around them (doc/wire/stream.md 6)
 * Parks: yes. Return: 1 the EOS record has come; 0 the channel has ended between two records; or as ram_load_body.
 */
may_park int ram_load_preempt(struct ram_loader *l, struct reader *r, struct err *err);

#endif
