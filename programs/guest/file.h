/*
 * file.h - memory of the guest that is a file already: --ram NAME=PATH
 *
 * With x-ignore-shared both sides have a block in the same file, and nothing of it is in the stream. Without, what
 * comes of the block is landed there. The file is opened and looked at before anything is listened to.
 */
#ifndef PROGRAMS_GUEST_FILE_H
#define PROGRAMS_GUEST_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

struct guest_file {
	char *name; /* of the block, owned */
	const char *path;
	int fd; /* -1: the block's now */
	struct stat st;
	bool huge;         /* on hugetlbfs */
	bool shm;          /* on tmpfs or hugetlbfs: a page of it can be missing, as postcopy needs */
	size_t page_bytes; /* of the file system's memory */
	bool used;
};

struct guest_files {
	struct guest_file *files; /* owned */
	size_t count;
};

/**
 * guest_files_add - the option's value
 * NAME ends at the first '=' after which there is the path of a file, so that names and paths may have a '='.
 * Return: 0, or a negative errno: @ret_why is one line.
 */
int guest_files_add(struct guest_files *fs, const char *value, char ret_why[static 320]);

/* With postcopy the files must be able to miss pages. Return: 0, or -EINVAL: @ret_why is one line. */
int guest_files_check_postcopy(const struct guest_files *fs, char ret_why[static 320]);

/** guest_files_find - for this block; NULL if there is none */
struct guest_file *guest_files_find(const struct guest_files *fs, const char *name);

/** guest_files_unused - the first one that no block has asked for; NULL: all are used */
const struct guest_file *guest_files_unused(const struct guest_files *fs);

/* Is @st one of these files? */
bool guest_files_have(const struct guest_files *fs, const struct stat *st);

void guest_files_fini(struct guest_files *fs);

#endif
