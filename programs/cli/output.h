/*
 * output.h - standard output and standard error, which must never hold up a guest
 *
 * Their readers may go away, stop reading, or be terminals that have been stopped or are gone. So nothing here waits
 * for them while a migration is under way: text goes into a buffer, and a thread for each of the two writes it. What
 * nobody takes is dropped, whole lines at a time, and the next line that finds room says how many were.
 *
 * Before output_start, and in commands that hold no guest, output_out and output_err are stdout and stderr.
 */
#ifndef PROGRAMS_CLI_OUTPUT_H
#define PROGRAMS_CLI_OUTPUT_H

#include <stddef.h>
#include <stdio.h>

FILE *output_out(void);
FILE *output_err(void);

/* From here on nothing waits. Without memory or threads for it, text that would have to wait is dropped at once. */
void output_start(void);

/*
 * Waits until all is written, as long as somebody goes on reading: after OUTPUT_PATIENCE_NS without a byte taken it is
 * given up. Says on standard error why standard output took no more, unless its reader has simply gone. May be called
 * without output_start, and text that follows it is still written.
 */
void output_end(void);

#define OUTPUT_PATIENCE_NS (5ull * 1000000000ull)

/* For signal handlers: on standard error if that takes it at once. */
void output_from_signal(const char *text, size_t bytes);

#endif
