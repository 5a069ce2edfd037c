/*
 * files.h - the files of `inmigrate listen`: opened before anything is listened to, and none of them two things at once
 */
#ifndef PROGRAMS_LISTEN_FILES_H
#define PROGRAMS_LISTEN_FILES_H

struct listen;

/**
 * listen_open_files - what is to be written, before anything is listened to
 * No file is written that is another one of the command line's, too: the saved stream, or memory of the guest.
 * Return: GO_ON, or the status that the program ends with, after saying why.
 */
int listen_open_files(struct listen *ln);

#endif
