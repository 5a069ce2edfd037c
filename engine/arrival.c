#include "engine/arrival.h"

#include "base/clock.h"
#include "base/log.h"
#include "coroutine/io.h"
#include "engine/channel/channel.h"
#include "engine/channel/file.h"
#include "engine/channel/socket.h"
#include "engine/channel/tls/tls.h"
#include "engine/incoming.h"
#include "engine/line.h"
#include "engine/ram/multifd_claims.h"
#include "engine/recovery.h"
#include "engine/switchover.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* After an accept that failed for want of descriptors. */
#define ACCEPT_PAUSE_NS (100 * NS_PER_MS)

/* What the command of exec: may still do when its stream has ended well. */
#define EXEC_GRACE_NS (5 * NS_PER_S)

/* The main channel is found, complete with its first bytes: handed over in one step. */
static void main_arrived(struct inm *inm, const struct hello *h)
{
	inm->main = *h;
	inm->main_seen = true;
	contest_taken(inm);
	log_often(&inm->log, inm->recovering ? LOG_RECOVERIES : LOG_CHANNELS, LOG_INFO, "main channel: %s",
	          h->ch->name);
	event_set(&inm->main_there);
	if (inm->recovering)
		event_set(&inm->postcopy.all_here); /* for the story, which waits for either */
}

static struct hello_state arrival_state(const struct inm *inm)
{
	const struct multifd *m = &inm->multifd;

	return (struct hello_state){
		.tls = inm->tls != NULL,
		.recovery = inm->recovering,
		.main = inm->main_seen ? HELLO_THERE : HELLO_OWED,
		.multifd = m->channels == 0      ? HELLO_OFF :
		           multifd_is_settled(m) ? HELLO_THERE :
		                                   HELLO_OWED,
		.preempt = !options_has(&inm->opts, CAP_POSTCOPY_PREEMPT) ? HELLO_OFF :
		           inm->preempt.ch || inm->preempt_done           ? HELLO_THERE :
		                                                            HELLO_OWED,
	};
}

static bool is_of_main(const struct inm *inm, const char *name)
{
	return inm->main.ch && chan_same_peer(name, inm->main.ch->name);
}

/* A silent connection of main's host can be the preempt channel. */
static bool has_own_silent(const struct inm *inm)
{
	for (struct list *at = inm->unknown.next; at != &inm->unknown; at = at->next) {
		const struct connection *conn = container_of(at, struct connection, node);

		if (conn->silent && conn->hello.got == 0 && !conn->former && is_of_main(inm, conn->name))
			return true;
	}
	return false;
}

/*
 * The preempt channel has no hello: its first bytes are a page (doc/wire/channels.md 1). What cannot be a source's is
 * not taken for it: a page that nobody can have asked for yet, and one from elsewhere when there is who can be it.
 */
static int check_page(const struct connection *conn, struct err *err)
{
	const struct inm *inm = conn->inm;

	if (conn->former)
		return err_set(err, -EPROTO, "a page, on a connection from before the loss");
	if (!inm->postcopy.listening)
		return err_set(err, -EPROTO, "a page, before any can have been asked for");
	if (!is_of_main(inm, conn->name) && has_own_silent(inm))
		return err_set(err, -EPROTO,
		               "a page, from another host than the source's, which has a connection "
		               "for it");
	return 0;
}

/* Found out what it is, and handed over, or closed. A stranger can neither fail nor delay the migration. */
static int place_connection(struct connection *conn, uint64_t deadline_ns, struct err *err)
{
	struct inm *inm = conn->inm;
	struct hello *h = &conn->hello;
	struct hello_state state = arrival_state(inm);
	const char *reason;
	int e;

	/* Its bytes and the end of the migration came in the same turn: nobody is left who would close the channel. */
	if (inm->arrival.cancelled)
		return -ECANCELED;
	switch (hello_decide(&state, hello_first(h->first, h->got), &reason)) {
	case HELLO_IS_MAIN:
		main_arrived(inm, h);
		h->ch = NULL;
		return 0;
	case HELLO_IS_MULTIFD:
		return multifd_join(&inm->multifd, h, deadline_ns, err);
	case HELLO_IS_PREEMPT:
		e = check_page(conn, err);
		return e < 0 ? e : switchover_preempt(inm, h, err);
	default:
		return err_set(err, -EPROTO, "%s", reason);
	}
}

/* With TLS on, nothing is looked at before the source is verified. */
static may_park int secure(struct inm *inm, struct hello *h, uint64_t deadline_ns, struct err *err)
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
		log_often(&inm->log, LOG_CHANNELS, LOG_DEBUG, "%s: %s", h->ch->name, tls_chan_describe(h->ch, text));
	return e;
}

static bool shows_certificate(const struct inm *inm)
{
	return inm->tls && tls_options_of(&inm->opts).type == TLS_CREDS_X509;
}

/*
 * A source looks at our certificate when its handshake is over; one that does not trust it closes then, and that is all
 * we see (doc/wire/channels.md 8.5). Its end is told from an alert, and from a record cut in two, by reading once more:
 * at its end, also after a reset, a channel reads as ended again and again, at once.
 */
static may_park bool ended_in_silence(struct hello *h)
{
	struct err ignored = ERR_NONE;
	char byte;
	struct iovec iov = { &byte, 1 };

	return h->got == 0 && chan_readv(h->ch, &iov, 1, deadline_after_ns(0), &ignored) == 0;
}

/* The main channel came before it, by the same certificate. (That of fd: is there before it has said anything.) */
static bool is_trusted(const struct inm *inm, const struct hello *h)
{
	return inm->main_seen && h != &inm->main;
}

static may_park int read_first(struct inm *inm, struct hello *h, uint64_t deadline_ns, struct err *err)
{
	int e = hello_read(h, deadline_ns, err);

	if ((e == -ENODATA || e == -ECONNRESET) && shows_certificate(inm) && !is_trusted(inm, h) && ended_in_silence(h))
		return err_set(err, e,
		               "closed after 0 bytes, right after the TLS handshake: usually this means that "
		               "the source does not trust our certificate (another CA, or not the name it connects "
		               "to); its log says why");
	return e;
}

int arrival_secure(struct inm *inm, struct hello *h, uint64_t deadline_ns, struct err *err)
{
	int e = secure(inm, h, deadline_ns, err);

	/* No deadline: what comes by fd: may take its time to begin, also inside TLS. */
	return e == 0 && shows_certificate(inm) ? read_first(inm, h, DEADLINE_NEVER, err) : e;
}

/*
 * A multifd channel was turned away. Was it the source's, then it has failed or will, and somebody must set
 * multifd-channels (or multifd) to the same on both sides: said where everybody sees it, but not for each of them.
 */
static void say_refused(struct inm *inm, const char *name, const struct err *err)
{
	uint64_t now_ns = clock_now_ns();
	bool again = inm->refused_ns && now_ns - inm->refused_ns < inm->opts.connect_deadline_s * NS_PER_S;

	snprintf(inm->hint, sizeof(inm->hint), "; refused before: %.120s", err->text);
	if (!again)
		inm->refused_ns = now_ns;
	log_often(&inm->log, LOG_CONNECTIONS, again ? LOG_INFO : LOG_WARN, "connection from %s closed: %s", name,
	          err->text);
}

/* Is main of the source whose channel @name was turned away at @then_ns? A source connects main first. */
static bool is_main_of(const struct inm *inm, const char *name, uint64_t then_ns)
{
	return inm->main.ch && chan_same_peer(inm->main.ch->name, name) && inm->main.came_ns <= then_ns + NS_PER_S;
}

static bool is_in_set_up(const struct inm *inm)
{
	const struct load *l = &inm->load;

	return !l->rounds_begun ||
	       (multifd_has_ended(&inm->multifd) && !inm->multifd.switched && !sections_all_ended(&l->sections));
}

/*
 * QEMU 7.2, whose channel was turned away, has failed and keeps its main channel open and silent. Its silence in the
 * set-up phase, where it has no reason for one, tells; once a round has begun it may pause as it likes, unless one of
 * its other channels has ended and more of RAM is to come. A main channel of another host than the one that was turned
 * away is not looked at: that was a stranger, and the source goes on.
 */
static may_park void watch_set_up(struct inm *inm, const char *name)
{
	uint64_t wait_ns = inm->opts.connect_deadline_s * NS_PER_S, begin_ns = clock_now_ns(), since_ns = begin_ns;
	uint64_t end_ns = begin_ns + 3 * wait_ns, bytes = 0, seen;
	struct err err = ERR_NONE;

	if (inm->set_up_watched)
		return;
	inm->set_up_watched = true;
	while (is_in_set_up(inm) && clock_now_ns() < end_ns) {
		/* It may have become main only now, without a byte more: it was a candidate until its deadline. */
		seen = is_main_of(inm, name, begin_ns) ? inm->main.ch->bytes_in : 0;
		if (seen != bytes || seen == 0) {
			if (bytes > 0)
				since_ns = clock_now_ns();
			bytes = seen;
		} else if (clock_now_ns() - since_ns >= wait_ns) {
			err_set(&err, -EPROTO,
			        "a multifd channel was refused, and the source has sent nothing for %llu s since",
			        (unsigned long long)inm->opts.connect_deadline_s);
			incoming_lost(inm, -EPROTO, &err);
			break;
		}
		if (io_sleep_until(inm->reactor, deadline_after_ns(wait_ns / 8)) < 0)
			break;
	}
	inm->set_up_watched = false;
}

/* Silent as yet, it can only be the preempt channel. */
static bool may_be_preempt(const struct connection *conn)
{
	struct hello_state state = arrival_state(conn->inm);
	const char *reason;

	if (conn->hello.got > 0 || conn->former)
		return false;
	return hello_decide(&state, HELLO_NOTHING, &reason) == HELLO_IS_PREEMPT;
}

bool arrival_has_silent(const struct inm *inm)
{
	for (struct list *at = inm->unknown.next; at != &inm->unknown; at = at->next) {
		const struct connection *conn = container_of(at, struct connection, node);

		/* What is behind a main channel that is back early is of its network, not of this one. */
		if (conn->early && !inm->recovering)
			return false;
		if (conn->silent && may_be_preempt(conn))
			return true;
	}
	return false;
}

/* The preempt channel may be silent to its end (doc/wire/stream.md 6): wait for what can be it as long as it can. */
static may_park int await_first(struct connection *conn, uint64_t deadline_ns, struct err *err)
{
	struct inm *inm = conn->inm;
	int e;

	conn->silent = true;
	event_set(&inm->preempt_news);
	do {
		e = read_first(inm, &conn->hello, deadline_ns, err);
		deadline_ns = deadline_after_ns(inm->opts.connect_deadline_s * NS_PER_S);
	} while (e == -ETIMEDOUT && may_be_preempt(conn));
	conn->silent = false;
	return e;
}

/* It has ended without a byte, and nobody else can be the preempt channel while pages are to come on it. */
static void check_preempt_lost(const struct connection *conn, int result)
{
	struct inm *inm = conn->inm;
	struct err err = ERR_NONE;

	if (result >= 0 || result == -ECANCELED || result == -EPROTO || !may_be_preempt(conn) ||
	    arrival_has_silent(inm) || !inm->postcopy.listening || inm->postcopy.missing_tpages == 0)
		return;
	/* Before RESUME nobody relies on a preempt channel, so this may have been a stranger as well. */
	if (inm->recovering)
		return;
	err_set(&err, -ENODATA, "the preempt channel has ended with %llu pages missing",
	        (unsigned long long)inm->postcopy.missing_tpages);
	incoming_lost(inm, -ENODATA, &err);
}

/* See recovery.h. Not longer than anybody else may be unknown. */
static may_park int await_loss(struct connection *conn, uint64_t deadline_ns)
{
	struct inm *inm = conn->inm;
	int e = 0;

	if (hello_first(conn->hello.first, conn->hello.got) != HELLO_COMMAND || !recovery_is_possible(inm) ||
	    inm->recovering)
		return 0;
	log_often(&inm->log, LOG_CONNECTIONS, LOG_INFO,
	          "connection from %s: a source that is back, and nothing has failed here; waiting for that",
	          conn->name);
	conn->early = true;
	e = event_wait(&inm->paused, deadline_ns);
	conn->early = false;
	return e == -ETIMEDOUT ? 0 : e;
}

static int meet_connection(void *arg)
{
	struct connection *conn = arg;
	struct inm *inm = conn->inm;
	struct hello *h = &conn->hello;
	uint64_t deadline_ns = deadline_after_ns(inm->opts.connect_deadline_s * NS_PER_S);
	char name[sizeof(conn->name)];
	struct err err = ERR_NONE;
	bool refused_channel;
	int e;

	conn->co = inm->reactor->sched.current;
	e = conn->evicted ? -ECANCELED : 0;
	if (e == 0)
		e = secure(inm, h, deadline_ns, &err);
	if (e == 0)
		e = await_first(conn, deadline_ns, &err);
	if (e == 0)
		e = await_loss(conn, deadline_ns);
	/* Also while it waits for its turn in a recovery: what came with it is not of the network that was lost. */
	conn->early = e == 0 && hello_first(h->first, h->got) == HELLO_COMMAND;
	if (e == 0)
		e = contest_enter(inm, h, deadline_after_ns(inm->opts.connect_deadline_s * NS_PER_S), &err);
	conn->early = false;
	/* Its bytes and its end came in the same turn. */
	if (e == 0 && conn->evicted)
		e = -ECANCELED;
	if (e == 0)
		e = place_connection(conn, deadline_ns, &err);
	refused_channel = e == -EPROTO && hello_first(h->first, h->got) == HELLO_PACKET;
	if (refused_channel)
		say_refused(inm, conn->name, &err);
	else if (e < 0 && e != -ECANCELED)
		log_often(&inm->log, LOG_CONNECTIONS, LOG_INFO, "connection from %s closed: %s", conn->name, err.text);
	check_preempt_lost(conn, e);
	chan_close(h->ch);
	line_leave(conn);
	memcpy(name, conn->name, sizeof(name));
	free(conn);
	if (refused_channel && inm->multifd.channels > 0)
		watch_set_up(inm, name);
	return 0;
}

/* A source that is back connects main, and the preempt channel beside it, within moments, in any order. */
#define COMPANION_NS (1 * NS_PER_S)

/* Does it belong to a source that was back before the loss showed here? */
static bool is_companion(const struct connection *conn)
{
	const struct inm *inm = conn->inm;

	for (struct list *at = inm->unknown.next; at != &inm->unknown; at = at->next) {
		const struct connection *other = container_of(at, struct connection, node);

		if (other->early && chan_same_peer(other->name, conn->name) &&
		    conn->hello.came_ns + COMPANION_NS >= other->hello.came_ns)
			return true;
	}
	return false;
}

/* Return: when the last one that is left has had its time; 0: none is left. */
static uint64_t evict_former(struct inm *inm, uint64_t age_ns)
{
	uint64_t now_ns = clock_now_ns(), end_ns = 0, last_ns = 0;
	struct list *at, *next;

	for (at = inm->unknown.next; at != &inm->unknown; at = next) {
		struct connection *conn = container_of(at, struct connection, node);

		next = at->next;
		if (!conn->former || !conn->silent)
			continue;
		end_ns = conn->hello.came_ns + age_ns;
		if (end_ns <= now_ns)
			line_evict(conn);
		else if (end_ns > last_ns)
			last_ns = end_ns;
	}
	return last_ns;
}

static uint64_t former_age_ns(const struct inm *inm)
{
	return inm->opts.connect_deadline_s * NS_PER_S / 10;
}

static may_park int forget_former(void *arg)
{
	struct inm *inm = arg;
	uint64_t end_ns;
	int e = 0;

	while (e == 0 && (end_ns = evict_former(inm, former_age_ns(inm))) > 0)
		e = io_sleep_until(inm->reactor, end_ns);
	return 0;
}

/* One that has begun to say where a page lies can be nothing else than the lost network's. */
void arrival_forget_silent(struct inm *inm)
{
	for (struct list *at = inm->unknown.next; at != &inm->unknown; at = at->next) {
		struct connection *conn = container_of(at, struct connection, node);

		if (conn->silent && (conn->hello.got == 0 || conn->hello.first[0] == 0) && !is_companion(conn))
			conn->former = true;
	}
	if (evict_former(inm, former_age_ns(inm)) > 0 &&
	    group_spawn(&inm->arrival, "silent connections", forget_former, inm) < 0)
		evict_former(inm, 0);
}

static void admit(struct inm *inm, struct chan *ch)
{
	struct connection *conn = calloc(1, sizeof(*conn));
	int e = -ENOMEM;

	if (conn) {
		*conn = (struct connection){ .inm = inm, .hello = { .ch = ch, .came_ns = clock_now_ns() } };
		memcpy(conn->name, ch->name, sizeof(conn->name));
		list_init(&conn->node);
		e = group_spawn(&inm->arrival, ch->name, meet_connection, conn);
	}
	if (e < 0) {
		log_often(&inm->log, LOG_CONNECTIONS, LOG_WARN, "connection from %s closed: no memory", ch->name);
		chan_close(ch);
		free(conn);
		return;
	}
	line_join(conn);
	/* The channels that are expected may all be unknown at once. */
	if (inm->unknown_count > CONNECTIONS_UNKNOWN_MAX + inm->multifd.channels)
		line_evict_one(inm);
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
		if (e == -ECANCELED || inm->acceptors.cancelled)
			return -ECANCELED;
		/* Nothing an accept can fail with makes the next one hopeless; but it must not become a busy loop. */
		log_often(&inm->log, LOG_CONNECTIONS, LOG_WARN, "%s", err.text);
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
		e = group_spawn(&inm->acceptors, inm->listener.sockets[i].text, accept_connections, a);
		if (e < 0) {
			free(a);
			return e;
		}
	}
	return 0;
}

int arrival_start(struct inm *inm)
{
	int e = start_acceptors(inm);

	if (e < 0 || inm->exec.pidfd < 0)
		return e;
	e = group_spawn(&inm->arrival, "exec", exec_wait, &inm->exec);
	if (e < 0)
		exec_kill(&inm->exec);
	return e;
}

/* Not what has no name in any folder (an epoll, an eventfd): the ring might wait there for ever. */
static bool has_stream(mode_t mode)
{
	return S_ISSOCK(mode) || S_ISFIFO(mode) || S_ISREG(mode) || S_ISCHR(mode) || S_ISBLK(mode);
}

/* Others would be waited for in vain: there are no datagrams in a stream, and a listening socket has no bytes. */
static int check_socket(int fd, struct err *err)
{
	int type = SOCK_STREAM, listens = 0;
	socklen_t bytes = sizeof(int);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &bytes) == 0 && type != SOCK_STREAM)
		return err_set(err, -EINVAL, "a socket of messages, and a stream (SOCK_STREAM) is expected");
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &bytes) == 0 && listens)
		return err_set(err, -EINVAL, "a socket that listens, and one that is connected is expected");
	return 0;
}

/* Can a stream be read from it? Said now, while the source has its guest. */
static int check_descriptor(const struct address *addr, int fd, mode_t mode, struct err *err)
{
	int flags = fcntl(fd, F_GETFL);

	if (addr->kind == ADDRESS_FILE && S_ISFIFO(mode))
		return err_set(err, -EINVAL, "a FIFO; 'exec:cat FILE' reads one");
	if (S_ISDIR(mode))
		return err_set(err, -EISDIR, "%s", strerror(EISDIR));
	if (!has_stream(mode))
		return err_set(err, -EINVAL, "neither a socket, a pipe, a file nor a device: there is no stream in it");
	if (flags >= 0 && (flags & O_PATH || (flags & O_ACCMODE) == O_WRONLY))
		return err_set(err, -EBADF, "not open for reading");
	return S_ISSOCK(mode) ? check_socket(fd, err) : 0;
}

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
	e = check_descriptor(addr, fd, st.st_mode, err);
	if (e < 0) {
		close(fd);
		return e;
	}
	if (addr->kind == ADDRESS_FILE)
		snprintf(name, sizeof(name), "file:%.80s", addr->path);
	else
		snprintf(name, sizeof(name), "fd:%d", fd);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	if (addr->kind == ADDRESS_FD && (here = lseek(fd, 0, SEEK_CUR)) > 0)
		off = (uint64_t)here;
	if (S_ISSOCK(st.st_mode)) {
		socket_set_options(fd, &inm->opts, &addr->keepalive);
		e = socket_chan_new(ret_chan, inm->reactor, fd, name);
	} else {
		e = file_chan_new(ret_chan, inm->reactor, fd, off, name);
	}
	return e < 0 ? err_set(err, e, "no memory for a channel") : 0;
}

/* fd:, exec: and file: bring main, and nothing else could ever come: say so now, while the source has its guest. */
static int check_single(const struct inm *inm, struct err *err)
{
	static const enum cap need_more[] = { CAP_MULTIFD, CAP_POSTCOPY_PREEMPT };

	for (size_t i = 0; i < sizeof(need_more) / sizeof(need_more[0]); i++)
		if (options_has(&inm->opts, need_more[i]))
			return err_set(err, -EINVAL,
			               "a single connection, and capability %s needs more than one: listen at tcp:, "
			               "unix: or vsock:, or turn it off on both sides",
			               options_cap_row(need_more[i])->name);
	return 0;
}

int arrival_open(struct inm *inm, const struct address *addr, struct err *err)
{
	struct hello h = { .ch = NULL };
	int e;

	if (address_is_listening(addr))
		return listener_open(&inm->listener, addr, err);
	inm->single = true;
	e = check_single(inm, err);
	if (e < 0) {
		if (addr->kind == ADDRESS_FD)
			close(addr->fd);
		return e;
	}
	if (addr->kind == ADDRESS_EXEC)
		e = exec_start(&inm->exec, inm->reactor, &inm->log, addr->path, &h.ch, err);
	else
		e = open_descriptor(inm, addr, &h.ch, err);
	if (e == 0)
		main_arrived(inm, &h);
	return e;
}

/*
 * The sockets stop to listen at once, so that the same port can be listened to again; their descriptors are closed when
 * nobody accepts on them any more.
 */
static void stop_listening(struct inm *inm)
{
	group_cancel(&inm->acceptors);
	listener_shutdown(&inm->listener);
	if (inm->reopened)
		listener_close(&inm->next);
	inm->next.count = 0;
	inm->reopened = true;
}

int arrival_reopen(struct inm *inm, const struct address *addr, struct err *err)
{
	struct hello h = { .ch = NULL };
	int e;

	if (address_is_listening(addr)) {
		stop_listening(inm);
		return listener_open(&inm->next, addr, err);
	}
	if (addr->kind != ADDRESS_FD)
		return err_set(err, -EINVAL, "a source that is back needs answers: tcp, unix, vsock or fd is expected");
	if (inm->main.ch) {
		close(addr->fd);
		return err_set(err, -EBUSY, "another main channel is there already");
	}
	e = open_descriptor(inm, addr, &h.ch, err);
	if (e == 0)
		main_arrived(inm, &h);
	return e;
}

void arrival_move(struct inm *inm)
{
	/* Their coroutines were cancelled. */
	group_join(&inm->acceptors);
	listener_close(&inm->listener);
	inm->listener = inm->next;
	inm->reopened = false;
	group_init(&inm->acceptors, &inm->reactor->sched, "acceptors");
	if (start_acceptors(inm) < 0)
		log_warn(&inm->log, "no memory for a coroutine that accepts connections");
}

void arrival_undo(struct inm *inm)
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

/* The command of exec: has time to end by itself when all went well. */
void arrival_end(struct inm *inm, int result)
{
	if (result == 0 && inm->exec.pidfd >= 0)
		io_poll(inm->reactor, inm->exec.pidfd, POLLIN, deadline_after_ns(EXEC_GRACE_NS));
	group_cancel(&inm->acceptors);
	group_cancel(&inm->arrival);
	group_join(&inm->acceptors);
	group_join(&inm->arrival);
	listener_close(&inm->listener);
	if (inm->reopened)
		listener_close(&inm->next);
}
