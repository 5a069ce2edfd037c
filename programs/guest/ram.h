/*
 * ram.h - memory for the RAM blocks of a guest that lands in the program
 */
#ifndef PROGRAMS_GUEST_RAM_H
#define PROGRAMS_GUEST_RAM_H

#include "inmigrate.h"
#include "programs/guest/file.h"
#include "programs/guest/ram_dir.h"
#include "programs/guest/unplugged.h"

#include <stdbool.h>
#include <stddef.h>

enum guest_backing {
	GUEST_DEFAULT, /* GUEST_THP; in postcopy GUEST_MEMFD, which our own device callbacks can touch, too */
	GUEST_THP,     /* anonymous, with transparent huge pages where the kernel has them */
	GUEST_MEMFD,
	GUEST_HUGETLB, /* a memfd of 2 MiB pages from the kernel's pool */
};

struct guest_block {
	char *name;
	uint64_t bytes;
	int fd;     /* a memfd, or a file of --ram; -1: anonymous */
	bool huge;  /* on hugetlbfs, which cannot be read through its descriptor */
	char *addr; /* anonymous memory, or a mapping of the memfd where one is needed */
	size_t map_bytes;
};

struct guest_ram {
	enum guest_backing backing;
	bool postcopy;                    /* the guest view is answered, too: see inm_ram_block.addr */
	bool touched;                     /* somebody will touch it: every block gets an address */
	struct guest_files files;         /* memory that is there already */
	struct guest_unplugged unplugged; /* blocks that may have holes at the source */
	struct ram_dir dir;               /* where it is written in the end */
	struct guest_block *blocks;
	size_t count;
};

/** guest_ram_set_backing - by name: thp, memfd, hugetlb-2m. Return: 0, -EINVAL. */
int guest_ram_set_backing(struct guest_ram *ram, const char *name);

/** guest_ram_block - answers inm_ops.ram_block: every block gets memory of its own, and room in the directory */
int guest_ram_block(struct guest_ram *ram, struct inm_ram_block *block);
void guest_ram_fini(struct guest_ram *ram);

/**
 * guest_ram_write - each block into ram->dir, sparse; nothing where there is no directory
 * Only when no page is missing: it reads through the guest view, and would wait for itself.
 * Return: 0, or a negative errno after saying why.
 */
int guest_ram_write(const struct guest_ram *ram);

#endif
