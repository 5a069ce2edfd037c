/*
 * views.h - is the guest view the memory that its descriptor says?
 *
 * For a block with a descriptor the embedder may answer an address as well: a shared mapping of that part of the file,
 * where vCPUs touch it. Where it is not (another offset, another file, a private mapping), bytes land in the file and
 * the guest reads zeros. Nobody else would notice: the source would hear that its guest has landed.
 *
 * So /proc/self/maps is asked. A mapping is compared with the library's own one of the same descriptor, and not with
 * fstat(2): on overlays and stacked file systems the two show other devices and inodes. It may be several mappings side
 * by side, as mprotect(2) and madvise(2) make them. What cannot be known is never refused.
 *
 * For a block with an address alone postcopy needs private memory: a discard gives pages back, and in a shared mapping
 * they would stay in the file behind it, for the guest to see instead of those to come. That is refused, too.
 *
 * Two blocks of one memory would lose a guest as silently: one's pages land on the other's. That is refused, too.
 *
 * All blocks are compared at once, which reads the list once: with 4096 blocks it is long.
 */
#ifndef MEMORY_VIEWS_H
#define MEMORY_VIEWS_H

#include "coroutine/co.h"

#include <stdbool.h>
#include <stdint.h>

struct block;
struct ram;

struct view_fault {
	const struct block *block;
	uint64_t off;     /* in the block, where it is so */
	const char *what; /* static: "nothing is mapped", ... */
};

/**
 * views_compare - every block that has both a descriptor and a guest view; and each block with all others
 * @postcopy: pages may be discarded
 * Parks: yes; the list is long. Return: 0; -EINVAL and the first that differs; -ECANCELED; why the list cannot be read
 * (-ENOENT without /proc), and nothing was compared.
 */
may_park int views_compare(const struct ram *ram, bool postcopy, struct sched *s, struct view_fault *ret);

#endif
