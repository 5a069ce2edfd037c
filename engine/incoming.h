/*
 * incoming.h - the story of one migration, from listening to landed
 *
 * One coroutine tells it (incoming_story). Beside it live: an acceptor for each listening socket, a coroutine for each
 * connection that has not said what it is, the watch for inm_cancel, and the command of exec:. All are children of
 * groups that the story closes before it ends, so nothing is left when it has ended.
 */
#ifndef ENGINE_INCOMING_H
#define ENGINE_INCOMING_H

#include "base/err.h"
#include "base/log.h"
#include "coroutine/group.h"
#include "coroutine/reactor.h"
#include "coroutine/wait.h"
#include "engine/channel/exec.h"
#include "engine/channel/listener.h"
#include "engine/channel/tls/tls_creds.h"
#include "engine/claim.h"
#include "engine/contest.h"
#include "engine/load/load.h"
#include "engine/options/options.h"
#include "engine/ram/multifd.h"
#include "engine/stream/hello.h"
#include "engine/stream/trace.h"
#include "inmigrate.h"
#include "memory/block.h"
#include "postcopy/postcopy.h"

#include <stdatomic.h>
#include <stdbool.h>

/* Connections that have not said what they are, at most, beside the channels that are expected. See arrival.h. */
#define CONNECTIONS_UNKNOWN_MAX 64
/* What such a connection holds without TLS: its names, the four bytes, the stack it has used. Inside TLS: tls.h. */
#define UNKNOWN_CHAN_BYTES_MAX (32u << 10)

/* What the embedder knows of a reactor. One that an inm has made for itself is in here, too. */
struct inm_reactor {
	struct reactor *reactor; /* owned */
	struct claim claim;      /* whoever touches one of its migrations has it */
	size_t migrations;       /* that were made and have not been freed */
};

struct inm {
	struct inm_ops ops;
	void *opaque;
	struct log log;
	struct log_limit log_limit; /* of log.limit */
	struct trace trace;
	struct options opts;
	struct load_ops load_ops;

	struct inm_reactor *home;
	struct reactor *reactor;  /* home's */
	bool reactor_is_ours;     /* home, too */
	int wish_fd;              /* eventfd, owned: inm_cancel and inm_pause write, the watch reads */
	struct stuck stuck;       /* other threads look at it: inm_stuck_text */
	atomic_bool cancel_asked; /* for who does not park before the watch has its turn */

	struct group root;      /* the story and the watch */
	struct group acceptors; /* one for each listening socket; the story's */
	struct group arrival;   /* connections under way; the story's */
	struct list unknown;    /* connections under way, the oldest first */
	uint64_t refused_ns;    /* when that was last said loudly; 0: never */
	bool set_up_watched;    /* a multifd channel was refused: see arrival.c */
	size_t unknown_count;   /* without those that were evicted and have not had their turn to end */
	struct listener listener;
	struct listener next; /* that inm_recover has opened, when reopened is set: the story moves there */
	bool reopened;
	struct tls_creds *tls; /* owned; NULL: TLS is off. It is for every channel, or none */
	struct exec exec;
	struct hello main; /* main.ch is owned; NULL before it is there, and when it is closed */
	bool main_seen;    /* main has its place; see contest.h */
	bool single;       /* fd:, exec:, file:, where nobody else can come */
	struct contest contest;
	struct group loading; /* the coroutines of the channels, main's and the others'; the story's */
	struct group package; /* the one that loads the devices of postcopy; the story's */
	struct multifd multifd;
	bool complete; /* the guest is here and was accepted */
	struct event main_there;
	struct load load;
	bool load_made;
	struct ram ram;

	struct postcopy postcopy;
	struct hello preempt; /* preempt.ch is owned; NULL before it is there, and when it is closed */
	struct reader preempt_reader;
	struct ram_loader preempt_loader;
	bool preempt_done;         /* it has ended as it should */
	uint64_t preempt_bytes;    /* of preempt channels that are closed */
	struct event preempt_news; /* set when there is one, or a silent connection that may be it */
	struct event listening;
	bool running; /* start_vcpus was called */
	uint64_t running_ns;

	/* recovery.h */
	atomic_bool pause_asked;
	bool recovering;     /* from a loss to RESUME */
	struct event paused; /* set while a new main channel is waited for */
	uint32_t pauses, recoveries;
	uint64_t paused_ns;     /* when the last pause began */
	uint64_t paused_sum_ns; /* of those that are over */

	bool opening; /* inm_listen is at work, from whose log lines the embedder may call */
	enum inm_state state;
	struct err err;     /* the first one; code 0 while there is none */
	struct err refusal; /* why the guest cannot be taken, whatever the network does; likewise */
	char error_text[sizeof(((struct err *)0)->text) + 200];
	uint64_t begin_ns, switchover_ns, end_ns;
	uint64_t main_bytes; /* of main channels that are closed */
	char hint[160];      /* why a multifd channel was refused: the likely reason if the source gives up */
};

/** incoming_set_state - checked, probed, told to the embedder. The only way to change inm->state. */
void incoming_set_state(struct inm *inm, enum inm_state state);

/** incoming_start - listen at @addr and set the story going. Return: 0, or why not; then nothing has begun. */
int incoming_start(struct inm *inm, const struct address *addr, struct err *err);

/** incoming_lost - the connection is lost, as somebody other than main's reader has found; @opaque: struct inm */
void incoming_lost(void *opaque, int result, const struct err *err);

/* Around a callback that may touch guest memory, in a coroutine; @what, for the watch, lives until it is left. */
void incoming_enter_callback(struct inm *inm, const char *what);
void incoming_leave_callback(struct inm *inm);

/**
 * incoming_time_callback - around a callback that has no business with guest memory: in postcopy it is only timed
 * Return: false when there is nothing to time (in another callback, that one is); else incoming_time_over is due, which
 * returns a line for the log, or NULL.
 */
bool incoming_time_callback(struct inm *inm, const char *what);
const char *incoming_time_over(struct inm *inm);

/* For switchover.c: the embedder's ready, with a cancel in it heard; the run state that the stream said, or NULL. */
may_park int incoming_ask_ready(struct inm *inm, struct err *err);
const char *incoming_run_state(const struct inm *inm);

/* For recovery.c: TLS where the main channel has not been met before, which is so for fd:; and its end. */
may_park int incoming_secure_main(struct inm *inm, struct err *err);
void incoming_close_main(struct inm *inm);

/** incoming_under_way - has it begun and not come to its end, callbacks and connections included? */
bool incoming_under_way(const struct inm *inm);

/** incoming_result - of a migration that has ended: 0, -ECANCELED, or the errno of the first error */
int incoming_result(const struct inm *inm);

#endif
