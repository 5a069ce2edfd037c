/*
 * ram_dir.h - --ram-dir DIR: each RAM block as DIR/<name>.raw
 *
 * The names are a source's. What cannot be written is refused when its block is announced, before the source is told
 * anything that would make it let go of its guest; and nothing outside DIR is ever written: a '/' in a name becomes
 * '_', and what is there already must be a plain file of one's own name, not a link, FIFO or device.
 */
#ifndef PROGRAMS_GUEST_RAM_DIR_H
#define PROGRAMS_GUEST_RAM_DIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct guest_files;
struct stat;

#define RAM_DIR_KEPT_MAX 8

struct ram_dir {
	const char *path; /* NULL: not asked for */
	int fd;
	bool made;
	char **names; /* owned; of files, sorted */
	struct {
		dev_t dev;
		ino_t ino;
	} kept[RAM_DIR_KEPT_MAX]; /* files of the command line's, which may lie in the directory, too */
	size_t kept_count;
	size_t count, room;
};

/**
 * ram_dir_open - the directory is made if it is not there, and must be one where files can be made
 * Return: 0, or a negative errno after saying why.
 */
int ram_dir_open(struct ram_dir *d, const char *path);

/** ram_dir_keep - a file that no block may be written to: what else the program reads or writes */
void ram_dir_keep(struct ram_dir *d, const struct stat *st);

/**
 * ram_dir_add - can this block be written, when its time comes?
 * @files: memory of the guest, over which nothing may be written
 * Return: 0, also without --ram-dir; or a negative errno after saying why.
 */
int ram_dir_add(struct ram_dir *d, const char *block, uint64_t bytes, const struct guest_files *files);

/** ram_dir_create - the empty file of a block that was added. Return: a descriptor, or a negative errno. */
int ram_dir_create(const struct ram_dir *d, const char *block);

/* One line about a block's file. */
void ram_dir_say(const struct ram_dir *d, const char *block, int error);

/* A zeroed one is allowed. A directory that was made here and is empty is removed again. */
void ram_dir_close(struct ram_dir *d);

#endif
