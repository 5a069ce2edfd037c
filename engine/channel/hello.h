/*
 * hello.h - which channel is this?
 *
 * Connections arrive in any order and from anybody, so a connection is what its first four bytes say, never what its
 * place in the order suggests. They are read into the connection's own buffer and handed on with it: nothing is peeked.
 *
 * Source: spec/channels.md 4
 */
#ifndef ENGINE_CHANNEL_HELLO_H
#define ENGINE_CHANNEL_HELLO_H

#include "coroutine/co.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct chan;
struct err;

#define HELLO_BYTES 4

/* A connection and the bytes that were read to find out what it is. */
struct hello {
	struct chan *ch;
	uint8_t first[HELLO_BYTES];
	size_t got; /* of @first; 0 for a channel that is main whatever it says (fd:, exec:, file:) */
};

enum hello_role {
	HELLO_MAIN,
	HELLO_REFUSED,
};

/**
 * hello_read - the first bytes, however slowly they come
 * Parks: yes, until @deadline_ns. Return: 0; -ENODATA when the connection ends before; -ETIMEDOUT; the channel's error.
 */
may_park int hello_read(struct hello *h, uint64_t deadline_ns, struct err *err);

/**
 * hello_decide - pure: what the bytes mean in this state
 * @has_main: the main channel is there already
 * @ret_reason: why not, with HELLO_REFUSED
 */
enum hello_role hello_decide(const uint8_t first[static HELLO_BYTES], bool has_main, const char **ret_reason);

#endif
