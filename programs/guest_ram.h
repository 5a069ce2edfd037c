/*
 * guest_ram.h - memory files for the RAM blocks of a guest that lands in the program
 */
#ifndef PROGRAMS_GUEST_RAM_H
#define PROGRAMS_GUEST_RAM_H

#include "inmigrate.h"

#include <stddef.h>

struct guest_block {
	char *name;
	uint64_t bytes;
	int fd; /* a memfd */
};

struct guest_ram {
	struct guest_block *blocks;
	size_t count;
};

/** guest_ram_block - answers inm_ops.ram_block: every block gets a memory file of its own */
int guest_ram_block(struct guest_ram *ram, struct inm_ram_block *block);
void guest_ram_fini(struct guest_ram *ram);

/**
 * guest_ram_write - each block as DIR/<name>.raw, sparse; '/' in a name becomes '_'
 * The directory is made if it is not there. Return: 0, or EXIT_FAILED after saying why.
 */
int guest_ram_write(const struct guest_ram *ram, const char *dir);

#endif
