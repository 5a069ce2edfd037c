/*
 * control.h - words for the link: from the command line before it runs, over a socket while it does
 *
 * A line is a word and its value, as the options are without their dashes: "loss 0%", "to-source-delay 5ms",
 * "blackout 2s", "down", "up"; and "stats". The answer is one line: "ok", "error: ..." or the statistics; when it is
 * there the change is in effect.
 */
#ifndef TESTS_NETEM_CONTROL_H
#define TESTS_NETEM_CONTROL_H

#include "tests/netem/path.h"

#include <poll.h>

#define CONTROL_CLIENTS_MAX 8
#define CONTROL_POLLS (1 + CONTROL_CLIENTS_MAX)

struct control_client {
	int fd;
	size_t used;
	char line[512];
};

struct control {
	const char *path; /* or NULL: there is no socket */
	int fd;
	struct control_client clients[CONTROL_CLIENTS_MAX];
	struct path *paths; /* both; the caller's */
	void (*stats)(void *opaque, FILE *f);
	void *opaque;
};

/** control_known - whether @name is a word that changes a path; @ret_bare: one without a value */
bool control_known(const char *name, bool *ret_bare);

/**
 * control_apply - one word to one or both directions
 * @paths: to-destination, to-source
 * What it names is not checked against other settings (settings_check).
 * Return: 0 or negative; then nothing is changed.
 */
int control_apply(struct path paths[static 2], const char *name, const char *value, uint64_t now_ns, struct err *err);

/** control_open - @path: of a Unix socket to be made, or NULL. Return: 0 or negative errno. */
int control_open(struct control *c, const char *path, struct path paths[static 2], struct err *err);
void control_close(struct control *c);

/** control_polls - fill CONTROL_POLLS entries; after poll(2), control_serve gets them back */
void control_polls(const struct control *c, struct pollfd *polls);
void control_serve(struct control *c, const struct pollfd *polls, uint64_t now_ns);

/** control_tell - the other end: send the lines, print what is answered. Return: 0, or 1 when one was an error. */
int control_tell(const char *path, char **lines, struct err *err);

#endif
