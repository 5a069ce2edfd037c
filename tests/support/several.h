/*
 * several.h - a migration over several connections, played by hand in one process
 *
 * Each connection is a line: a wire, and how much of it may be played. Nothing happens unless the test asks for it, so
 * the test decides the order in which bytes arrive, and not the scheduler:
 *
 *   struct several s;
 *   several_begin(&s, &(struct multifd_opts){ .channels = 2 }, NULL);
 *   several_connect_all(&s);            line 0 is main, line 1 + i is channel i
 *   several_allow(&s, 2, 64);           channel 1 may send its first 64 bytes
 *   several_settle(&s);                 until nothing more moves
 *   several_finish(&s);                 plays the rest of all lines
 *   several_check_landed(&s);
 *   several_end(&s);                    frees everything, and checks that nothing is left
 */
#ifndef TESTS_SUPPORT_SEVERAL_H
#define TESTS_SUPPORT_SEVERAL_H

#include "tests/support/scene.h"
#include "tests/support/temp.h"

#define SEVERAL_LINES_MAX 320
#define SEVERAL_MAIN 0u
#define SEVERAL_ALL SIZE_MAX

struct several {
	struct scene scene;
	struct multifd_honest h;
	bool return_path;
	char address[160];
	char dir[TEMP_NAME_BYTES]; /* of the unix socket; "": tcp */
	struct pump *lines;        /* SEVERAL_LINES_MAX of them; owned */
	unsigned line_count;
	int result;                     /* of the last inm_dispatch; 1: under way */
	unsigned dispatches, cancel_at; /* inm_cancel after so many; UINT_MAX: never */
	unsigned quiet_ms;              /* settled when nothing has moved for this long; 0: 5 */
};

struct several_opts {
	bool tcp;
	bool anon;                 /* blocks are addresses, not files: payloads go straight into them */
	unsigned channels_here;    /* multifd-channels at the destination, if not the same */
	const char *deadline_s;    /* connect-deadline; NULL: 5 */
	const char *const *params; /* more, as in land_opts */
	const struct inm_ops *ops; /* NULL: the embedder's */
	struct inm_config config;
};

/* A destination listens, and nobody has connected. @o NULL: defaults. */
void several_begin(struct several *s, const struct multifd_opts *m, const struct several_opts *o);

/* Connects a line that may send nothing. Return: its number. */
unsigned several_connect(struct several *s, const struct wire *w);
/* Line 0 main, then the channels by id. */
void several_connect_all(struct several *s);
/* The wire of line @line, if several_connect_all made the lines. */
const struct wire *several_wire(const struct several *s, unsigned line);

/* Line @line may be played up to byte @upto (SEVERAL_ALL: all). */
void several_allow(struct several *s, unsigned line, size_t upto);
/* Sends everything that is allowed and not yet sent, then closes the line's end. */
void several_close(struct several *s, unsigned line);

/* One dispatch, one step of each line. Return: whether anything moved. */
bool several_turn(struct several *s);
void several_settle(struct several *s);
/* Runs until the migration has ended, or @ms have passed. Return: s->result. */
int several_run(struct several *s, unsigned ms);
/* Allows everything and runs to the end. Return: the migration's result. */
int several_finish(struct several *s);

/* After the end: copies numbers and text to the embedder, frees inm, closes lines. several_end does it, too. */
void several_free(struct several *s);
void several_check_landed(struct several *s);
/* It failed with @code, and the text has @words (one of them, separated by '|'). */
void several_check_failed(struct several *s, int code, const char *words);
void several_end(struct several *s);

/* Descriptors this process has. */
unsigned several_fds(void);

#endif
