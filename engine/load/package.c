#include "engine/load/package.h"

#include "base/be.h"
#include "base/clock.h"
#include "base/err.h"
#include "coroutine/group.h"
#include "coroutine/turn.h"
#include "engine/load/device.h"
#include "engine/load/load.h"
#include "engine/options/options.h"
#include "engine/stream/trace.h"
#include "engine/stream/wire.h"
#include "inmigrate.h"
#include "postcopy/postcopy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

/* More is not allocated before so much of it has come. */
#define GROW_BYTES (1u << 20)

void package_init(struct package *p, struct sched *s)
{
	*p = (struct package){ .split = SPLIT_RESULT_NONE };
	event_init(&p->done, s, "device state");
	event_init(&p->listened, s, "POSTCOPY_LISTEN");
}

void package_fini(struct package *p)
{
	split_result_fini(&p->split);
	turn_free(p->done.sched, p->buf, p->bytes);
	p->buf = NULL;
}

static int receive(struct load *l, uint32_t bytes, struct err *err)
{
	struct package *p = &l->package;
	size_t piece;
	uint8_t *buf;
	int e = 0;

	while (e == 0 && p->bytes < bytes) {
		piece = bytes - p->bytes;
		if (piece > GROW_BYTES + p->bytes)
			piece = GROW_BYTES + p->bytes;
		buf = realloc(p->buf, p->bytes + piece);
		if (!buf)
			return err_set(err, -ENOMEM, "no memory for its %" PRIu32 " bytes", bytes);
		p->buf = buf;
		e = reader_bytes(&l->reader, p->buf + p->bytes, piece, err);
		if (e == 0)
			p->bytes += piece;
	}
	return e;
}

static int divide(struct load *l, struct err *err)
{
	bool footers = l->opts->send_section_footer;
	struct package *p = &l->package;
	struct sections_split how;
	int e;

	if (!footers)
		return err_set(err, -ENOTSUP, "without section footers its devices cannot be told apart");
	e = sections_split_begin(&how, &l->sections, footers, l->reader.sched, err);
	if (e < 0)
		return e;
	e = split_by_footers(&p->split, p->buf, p->bytes, SPLIT_PACKAGE, &how.opts, err);
	return sections_split_end(&how, e);
}

/* Does the source hand the guest over by a PING of its own? */
static bool find_owner_ping(const struct package *p)
{
	for (size_t i = 0; i < p->split.command_count; i++) {
		const struct split_command *c = &p->split.commands[i];

		if (c->command == WIRE_CMD_PING && be32_load(p->buf + c->payload_off) == WIRE_PING_OWNER)
			return true;
	}
	return false;
}

/* Without a return path nobody can be asked, and nobody answered. */
static int check_pings(const struct load *l, struct err *err)
{
	const struct split_result *s = &l->package.split;

	for (size_t i = 0; !l->reply.open && i < s->command_count; i++)
		if (s->commands[i].command == WIRE_CMD_PING)
			return err_set(err, -EPROTO, "command PING, and the source has not opened a return path");
	return 0;
}

static int check_alive(const struct load *l, struct err *err)
{
	return l->ops->check_alive(l->ops_opaque, err);
}

/* Once: what can still refuse the guest does so before anybody is told that it is ours. */
static int take_over(struct load *l, bool *taken, struct err *err)
{
	int e;

	if (*taken)
		return 0;
	*taken = true;
	e = l->ops->take_over(l->ops_opaque, err);
	/* It may have parked, too. */
	return e < 0 ? e : check_alive(l, err);
}

/* A lost connection is not the package's failure, and a source that asked on it waits for no answer. */
static int answer(struct load *l, uint32_t value, struct err *err)
{
	int e = reply_pong(&l->reply, value, err);

	if (e == 0 || e == -ECANCELED)
		return e;
	if (e != -ENOTCONN)
		l->ops->lost(l->ops_opaque, e, err);
	return 0;
}

static may_park int pledge(struct load *l, bool *taken, struct err *err)
{
	int e = take_over(l, taken, err);

	return e < 0 ? e : l->ops->pledge(l->ops_opaque, err);
}

static int carry_out(struct load *l, const struct split_command *c, bool *taken, struct err *err)
{
	const struct package *p = &l->package;
	uint32_t value;
	int e = 0;

	switch (c->command) {
	case WIRE_CMD_PING:
		value = be32_load(p->buf + c->payload_off);
		TRACE(l->trace, p->off + c->off, 1, "command PING %" PRIu32 " in the package", value);
		if (value == WIRE_PING_OWNER)
			return pledge(l, taken, err);
		return p->cut ? 0 : answer(l, value, err);
	case WIRE_CMD_POSTCOPY_RUN:
		TRACE(l->trace, p->off + c->off, 1, "command POSTCOPY_RUN in the package");
		e = take_over(l, taken, err);
		if (e < 0)
			return e;
		l->ops->run(l->ops_opaque);
		return 0;
	default:
		return 0; /* LISTEN: package_read has seen to it */
	}
}

/* In the order of the package: commands and sections. */
static int load_all(struct load *l, struct err *err)
{
	const struct package *p = &l->package;
	const struct split_result *s = &p->split;
	size_t section = 0;
	bool taken = false;
	int e = 0;

	for (size_t i = 0; e == 0 && i <= s->command_count; i++) {
		size_t until = i < s->command_count ? s->commands[i].section : s->section_count;

		while (e == 0 && section < until && (e = check_alive(l, err)) == 0)
			e = device_deliver(l, p->buf, p->off, s, section++, err);
		if (e == 0)
			e = check_alive(l, err);
		if (e == 0 && i < s->command_count)
			e = carry_out(l, &s->commands[i], &taken, err);
	}
	return e;
}

static int run_package(void *arg)
{
	struct load *l = arg;
	struct err err = ERR_NONE;
	/* No deadline: LISTEN succeeds, or the migration fails and cancels us. */
	int e = event_wait(&l->package.listened, DEADLINE_NEVER);

	if (e < 0)
		return e;
	e = load_all(l, &err);
	/* It is not needed any more, and freed in pieces. */
	turn_free(l->reader.sched, l->package.buf, l->package.bytes);
	l->package.buf = NULL;
	/* Main adds to them until it is done: so nothing parks between the last one and that. */
	for (unsigned i = 0; e == 0 && i < l->package.ping_count; i++)
		e = answer(l, l->package.pings[i], &err);
	if (e == 0) {
		event_set(&l->package.done);
		return 0;
	}
	err_up(&err, e, "package at 0x%" PRIx64, l->package.off);
	l->ops->refused(l->ops_opaque, e, &err);
	return e;
}

void package_cut(struct package *p)
{
	p->cut = true;
	p->ping_count = 0;
}

int package_read(struct load *l, uint32_t bytes, struct err *err)
{
	struct package *p = &l->package;
	struct err listen_err = ERR_NONE;
	int e = 0, lost;

	if (bytes == 0 || bytes > PACKAGE_BYTES_MAX)
		return err_set(err, -EPROTO, "a package of %" PRIu32 " bytes; 1 to %u are possible", bytes,
		               PACKAGE_BYTES_MAX);
	p->begun = true;
	p->off = reader_off(&l->reader);
	e = receive(l, bytes, err);
	if (e == 0)
		e = divide(l, err);
	if (e == 0)
		e = check_pings(l, err);
	if (e < 0)
		return err_up(err, e, "package at 0x%" PRIx64, p->off);
	l->split_by_footers = true;
	TRACE(l->trace, p->off, 1, "command POSTCOPY_LISTEN in the package");
	p->has_owner_ping = find_owner_ping(p);
	/* If only bitmaps use postcopy, all of RAM is here: wait for no channel. */
	lost = l->ram_loader.advised ? l->ops->await_channels(l->ops_opaque, err) : 0;
	if (lost < 0 && (lost != -ENOTCONN || p->has_owner_ping))
		return err_up(err, lost, "POSTCOPY_LISTEN");
	/* First, so that it cannot fail once pages are watched: the source would not send the package again. */
	e = group_spawn(l->tasks, "package", run_package, l);
	if (e < 0)
		return err_set(err, e, "no memory for a coroutine");
	e = l->ops->listen(l->ops_opaque, p->has_owner_ping, &listen_err);
	if (e < 0) {
		*err = listen_err;
		return err_up(err, e, "POSTCOPY_LISTEN");
	}
	l->phase = LOAD_LISTENING;
	event_set(&p->listened);
	return lost;
}
