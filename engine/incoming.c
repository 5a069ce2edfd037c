#include "engine/incoming.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/probe.h"
#include "coroutine/io.h"
#include "engine/channel/channel.h"
#include "engine/channel/file.h"
#include "engine/channel/socket.h"
#include "engine/channel/tls.h"
#include "engine/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Told how it went, a source closes at once; one that does not is not waited for longer. */
#define FAREWELL_NS (2 * NS_PER_S)

/* After an accept that failed for want of descriptors. */
#define ACCEPT_PAUSE_NS (100 * NS_PER_MS)

/* What the command of exec: may still do when its stream has ended well. */
#define EXEC_GRACE_NS (5 * NS_PER_S)

void incoming_set_state(struct inm *inm, enum inm_state state)
{
	ASSERT(state_may_change(inm->state, state));
	PROBE3(engine__state, inm, (int)inm->state, (int)state);
	inm->state = state;
	if (state_is_final(state))
		inm->end_ns = clock_now_ns();
	if (inm->ops.state_changed)
		inm->ops.state_changed(inm->opaque, state);
}

int incoming_result(const struct inm *inm)
{
	if (inm->state == INM_STATE_COMPLETED)
		return 0;
	return inm->state == INM_STATE_CANCELLED ? -ECANCELED : inm->err.code;
}

/* ---- arrival: who connects, and what they are ---- */

/* The main channel is found, complete with its first bytes: handed over in one step. */
static void main_arrived(struct inm *inm, const struct hello *h)
{
	inm->main = *h;
	inm->main_seen = true;
	log_info(&inm->log, "main channel: %s", h->ch->name);
	event_set(&inm->main_there);
}

/* A connection on its own, in its own coroutine, until it is known what it is. */
struct connection {
	struct list node; /* in inm->unknown, the oldest first */
	struct inm *inm;
	struct co *co; /* NULL before its first turn */
	struct hello hello;
};

static struct hello_state arrival_state(const struct inm *inm)
{
	const struct multifd *m = &inm->multifd;

	return (struct hello_state){
		.tls = inm->tls != NULL,
		.main = inm->main_seen ? HELLO_THERE : HELLO_OWED,
		.multifd = m->channels == 0 ? HELLO_OFF : m->present < m->channels ? HELLO_OWED : HELLO_THERE,
	};
}

/* Found out what it is, and handed over, or closed. A stranger can neither fail nor delay the migration. */
static int place_connection(struct inm *inm, struct hello *h, uint64_t deadline_ns, struct err *err)
{
	struct hello_state state = arrival_state(inm);
	const char *reason;

	switch (hello_decide(&state, hello_first(h->first, h->got), &reason)) {
	case HELLO_IS_MAIN:
		main_arrived(inm, h);
		h->ch = NULL;
		return 0;
	case HELLO_IS_MULTIFD:
		return multifd_join(&inm->multifd, h, deadline_ns, err);
	default:
		return err_set(err, -EPROTO, "%s", reason);
	}
}

/* With TLS on, nothing is looked at before the source is verified. */
static int secure(struct inm *inm, struct hello *h, uint64_t deadline_ns, struct err *err)
{
	struct tls_options o = tls_options_of(&inm->opts);
	struct chan *plain = h->ch;
	char text[TLS_SESSION_TEXT_BYTES];
	int e;

	if (!inm->tls)
		return 0;
	h->ch = NULL;
	e = tls_chan_wrap(&h->ch, plain, inm->tls, &o, deadline_ns, err);
	if (e == 0)
		log_debug(&inm->log, "%s: %s", h->ch->name, tls_chan_describe(h->ch, text));
	return e;
}

static int meet_connection(void *arg)
{
	struct connection *conn = arg;
	struct inm *inm = conn->inm;
	struct hello *h = &conn->hello;
	uint64_t deadline_ns = deadline_after_ns(inm->opts.connect_deadline_s * NS_PER_S);
	char name[sizeof(h->ch->name)];
	struct err err = ERR_NONE;
	int e;

	conn->co = inm->reactor->sched.current;
	memcpy(name, h->ch->name, sizeof(name));
	e = secure(inm, h, deadline_ns, &err);
	if (e == 0)
		e = hello_read(h, deadline_ns, &err);
	if (e == 0)
		e = place_connection(inm, h, deadline_ns, &err);
	if (e < 0 && e != -ECANCELED) {
		log_info(&inm->log, "connection from %s closed: %s", name, err.text);
		if (hello_first(h->first, h->got) == HELLO_PACKET)
			snprintf(inm->hint, sizeof(inm->hint), "; refused before: %.120s", err.text);
	}
	chan_close(h->ch);
	list_unlink(&conn->node);
	inm->unknown_count--;
	free(conn);
	return 0;
}

/*
 * Silent strangers must not keep the source out, so it is the oldest of them that goes when there are too many. (A
 * source speaks at once, or when its other channels are up.)
 */
static void evict_oldest(struct inm *inm)
{
	struct connection *oldest = container_of(inm->unknown.next, struct connection, node);

	log_warn(&inm->log, "connection from %s closed: %d others have not said what they are", oldest->hello.ch->name,
		 CONNECTIONS_UNKNOWN_MAX);
	/* It leaves the line now and ends in its turn. */
	list_unlink(&oldest->node);
	if (oldest->co)
		co_cancel(oldest->co);
}

static void admit(struct inm *inm, struct chan *ch)
{
	struct connection *conn = calloc(1, sizeof(*conn));
	int e = -ENOMEM;

	if (conn) {
		*conn = (struct connection){ .inm = inm, .hello = { .ch = ch } };
		list_init(&conn->node);
		e = group_spawn(&inm->arrival, ch->name, meet_connection, conn);
	}
	if (e < 0) {
		log_warn(&inm->log, "connection from %s closed: no memory", ch->name);
		chan_close(ch);
		free(conn);
		return;
	}
	if (inm->unknown_count >= CONNECTIONS_UNKNOWN_MAX && !list_empty(&inm->unknown))
		evict_oldest(inm);
	list_push_tail(&inm->unknown, &conn->node);
	inm->unknown_count++;
}

struct acceptor {
	struct inm *inm;
	int index;
};

static int accept_connections(void *arg)
{
	struct acceptor a = *(struct acceptor *)arg;
	struct inm *inm = a.inm;
	struct err err = ERR_NONE;
	struct chan *ch;
	int e;

	free(arg);
	for (;;) {
		e = listener_accept(&inm->listener, a.index, inm->reactor, &inm->opts, &ch, &err);
		if (e == 0) {
			admit(inm, ch);
			continue;
		}
		if (e == -ECANCELED)
			return e;
		/* Nothing an accept can fail with makes the next one hopeless; but it must not become a busy loop. */
		log_warn(&inm->log, "%s", err.text);
		e = io_sleep_until(inm->reactor, deadline_after_ns(ACCEPT_PAUSE_NS));
		if (e < 0)
			return e;
	}
}

static int start_acceptors(struct inm *inm)
{
	struct acceptor *a;
	int e;

	for (int i = 0; i < inm->listener.count; i++) {
		a = malloc(sizeof(*a));
		if (!a)
			return -ENOMEM;
		*a = (struct acceptor){ .inm = inm, .index = i };
		e = group_spawn(&inm->arrival, inm->listener.sockets[i].text, accept_connections, a);
		if (e < 0) {
			free(a);
			return e;
		}
	}
	return 0;
}

/* ---- the embedder's side of the stream ---- */

/*
 * A cancel from inside a callback, or while no coroutine parks, is heard here. A callback's own -ECANCELED is a failure
 * like others: nobody has asked for a cancel.
 */
static int unless_cancelled(const struct inm *inm, int result)
{
	if (atomic_load(&inm->cancel_asked))
		return -ECANCELED;
	return result == -ECANCELED ? -EIO : result;
}

static int ask_ram_block(void *opaque, struct inm_ram_block *block)
{
	struct inm *inm = opaque;

	return unless_cancelled(inm, inm->ops.ram_block(inm->opaque, block));
}

static int give_device(void *opaque, const struct inm_device *device)
{
	struct inm *inm = opaque;

	PROBE2(engine__device, device->instance_id, device->bytes);
	return unless_cancelled(inm, inm->ops.device ? inm->ops.device(inm->opaque, device) : 0);
}

static int sync_multifd(void *opaque, struct err *err)
{
	struct inm *inm = opaque;

	return multifd_sync(&inm->multifd, err);
}

static void note_switchover(void *opaque)
{
	struct inm *inm = opaque;

	inm->switchover_ns = clock_now_ns();
}

/* ---- the story ---- */

static const char *run_state(const struct inm *inm)
{
	return inm->load.has_run_state ? inm->load.run_state : NULL;
}

static int load_main(struct inm *inm, struct err *err)
{
	struct load *l = &inm->load;
	int e;

	/* fd:, exec: and file: have not been met (HELLO_BYTES read) before. */
	if (inm->main.got == 0) {
		e = secure(inm, &inm->main, deadline_after_ns(inm->opts.connect_deadline_s * NS_PER_S), err);
		if (e < 0)
			return e;
	}
	inm->load_ops = (struct load_ops){ ask_ram_block, give_device, sync_multifd, note_switchover };
	l->opts = &inm->opts;
	l->trace = &inm->trace;
	l->log = &inm->log;
	l->ops = &inm->load_ops;
	l->ops_opaque = inm;
	l->ram = &inm->ram;
	e = load_init(l, &inm->reactor->sched, inm->main.ch, inm->main.first, inm->main.got);
	if (e < 0)
		return err_set(err, e, "no memory for the stream's buffer");
	inm->load_made = true;
	/* What comes by fd:, exec: or file: may take its time to begin. */
	e = reader_need(&l->reader, 1, err);
	inm->begin_ns = clock_now_ns();
	if (e == 0)
		e = load_stream(l, err);
	if (e < 0)
		return e;
	log_info(&inm->log, "guest complete: %zu RAM blocks, %u devices, divided by %s", inm->ram.count, l->devices,
		 l->split_by_footers ? "footers" : "the stream's description");
	e = inm->ops.ready ? inm->ops.ready(inm->opaque, run_state(inm)) : 0;
	e = unless_cancelled(inm, e);
	return e < 0 ? err_set(err, e, "the guest is complete and was refused here: %s", strerror(-e)) : 0;
}

/*
 * The source hears how it went. A success that cannot be told is a failure: without SHUT 0 the source runs its guest
 * again, and there must not be two. Once it is being told, a cancel is too late: the write is not left halfway.
 */
static int tell_source(struct inm *inm, int result)
{
	struct err err = ERR_NONE;
	int e;

	if (!inm->load_made || !inm->load.reply.open)
		return result;
	if (result < 0) {
		reply_shut(&inm->load.reply, 1, deadline_after_ns(FAREWELL_NS), &err);
		return result;
	}
	co_shield(&inm->reactor->sched, true);
	e = reply_shut(&inm->load.reply, 0, deadline_after_ns(REPLY_TIMEOUT_NS), &err);
	co_shield(&inm->reactor->sched, false);
	if (e < 0)
		inm->err = err;
	return e;
}

/* Close after the source: bytes of it that come later would turn our close into a reset, which may overtake SHUT 0. */
static void await_close(struct inm *inm)
{
	uint64_t deadline_ns = deadline_after_ns(FAREWELL_NS);
	struct err ignored = ERR_NONE;
	uint8_t scrap[4096];
	struct iovec iov;
	ssize_t n = 1;

	if (!inm->load_made || !inm->load.reply.open || inm->load.reader.ended)
		return;
	while (n > 0) {
		iov = (struct iovec){ scrap, sizeof(scrap) };
		n = chan_readv(inm->main.ch, &iov, 1, deadline_ns, &ignored);
	}
}

static void close_main(struct inm *inm)
{
	if (inm->load_made)
		load_fini(&inm->load);
	if (inm->main.ch)
		inm->main_bytes = inm->main.ch->bytes_in;
	chan_close(inm->main.ch);
	inm->main.ch = NULL;
}

/* The first error is kept: what comes after it is its consequence. */
static void note_failure(void *opaque, int result, const struct err *err)
{
	struct inm *inm = opaque;

	if (inm->err.code == 0 && result != -ECANCELED) {
		inm->err = *err;
		inm->err.code = result;
	}
}

static int run_main(void *arg)
{
	struct inm *inm = arg;
	struct err err = ERR_NONE;
	int e = load_main(inm, &err);

	if (e < 0) {
		note_failure(inm, e, &err);
		return e;
	}
	inm->complete = true;
	/* Everything has come: what the multifd channels might still say is their end. */
	group_cancel(&inm->loading);
	return 0;
}

/* Return: 0 the guest is complete and accepted; a cancel that comes later is too late. */
static int receive_guest(struct inm *inm)
{
	/* No deadline: a source may come at any time; the embedder's patience is inm_run_until's. */
	int joined, e = event_wait(&inm->main_there, DEADLINE_NEVER);

	if (e == 0) {
		incoming_set_state(inm, INM_STATE_ACTIVE);
		e = group_spawn(&inm->loading, "main stream", run_main, inm);
	}
	if (e < 0)
		group_cancel(&inm->loading);
	joined = group_join(&inm->loading);
	if (inm->complete)
		return 0;
	return e < 0 ? e : joined;
}

static void finish(struct inm *inm, int result)
{
	if (result == 0) {
		if (inm->ops.start_vcpus)
			inm->ops.start_vcpus(inm->opaque, run_state(inm));
		incoming_set_state(inm, INM_STATE_COMPLETED);
	} else if (result == -ECANCELED) {
		incoming_set_state(inm, INM_STATE_CANCELLED);
	} else {
		snprintf(inm->error_text, sizeof(inm->error_text), "incoming: %s%s (%s)", inm->err.text, inm->hint,
			 err_name(result));
		/* -ETIMEDOUT of inm_run_until means "still under way", and nothing else. */
		inm->err.code = result == -ETIMEDOUT ? -ECONNABORTED : result;
		incoming_set_state(inm, INM_STATE_FAILED);
	}
}

/* The command of exec: has time to end by itself when all went well. */
static void end_arrival(struct inm *inm, int result)
{
	if (result == 0 && inm->exec.pidfd >= 0)
		io_poll(inm->reactor, inm->exec.pidfd, 1, deadline_after_ns(EXEC_GRACE_NS));
	group_cancel(&inm->arrival);
	group_join(&inm->arrival);
	listener_close(&inm->listener);
}

/* Background: the embedder may never cancel. */
static int watch_cancel(void *arg)
{
	struct inm *inm = arg;
	uint64_t count;
	ssize_t n = io_read(inm->reactor, inm->cancel_fd, &count, sizeof(count), RING_OFF_CURRENT, DEADLINE_NEVER);

	if (n > 0)
		group_cancel(&inm->root);
	return 0;
}

/* What must go on beside the story. Return: 0 or -ENOMEM. */
static int start_company(struct inm *inm)
{
	int e = group_spawn_background(&inm->root, "cancel", watch_cancel, inm);

	if (e == 0)
		e = start_acceptors(inm);
	if (e == 0 && inm->exec.pidfd >= 0) {
		e = group_spawn(&inm->arrival, "exec", exec_wait, &inm->exec);
		if (e < 0)
			exec_kill(&inm->exec);
	}
	return e;
}

static int incoming_story(void *arg)
{
	struct inm *inm = arg;
	int e = start_company(inm);

	if (e < 0)
		err_set(&inm->err, e, "no memory for a coroutine");
	else
		e = tell_source(inm, receive_guest(inm));
	/* From here on nothing can change the outcome. */
	finish(inm, e);
	if (e == 0)
		await_close(inm);
	close_main(inm);
	multifd_fini(&inm->multifd);
	end_arrival(inm, e);
	tls_creds_free(inm->tls);
	inm->tls = NULL;
	group_cancel(&inm->root);
	return 0;
}

/* ---- the beginning ---- */

/*
 * fd: and file: are one connected channel each, a socket or something to read. A descriptor is read from where it
 * stands, and is ours: nobody we start may inherit it.
 */
static int open_descriptor(struct inm *inm, const struct address *addr, struct chan **ret_chan, struct err *err)
{
	char name[sizeof((*ret_chan)->name)];
	uint64_t off = addr->offset;
	int fd = addr->fd, e;
	struct stat st;
	off_t here;

	/* O_NONBLOCK: opening a FIFO would wait for its writer. */
	if (addr->kind == ADDRESS_FILE)
		fd = open(addr->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(err, -errno, "%s", strerror(errno));
	if (addr->kind == ADDRESS_FILE && S_ISFIFO(st.st_mode)) {
		close(fd);
		return err_set(err, -EINVAL, "a FIFO; 'exec:cat FILE' reads one");
	}
	if (addr->kind == ADDRESS_FILE)
		snprintf(name, sizeof(name), "file:%.80s", addr->path);
	else
		snprintf(name, sizeof(name), "fd:%d", fd);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	if (addr->kind == ADDRESS_FD && (here = lseek(fd, 0, SEEK_CUR)) > 0)
		off = (uint64_t)here;
	if (S_ISSOCK(st.st_mode)) {
		socket_set_options(fd, &inm->opts);
		e = socket_chan_new(ret_chan, inm->reactor, fd, name);
	} else {
		e = file_chan_new(ret_chan, inm->reactor, fd, off, name);
	}
	return e < 0 ? err_set(err, e, "no memory for a channel") : 0;
}

static int open_address(struct inm *inm, const struct address *addr, struct err *err)
{
	struct hello h = { .ch = NULL };
	int e;

	if (address_is_listening(addr))
		return listener_open(&inm->listener, addr, err);
	if (addr->kind == ADDRESS_EXEC)
		e = exec_start(&inm->exec, inm->reactor, &inm->log, addr->path, &h.ch, err);
	else
		e = open_descriptor(inm, addr, &h.ch, err);
	if (e == 0)
		main_arrived(inm, &h);
	return e;
}

static void undo_open(struct inm *inm)
{
	tls_creds_free(inm->tls);
	inm->tls = NULL;
	listener_close(&inm->listener);
	inm->listener.count = 0;
	chan_close(inm->main.ch);
	inm->main.ch = NULL;
	inm->main_seen = false;
	if (inm->exec.pidfd >= 0)
		exec_kill(&inm->exec);
}

static void prepare(struct inm *inm)
{
	struct sched *s = &inm->reactor->sched;

	group_init(&inm->root, s, "migration");
	group_init(&inm->arrival, s, "arrival");
	group_init(&inm->loading, s, "loading");
	event_init(&inm->main_there, s, "main channel");
	list_init(&inm->unknown);
	inm->exec.pidfd = -1;
	inm->multifd = (struct multifd){ .opts = &inm->opts,
					 .ram = &inm->ram,
					 .log = &inm->log,
					 .readers = &inm->loading,
					 .failed = note_failure,
					 .failed_opaque = inm };
	multifd_init(&inm->multifd, s);
}

int incoming_start(struct inm *inm, const struct address *addr, struct err *err)
{
	struct tls_options o;
	int e;

	prepare(inm);
	if (inm->opts.tls_creds[0]) {
		o = tls_options_of(&inm->opts);
		e = tls_creds_load(&inm->tls, &o, err);
		if (e < 0)
			return e;
	}
	e = open_address(inm, addr, err);
	if (e < 0) {
		undo_open(inm);
		return e;
	}
	/* The story starts everything else: so there is one thing to start here, and nothing to undo but what was
	 * opened. */
	e = group_spawn(&inm->root, "incoming", incoming_story, inm);
	if (e < 0) {
		undo_open(inm);
		return err_set(err, e, "no memory for a coroutine");
	}
	incoming_set_state(inm, INM_STATE_SETUP);
	return 0;
}
