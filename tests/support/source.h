/*
 * source.h - the scripted source: plays the bytes of a struct wire to a destination
 *
 * A player is a child process (the process under test stays single-threaded). It connects, writes by its plan, reads
 * the replies, ends as told, and reports through a pipe. A pump does the same inside the process, and never waits: at
 * each step it moves what can be moved, so a test decides what happens between any two bytes.
 */
#ifndef TESTS_SUPPORT_SOURCE_H
#define TESTS_SUPPORT_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/support/wire.h"

enum source_end {
	SOURCE_END_HONEST, /* with a return path wait for SHUT, as QEMU does (doc/wire/stream.md 1.6); then close */
	SOURCE_END_HOLD,   /* stay connected and silent until the peer closes */
	SOURCE_END_CLOSE,
	SOURCE_END_RESET, /* SO_LINGER 0: unread bytes are lost, the peer sees ECONNRESET (tcp) */
};

struct source_pause {
	size_t off;
	unsigned ms;
};

struct source_plan {
	const struct wire *wire;
	size_t stop_at;                    /* bytes to play; 0: all */
	size_t chunk_bytes;                /* 0: as many as possible at once */
	const struct source_pause *pauses; /* ascending */
	unsigned pause_count;
	bool return_path; /* replies are expected and read */
	enum source_end end;
	unsigned give_up_ms; /* the player ends after this long whatever happens; 0: 20000 */
};

#define SOURCE_REPLIES_MAX 64

struct source_report {
	size_t written;
	int write_errno;  /* that ended the writing, 0 if all was written */
	bool peer_closed; /* the destination's end of stream, or a reset, was seen */
	bool gave_up;
	bool bad_reply; /* bytes on the return path that are no reply */
	unsigned reply_count;
	struct wire_reply replies[SOURCE_REPLIES_MAX];
};

struct source {
	pid_t pid;
	int report_fd; /* read end; -1 without a child */
};

/* Connect to what inm_address says ("unix:/path", "tcp:127.0.0.1:40123"), in the child, and play. */
void source_play_uri(struct source *src, const struct source_plan *plan, const char *uri);

enum source_kind { SOURCE_SOCKETPAIR, SOURCE_PIPE };

/* Play into a new pair. Return: the destination's descriptor, for "fd:N". */
int source_play_pair(struct source *src, const struct source_plan *plan, enum source_kind kind);

/* Wait for the child, in bounded time, and report what happened. Aborts if the child did not end well. */
void source_wait(struct source *src, struct source_report *ret_report);
/* Kill the child and wait for it. */
void source_kill(struct source *src);

/* How many replies of @type there are; and the be32 payload of the @nth. */
unsigned source_reply_count(const struct source_report *report, uint16_t type);
uint32_t source_reply_value(const struct source_report *report, uint16_t type, unsigned nth);
/* "PONG 1, SHUT 0" */
const char *source_reply_text(const struct source_report *report, char *buf, size_t buf_bytes);

/* ---- in the process ---------------------------------------------------------------------------------------- */

enum pump_end {
	PUMP_HONEST,   /* with a return path wait for SHUT; then close */
	PUMP_CLOSE,    /* at once */
	PUMP_SHUTDOWN, /* say that no more comes (SHUT_WR), and listen until the peer closes */
	PUMP_HOLD,
};

struct pump {
	const struct wire *wire;
	size_t stop_at;     /* bytes to play */
	size_t chunk_bytes; /* at most this many in a step; 0: as many as possible */
	size_t written;
	int fd; /* -1 once closed */
	bool return_path;
	enum pump_end end; /* after the last byte */
	bool ended;        /* SHUT_WR was sent */
	struct source_report report;
	uint8_t inbuf[1024];
	size_t in_len;
};

/* To what inm_address says, which is there: aborts otherwise. @host: from this address, in host order; 0: from any. */
int source_connect(const char *uri, uint32_t host);
/* The number of 127.0.0.1 + @n, for source_connect. */
#define SOURCE_HOST(n) (0x7f000001u + (n))

/* Return: the destination's descriptor, for "fd:N". All of the wire is played unless stop_at is changed. */
int pump_open(struct pump *p, const struct wire *w);
/* The same over a connection of its own to what inm_address says. Return: 0, or why there is none (-EAGAIN: later). */
int pump_connect(struct pump *p, const struct wire *w, const char *uri);
/* Move what can be moved. Return: whether anything was. */
bool pump_step(struct pump *p);
void pump_close(struct pump *p);

#endif
