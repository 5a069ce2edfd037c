/*
 * guest_ram.h - memory for the RAM blocks of a guest that lands in the program
 */
#ifndef PROGRAMS_GUEST_RAM_H
#define PROGRAMS_GUEST_RAM_H

#include "inmigrate.h"

#include <stddef.h>

enum guest_backing {
	GUEST_THP,     /* anonymous, with transparent huge pages where the kernel has them */
	GUEST_MEMFD,
	GUEST_HUGETLB, /* a memfd of 2 MiB pages from the kernel's pool */
};

struct guest_block {
	char *name;
	uint64_t bytes;
	int fd;           /* a memfd; -1: anonymous */
	char *addr;       /* anonymous memory, or the mapping of a hugetlb memfd, which cannot be read */
	size_t map_bytes;
};

struct guest_ram {
	enum guest_backing backing;
	struct guest_block *blocks;
	size_t count;
};

/** guest_ram_set_backing - by name: thp, memfd, hugetlb-2m. Return: 0, -EINVAL. */
int guest_ram_set_backing(struct guest_ram *ram, const char *name);

/** guest_ram_block - answers inm_ops.ram_block: every block gets memory of its own */
int guest_ram_block(struct guest_ram *ram, struct inm_ram_block *block);
void guest_ram_fini(struct guest_ram *ram);

/**
 * guest_ram_write - each block as DIR/<name>.raw, sparse; '/' in a name becomes '_'
 * The directory is made if it is not there. Two blocks that would get the same file are an error.
 * Return: 0, or a negative errno after saying why.
 */
int guest_ram_write(const struct guest_ram *ram, const char *dir);

#endif
