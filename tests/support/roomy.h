/*
 * roomy.h - an embedder with room for whatever is announced: thousands of blocks, terabytes
 *
 * Memory is one mapping that has no pages until it is touched. Blocks lie in it one after the other, each at a multiple
 * of 2 MiB if it is that large. The embedder records only numbers, so that its work does not hide the library's.
 */
#ifndef TESTS_SUPPORT_ROOMY_H
#define TESTS_SUPPORT_ROOMY_H

#include <stdbool.h>
#include <stdint.h>

#include "inmigrate.h"
#include "tests/support/embedder.h"
#include "tests/support/stall.h"
#include "tests/support/wire.h"

enum roomy_backing { ROOMY_ANON, ROOMY_MEMFD };

struct roomy {
	uint64_t bytes; /* in all */
	enum roomy_backing backing;
	bool guest_view; /* blocks in a memfd get an address, too, as postcopy requires */
	uint8_t *area;
	int fd; /* -1 */
	uint64_t used;
	uint32_t blocks, devices;
	int result;
	char error[1024];
	struct inm_stats stats;
	struct stall seen; /* of the run; also printed by stall_check */
};

/* @r: zeroed, with the fields up to guest_view set. Skips the test where stall_need_figures would. */
void roomy_begin(struct roomy *r);
void roomy_end(struct roomy *r);

/**
 * roomy_land - a child plays @w, and what others on the reactor would have waited is measured
 * @o: caps, params, return_path, end, deadline_ms
 * Return: of inm_run_until, as r->result
 */
int roomy_land(struct roomy *r, const struct wire *w, const struct land_opts *o);

/* "0001xxx...": @count different names of @bytes bytes each, for wire_mem_size. Owned by the caller, as one piece. */
struct wire_block *roomy_names(unsigned count, unsigned bytes, uint64_t block_bytes);

/* What comes before START ram: header, configuration, and the return path if wanted. */
void roomy_head(struct wire *w, bool return_path);
/* START ram with the list and its EOS; then sections are PARTs of id 2. */
void roomy_ram(struct wire *w, const struct wire_block *blocks, unsigned count);
/* END ram: only devices are to come. */
void roomy_ram_end(struct wire *w);
/* That, one device and its description: lands. */
void roomy_tail(struct wire *w);

#endif
