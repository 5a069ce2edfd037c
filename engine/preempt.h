/*
 * preempt.h - the preempt channel: pages that somebody waits for come on a connection of their own
 *
 * Its life: a connection is taken for it (arrival.h), its reader waits for LISTEN and then lands pages, and it ends
 * with an EOS record, its connection, or a pause, after which there may be another one. It has no hello and may be
 * silent to its end. So a connection that has said nothing counts as one as long as it can be nothing else.
 *
 * Source: doc/wire/channels.md 1, 4.4, 6; doc/wire/stream.md 6
 */
#ifndef ENGINE_PREEMPT_H
#define ENGINE_PREEMPT_H

#include "coroutine/co.h"
#include "coroutine/wait.h"
#include "engine/ram/ram.h"
#include "engine/stream/hello.h"
#include "engine/stream/reader.h"

#include <stdbool.h>
#include <stdint.h>

struct arrival;
struct err;
struct log;
struct options;
struct postcopy;
struct reactor;
struct story;
struct trace;

struct preempt {
	struct reactor *reactor; /* not owned, as the rest up to the blank line */
	const struct log *log;
	const struct options *opts;
	const struct trace *trace;
	struct ram *ram;
	struct postcopy *postcopy;
	struct story *story;           /* its reader is a child of story.loading, and its loss is told there */
	const struct arrival *arrival; /* has the connections that may be it */
	const struct hello *main;      /* whose end is looked for while nobody reads it */

	struct chan *ch; /* owned; NULL before it is there, and when it is closed */
	struct reader reader;
	struct ram_loader loader;
	bool done;              /* it has ended as it should */
	uint64_t bytes;         /* of those that are closed */
	struct event news;      /* set when there is one, or a silent connection that may be it */
	struct event listening; /* LISTEN was carried out: pages may land */
};

/* @p: zeroed, with the fields up to main set. */
void preempt_init(struct preempt *p);

/** preempt_need - none is expected, one is missing, or it is there */
enum hello_need preempt_need(const struct preempt *p);

/** preempt_take - @h is the preempt channel; consumes h->ch where it returns 0. Return: 0, -ENOMEM, -ECANCELED. */
int preempt_take(struct preempt *p, struct hello *h, struct err *err);

/**
 * preempt_await - until it is there, if there is to be one: pages are asked for only when they can come
 * Parks: yes, until connect-deadline. Return: 0; -ETIMEDOUT; -ENOTCONN main has ended meanwhile; -ECANCELED.
 */
may_park int preempt_await(struct preempt *p, struct err *err);

/**
 * preempt_check - the same, looked at again after a park: the pages that are missing can come
 * Return: 0; -ENODATA: there is to be a preempt channel, and it has gone.
 */
int preempt_check(const struct preempt *p, struct err *err);

/** preempt_total_bytes - of all of them */
uint64_t preempt_total_bytes(const struct preempt *p);

/* Nobody may be reading. May be called again. */
void preempt_close(struct preempt *p);

#endif
