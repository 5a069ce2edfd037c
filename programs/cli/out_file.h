/*
 * out_file.h - a file that the command line asks for, made before anything is listened to
 *
 * Whether it can be made is known then, while the source has its guest; what is written comes later. A file that stays
 * unwritten is removed again if it was made here, and is otherwise left as it was.
 */
#ifndef PROGRAMS_CLI_OUT_FILE_H
#define PROGRAMS_CLI_OUT_FILE_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

struct out_file {
	const char *path; /* NULL: not asked for */
	int fd;
	bool made, written;
	int error; /* of the stream's first write that failed */
};

/**
 * out_file_open - make it, or open what is there; nothing of it is lost yet
 * A FIFO must have a reader. A pipe, FIFO or terminal that takes nothing for some seconds is an error later on: we wait
 * for nobody forever.
 * Return: 0, or a negative errno after saying why.
 */
int out_file_open(struct out_file *f, const char *path);

/** out_file_stream - empties the file and gives a stream into it. NULL: said why. */
FILE *out_file_stream(struct out_file *f);

/** out_file_done - closes the stream. Return: 0, or the errno of the first write that failed, after saying so. */
int out_file_done(struct out_file *f, FILE *stream);

/* A zeroed one is allowed. */
void out_file_close(struct out_file *f);

/* Are they one regular file? */
bool out_file_same(const struct out_file *a, const struct out_file *b);

#endif
