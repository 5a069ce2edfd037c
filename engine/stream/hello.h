/*
 * hello.h - which channel is this?
 *
 * Connections arrive in any order and from anybody, so a connection is what its first bytes say, never what its place
 * in the order suggests. They are read into the connection's own buffer and handed on with it: nothing is peeked, so
 * it makes no difference whether a transport can be (TLS cannot). Only a channel that may stay silent, preempt, goes by
 * what is still owed.
 *
 * The decision is one pure function over one table (hello.c). Every combination of its inputs matches exactly one row;
 * a test goes through all of them.
 *
 * Source: doc/wire/channels.md 4
 */
#ifndef ENGINE_STREAM_HELLO_H
#define ENGINE_STREAM_HELLO_H

#include "coroutine/co.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct chan;
struct err;

#define HELLO_BYTES 4

/* Of a main channel more is read before it is one: see contest.h. Enough for what a source says before its first
 * section: header, configuration and commands, which are below 500 bytes with a machine type of 255. */
#define HELLO_BYTES_MAX 1024

/* A connection and the bytes that were read to find out what it is. */
struct hello {
	struct chan *ch;
	uint8_t first[HELLO_BYTES_MAX];
	uint64_t came_ns;  /* when it was accepted */
	uint64_t ready_ns; /* of a main channel: when its opening was complete; 0: it was not looked at */
	size_t got;        /* of @first; 0 for a channel that is main whatever it says (fd:, exec:, file:) */
};

/* What a connection begins with. */
enum hello_first {
	HELLO_NOTHING, /* still silent */
	HELLO_QEVM,    /* a migration's header */
	HELLO_PACKET,  /* multifd's magic */
	HELLO_COMMAND, /* a command element: the main channel of a recovery */
	HELLO_PAGE,    /* a page record: its top byte is 0 */
	HELLO_CPR,     /* mode cpr-transfer's magic */
	HELLO_TLS,     /* a TLS handshake */
	HELLO_OTHER,
	HELLO_FIRST_COUNT,
};

/* Of a kind of channel: none is expected, some are missing, or all are there. */
enum hello_need { HELLO_OFF, HELLO_OWED, HELLO_THERE, HELLO_NEED_COUNT };

/* What the migration has and lacks. */
struct hello_state {
	bool tls;             /* connections are TLS sessions; what is read is what is inside */
	bool recovery;        /* postcopy is paused: new channels of the same migration are expected */
	enum hello_need main; /* HELLO_OWED or HELLO_THERE */
	enum hello_need multifd;
	enum hello_need preempt;
};

enum hello_role {
	HELLO_IS_MAIN,
	HELLO_IS_MULTIFD,
	HELLO_IS_PREEMPT,
	HELLO_UNDECIDED, /* only for HELLO_NOTHING: wait on */
	HELLO_REFUSED,
};

/**
 * hello_read - the first bytes, however slowly they come
 * Parks: yes, until @deadline_ns. Return: 0; -ENODATA when the connection ends before; -ETIMEDOUT; the channel's error.
 */
may_park int hello_read(struct hello *h, uint64_t deadline_ns, struct err *err);

/** hello_first - what kind of beginning it is; @got below HELLO_BYTES is HELLO_NOTHING. Pure. */
enum hello_first hello_first(const uint8_t first[static HELLO_BYTES], size_t got);

/**
 * hello_decide - what the connection is. Pure, and total.
 * @ret_reason: one sentence for the log; why not, with HELLO_REFUSED
 */
enum hello_role hello_decide(const struct hello_state *state, enum hello_first first, const char **ret_reason);

/* Rows of the table that match: 1, always. For the test. */
int hello_matches(const struct hello_state *state, enum hello_first first);

#endif
