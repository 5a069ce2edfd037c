/*
 * temp.h - names for the files and folders of a test
 *
 * They are below $TMPDIR, as users expect. It may contain a space, so quote such a name in a shell.
 */
#ifndef TESTS_SUPPORT_TEMP_H
#define TESTS_SUPPORT_TEMP_H

/* Of any name from here. */
#define TEMP_NAME_BYTES 64

/**
 * temp_name - "$TMPDIR/inmigrate-@what-XXXXXX", for mkstemp(3) and mkdtemp(3)
 * Below /tmp where TMPDIR is unset, relative, or so long that the address of a socket in there would not fit.
 */
void temp_name(char ret_name[static TEMP_NAME_BYTES], const char *what);

#endif
