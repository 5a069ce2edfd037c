/*
 * embedder.h - an embedder for tests: hands out memory, records what it is told, fails on command
 *
 * Each block lies between canary pages (in the memory file, or around the anonymous memory), so embedder_canaries sees
 * a write outside the block. All records are copies, and outlive the inm.
 */
#ifndef TESTS_SUPPORT_EMBEDDER_H
#define TESTS_SUPPORT_EMBEDDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "inmigrate.h"
#include "tests/support/source.h"
#include "tests/support/wire.h"

enum emb_backing { EMB_MEMFD, EMB_ANON, EMB_HUGETLB };

#define EMB_BLOCKS_MAX 16
#define EMB_STATES_MAX 16
#define EMB_PREFILL 0x5a /* of blocks that are dirty */

struct emb_block {
	/* Set before the run. */
	char name[256];
	uint64_t bytes; /* what there is: the answer's bytes_max */
	enum emb_backing backing;
	bool resizable;
	bool dirty; /* prefilled with EMB_PREFILL and declared dirty */
	bool unplugged;

	/* Recorded. */
	unsigned asked;
	uint64_t said_bytes, said_page_bytes;

	uint8_t *host; /* the test's own view, canaries on both sides */
	int fd;        /* -1: anonymous */
	size_t canary_bytes;
	size_t room_bytes; /* @bytes, rounded up to what can be mapped */
	uint8_t *guest;    /* the guest view, see embedder_map_guests; NULL: none is given to the library */
};

struct emb_device {
	char name[256];
	uint32_t instance_id, version_id;
	uint8_t *data;
	size_t bytes;
	uint64_t stream_offset;
	char *description; /* NULL if none */
	enum inm_split split;
};

struct embedder {
	struct inm *inm;
	struct emb_block blocks[EMB_BLOCKS_MAX];
	unsigned block_count;

	/* Injected: a negative errno makes that callback fail. */
	int fail_ram_block, fail_device, fail_start;
	unsigned fail_device_nth; /* which device call, from 0 */
	/* inm_cancel from inside the nth call (from 1) of each; 0: never. */
	unsigned cancel_in_ram_block, cancel_in_device, cancel_in_start, cancel_in_state;
	bool close_fds; /* close the memory's descriptor once ram_block has returned (at the next callback) */

	/* Recorded. */
	struct emb_device *devices;
	unsigned device_count, device_cap;
	unsigned ram_block_calls, start_calls;
	char run_state[128];     /* of start_vcpus; "(null)" if it was NULL */
	bool device_after_start; /* a callback came after the last one allowed */
	enum inm_state states[EMB_STATES_MAX];
	unsigned state_count;
	unsigned log_lines;
	unsigned trace_lines;

	/* Of the loops that poll inm_fd: it was readable at the end of a poll that it should have ended earlier. */
	unsigned lost_wakeups;

	/* Of the migration, copied before inm_free. */
	int result;
	char error[1024];
	struct inm_stats stats;
};

/* Whatever a peer says, a log line or an error is printable ASCII without a newline. Aborts otherwise. */
void embedder_check_line(const char *text);

extern const struct inm_ops embedder_ops; /* without trace */
/* For a copy of them with trace. */
void embedder_trace(void *opaque, uint64_t stream_offset, int depth, const char *text);

void embedder_init(struct embedder *e);
void embedder_fini(struct embedder *e); /* frees the inm, too */

/* As after init and add: no records, memory zero; what is injected stays. For many runs in a row. */
void embedder_reset(struct embedder *e);

struct emb_block *embedder_add(struct embedder *e, const char *name, uint64_t bytes, enum emb_backing backing);
/* One memfd block for each of the image, of the same size. */
void embedder_add_image(struct embedder *e, const struct honest_image *image);

/* Gives each block a guest view, as postcopy needs it: anonymous memory is its own, files are mapped a second time. */
void embedder_map_guests(struct embedder *e);

struct emb_block *embedder_block(struct embedder *e, const char *name);

/* Return: the number of pages that differ; the first few are printed. */
unsigned embedder_compare(struct embedder *e, const struct honest_image *image);
/* Return: the number of canary bytes that were written to. */
size_t embedder_canaries(const struct embedder *e);
/* Whether all of block @b reads as @byte. */
bool embedder_block_is(const struct emb_block *b, uint8_t byte);
/* Compares devices with the bodies of the wire, in order, byte by byte. Return: the differences, which are printed. */
unsigned embedder_compare_devices(const struct embedder *e, const struct wire *w);
/* "setup active completed" */
const char *embedder_states(const struct embedder *e, char *buf, size_t buf_bytes);

/* ---- the common run ---------------------------------------------------------------------------------------- */

struct land_opts {
	const char *const *caps;   /* capabilities to switch on, NULL-terminated; NULL: none */
	const char *const *params; /* name, value, name, value, ..., NULL */
	const struct inm_ops *ops; /* NULL: embedder_ops */
	struct inm_config config;  /* size is filled in */
	bool return_path;          /* capability return-path on both sides */
	enum source_kind kind;
	const char *uri; /* listen here instead of on a pair */
	size_t chunk_bytes, stop_at;
	const struct source_pause *pauses;
	unsigned pause_count;
	enum source_end end;
	bool by_dispatch;     /* poll(inm_fd) and inm_dispatch instead of inm_run_until */
	unsigned deadline_ms; /* 0: 10000; passing it is an error of the test */
};

/* Makes and configures e->inm, without listening. */
void land_new(struct embedder *e, const struct land_opts *o);
/* Sets capabilities and parameters of an inm, and listens; "fd:N". Return: of inm_listen */
int land_listen_fd(struct embedder *e, int fd);

/**
 * land - a whole migration: a source plays @w, the library lands it in @e, and all but the records of @e is freed
 * Return: of inm_run_until (e->result); e->error, e->stats and @ret_report (NULL allowed) have the rest.
 */
int land(struct embedder *e, const struct wire *w, const struct land_opts *o, struct source_report *ret_report);

/**
 * land_pump - the same with a pump and inm_dispatch in this process, step by step
 * @cancel_after: inm_cancel after that many dispatch calls; UINT_MAX: never
 * Return: as land; @ret_dispatches (NULL allowed): how many calls it took
 */
int land_pump(struct embedder *e, struct pump *p, int fd, const struct land_opts *o, unsigned cancel_after,
              unsigned *ret_dispatches);

#endif
