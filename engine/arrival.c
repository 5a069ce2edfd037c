#include "engine/arrival.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "coroutine/io.h"
#include "coroutine/reactor.h"
#include "coroutine/wait.h"
#include "engine/channel/address.h"
#include "engine/channel/channel.h"
#include "engine/channel/open.h"
#include "engine/channel/tls/tls.h"
#include "engine/channel/tls/tls_creds.h"
#include "engine/options/options.h"
#include "engine/options/options_table.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* After an accept that failed for want of descriptors. */
#define ACCEPT_PAUSE_NS (100 * NS_PER_MS)

/* What the command of exec: may still do when its stream has ended well. */
#define EXEC_GRACE_NS (5 * NS_PER_S)

void arrival_init(struct arrival *a)
{
	struct sched *s = &a->reactor->sched;

	group_init(&a->meeting, s, "arrival");
	group_init(&a->acceptors, s, "acceptors");
	line_init(&a->line);
	a->exec.pidfd = -1;
}

static struct arrival_view look(const struct arrival *a)
{
	struct arrival_view view = { .listening = false };

	a->ops->look(a->opaque, &view);
	return view;
}

static bool is_of_main(const struct arrival *a, const char *name)
{
	return a->main->ch && chan_same_peer(name, a->main->ch->name);
}

/* A silent connection of main's host can be the preempt channel. */
static bool has_own_silent(const struct arrival *a)
{
	for (struct list *at = a->line.unknown.next; at != &a->line.unknown; at = at->next) {
		const struct connection *conn = container_of(at, struct connection, node);

		if (conn->silent && conn->hello.got == 0 && !conn->former && is_of_main(a, conn->name))
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
	const struct arrival_view view = look(conn->arrival);

	if (conn->former)
		return err_set(err, -EPROTO, "a page, on a connection from before the loss");
	if (!view.listening)
		return err_set(err, -EPROTO, "a page, before any can have been asked for");
	if (!is_of_main(conn->arrival, conn->name) && has_own_silent(conn->arrival))
		return err_set(err, -EPROTO,
		               "a page, from another host than the source's, which has a connection "
		               "for it");
	return 0;
}

/* Found out what it is, and handed over, or closed. A stranger can neither fail nor delay the migration. */
static int place_connection(struct connection *conn, uint64_t deadline_ns, struct err *err)
{
	struct arrival *a = conn->arrival;
	struct hello *h = &conn->hello;
	struct arrival_view view = look(a);
	enum hello_role role;
	const char *reason;
	int e = 0;

	/* Its bytes and the end of the migration came in the same turn: nobody is left who would close the channel. */
	if (a->meeting.cancelled)
		return -ECANCELED;
	role = hello_decide(&view.state, hello_first(h->first, h->got), &reason);
	if (role == HELLO_UNDECIDED || role == HELLO_REFUSED)
		return err_set(err, -EPROTO, "%s", reason);
	if (role == HELLO_IS_PREEMPT)
		e = check_page(conn, err);
	return e < 0 ? e : a->ops->take(a->opaque, role, h, deadline_ns, err);
}

/* With TLS on, nothing is looked at before the source is verified. */
static may_park int secure(struct arrival *a, struct hello *h, uint64_t deadline_ns, struct err *err)
{
	struct tls_options o = tls_options_of(a->opts);
	struct chan *plain = h->ch;
	char text[TLS_SESSION_TEXT_BYTES];
	int e;

	if (!a->tls)
		return 0;
	h->ch = NULL;
	e = tls_chan_wrap(&h->ch, plain, a->tls, &o, deadline_ns, err);
	if (e == 0)
		log_often(a->log, LOG_CHANNELS, LOG_DEBUG, "%s: %s", h->ch->name, tls_chan_describe(h->ch, text));
	return e;
}

static bool shows_certificate(const struct arrival *a)
{
	return a->tls && tls_options_of(a->opts).type == TLS_CREDS_X509;
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
static bool is_trusted(const struct arrival *a, const struct hello *h)
{
	return look(a).state.main == HELLO_THERE && h != a->main;
}

static may_park int read_first(struct arrival *a, struct hello *h, uint64_t deadline_ns, struct err *err)
{
	int e = hello_read(h, deadline_ns, err);

	if ((e == -ENODATA || e == -ECONNRESET) && shows_certificate(a) && !is_trusted(a, h) && ended_in_silence(h))
		return err_set(err, e,
		               "closed after 0 bytes, right after the TLS handshake: usually this means that "
		               "the source does not trust our certificate (another CA, or not the name it connects "
		               "to); its log says why");
	return e;
}

int arrival_secure(struct arrival *a, struct hello *h, uint64_t deadline_ns, struct err *err)
{
	int e = secure(a, h, deadline_ns, err);

	/* No deadline: what comes by fd: may take its time to begin, also inside TLS. */
	return e == 0 && shows_certificate(a) ? read_first(a, h, DEADLINE_NEVER, err) : e;
}

/*
 * A multifd channel was turned away. Was it the source's, then it has failed or will, and somebody must set
 * multifd-channels (or multifd) to the same on both sides: said where everybody sees it, but not for each of them.
 */
static void say_refused(struct arrival *a, const char *name, const struct err *err)
{
	uint64_t now_ns = clock_now_ns();
	bool again = a->refused_ns && now_ns - a->refused_ns < a->opts->connect_deadline_s * NS_PER_S;

	a->ops->turned_away(a->opaque, err);
	if (!again)
		a->refused_ns = now_ns;
	log_often(a->log, LOG_CONNECTIONS, again ? LOG_INFO : LOG_WARN, "connection from %s closed: %s", name,
	          err->text);
}

/* Silent as yet, it can only be the preempt channel. */
static bool may_be_preempt(const struct connection *conn)
{
	struct arrival_view view = look(conn->arrival);
	const char *reason;

	if (conn->hello.got > 0 || conn->former)
		return false;
	return hello_decide(&view.state, HELLO_NOTHING, &reason) == HELLO_IS_PREEMPT;
}

bool arrival_has_silent(const struct arrival *a)
{
	const bool recovery = look(a).state.recovery;

	for (struct list *at = a->line.unknown.next; at != &a->line.unknown; at = at->next) {
		const struct connection *conn = container_of(at, struct connection, node);

		/* What comes after a main channel that is back early is of its network, not of this one. */
		if (conn->early && !recovery)
			return false;
		if (conn->silent && may_be_preempt(conn))
			return true;
	}
	return false;
}

/* The preempt channel may be silent to its end (doc/wire/stream.md 6): wait for what can be it as long as it can. */
static may_park int await_first(struct connection *conn, uint64_t deadline_ns, struct err *err)
{
	struct arrival *a = conn->arrival;
	int e;

	conn->silent = true;
	a->ops->may_be_preempt(a->opaque);
	do {
		e = read_first(a, &conn->hello, deadline_ns, err);
		deadline_ns = deadline_after_ns(a->opts->connect_deadline_s * NS_PER_S);
	} while (e == -ETIMEDOUT && may_be_preempt(conn));
	conn->silent = false;
	return e;
}

/* It has ended without a byte, and nobody else can be the preempt channel while pages are to come on it. */
static void check_preempt_lost(const struct connection *conn, int result)
{
	struct arrival *a = conn->arrival;
	struct arrival_view view = look(a);
	struct err err = ERR_NONE;

	if (result >= 0 || result == -ECANCELED || result == -EPROTO || !may_be_preempt(conn) ||
	    arrival_has_silent(a) || !view.listening || view.missing_tpages == 0)
		return;
	/* Before RESUME nobody relies on a preempt channel, so this may have been a stranger as well. */
	if (view.state.recovery)
		return;
	err_set(&err, -ENODATA, "the preempt channel has ended with %llu pages missing",
	        (unsigned long long)view.missing_tpages);
	a->ops->lost(a->opaque, -ENODATA, &err);
}

/* See recovery.h. Not longer than anybody else may be unknown. */
static may_park int await_loss(struct connection *conn, uint64_t deadline_ns)
{
	struct arrival *a = conn->arrival;
	struct arrival_view view = look(a);
	int e = 0;

	if (hello_first(conn->hello.first, conn->hello.got) != HELLO_COMMAND || !view.may_pause || view.state.recovery)
		return 0;
	log_often(a->log, LOG_CONNECTIONS, LOG_INFO,
	          "connection from %s: a source that is back, and nothing has failed here; waiting for that",
	          conn->name);
	conn->early = true;
	e = event_wait(a->paused, deadline_ns);
	conn->early = false;
	return e == -ETIMEDOUT ? 0 : e;
}

static int meet_connection(void *arg)
{
	struct connection *conn = arg;
	struct arrival *a = conn->arrival;
	struct hello *h = &conn->hello;
	uint64_t deadline_ns = deadline_after_ns(a->opts->connect_deadline_s * NS_PER_S);
	char name[sizeof(conn->name)];
	struct err err = ERR_NONE;
	bool refused_channel;
	int e;

	conn->co = a->reactor->sched.current;
	e = conn->evicted ? -ECANCELED : 0;
	if (e == 0)
		e = secure(a, h, deadline_ns, &err);
	if (e == 0)
		e = await_first(conn, deadline_ns, &err);
	if (e == 0)
		e = await_loss(conn, deadline_ns);
	/* Also while it waits for its turn in a recovery: what came with it is not of the network that was lost. */
	conn->early = e == 0 && hello_first(h->first, h->got) == HELLO_COMMAND;
	if (e == 0)
		e = a->ops->contend(a->opaque, h, deadline_after_ns(a->opts->connect_deadline_s * NS_PER_S), &err);
	conn->early = false;
	/* Its bytes and its end came in the same turn. */
	if (e == 0 && conn->evicted)
		e = -ECANCELED;
	if (e == 0)
		e = place_connection(conn, deadline_ns, &err);
	refused_channel = e == -EPROTO && hello_first(h->first, h->got) == HELLO_PACKET;
	if (refused_channel)
		say_refused(a, conn->name, &err);
	else if (e < 0 && e != -ECANCELED)
		log_often(a->log, LOG_CONNECTIONS, LOG_INFO, "connection from %s closed: %s", conn->name, err.text);
	check_preempt_lost(conn, e);
	chan_close(h->ch);
	line_leave(&a->line, conn);
	memcpy(name, conn->name, sizeof(name));
	free(conn);
	if (refused_channel)
		a->ops->watch_turned_away(a->opaque, name);
	return 0;
}

/* A source that is back connects main, and the preempt channel beside it, within moments, in any order. */
#define COMPANION_NS (1 * NS_PER_S)

/* Does it belong to a source that was back before the loss showed here? */
static bool is_companion(const struct connection *conn)
{
	const struct arrival *a = conn->arrival;

	for (struct list *at = a->line.unknown.next; at != &a->line.unknown; at = at->next) {
		const struct connection *other = container_of(at, struct connection, node);

		if (other->early && chan_same_peer(other->name, conn->name) &&
		    conn->hello.came_ns + COMPANION_NS >= other->hello.came_ns)
			return true;
	}
	return false;
}

/* Return: when the last one that is left has had its time; 0: none is left. */
static uint64_t evict_former(struct arrival *a, uint64_t age_ns)
{
	uint64_t now_ns = clock_now_ns(), end_ns = 0, last_ns = 0;
	struct list *at, *next;

	for (at = a->line.unknown.next; at != &a->line.unknown; at = next) {
		struct connection *conn = container_of(at, struct connection, node);

		next = at->next;
		if (!conn->former || !conn->silent)
			continue;
		end_ns = conn->hello.came_ns + age_ns;
		if (end_ns <= now_ns)
			line_evict(&a->line, conn);
		else if (end_ns > last_ns)
			last_ns = end_ns;
	}
	return last_ns;
}

static uint64_t former_age_ns(const struct arrival *a)
{
	return a->opts->connect_deadline_s * NS_PER_S / 10;
}

static may_park int forget_former(void *arg)
{
	struct arrival *a = arg;
	uint64_t end_ns;
	int e = 0;

	while (e == 0 && (end_ns = evict_former(a, former_age_ns(a))) > 0)
		e = io_sleep_until(a->reactor, end_ns);
	return 0;
}

/* One that has begun to say where a page lies can be nothing else than the lost network's. */
void arrival_forget_silent(struct arrival *a)
{
	for (struct list *at = a->line.unknown.next; at != &a->line.unknown; at = at->next) {
		struct connection *conn = container_of(at, struct connection, node);

		if (conn->silent && (conn->hello.got == 0 || conn->hello.first[0] == 0) && !is_companion(conn))
			conn->former = true;
	}
	if (evict_former(a, former_age_ns(a)) > 0 &&
	    group_spawn(&a->meeting, "silent connections", forget_former, a) < 0)
		evict_former(a, 0);
}

static void admit(struct arrival *a, struct chan *ch)
{
	struct connection *conn = calloc(1, sizeof(*conn));
	int e = -ENOMEM;

	if (conn) {
		*conn = (struct connection){ .arrival = a, .hello = { .ch = ch, .came_ns = clock_now_ns() } };
		memcpy(conn->name, ch->name, sizeof(conn->name));
		list_init(&conn->node);
		e = group_spawn(&a->meeting, ch->name, meet_connection, conn);
	}
	if (e < 0) {
		log_often(a->log, LOG_CONNECTIONS, LOG_WARN, "connection from %s closed: no memory", ch->name);
		chan_close(ch);
		free(conn);
		return;
	}
	line_join(&a->line, conn);
	/* The channels that are expected may all be unknown at once. */
	if (a->line.count > CONNECTIONS_UNKNOWN_MAX + look(a).multifd_channels)
		line_evict_one(&a->line, a->log);
}

struct acceptor {
	struct arrival *arrival;
	int index;
};

static int accept_connections(void *arg)
{
	struct acceptor own = *(struct acceptor *)arg;
	struct arrival *a = own.arrival;
	struct err err = ERR_NONE;
	struct chan *ch;
	int e;

	free(arg);
	for (;;) {
		e = listener_accept(&a->listener, own.index, a->reactor, a->opts, &ch, &err);
		if (e == 0) {
			admit(a, ch);
			continue;
		}
		if (e == -ECANCELED || a->acceptors.cancelled)
			return -ECANCELED;
		/* Nothing an accept can fail with makes the next one hopeless; but it must not become a busy loop. */
		log_often(a->log, LOG_CONNECTIONS, LOG_WARN, "%s", err.text);
		e = io_sleep_until(a->reactor, deadline_after_ns(ACCEPT_PAUSE_NS));
		if (e < 0)
			return e;
	}
}

static int start_acceptors(struct arrival *a)
{
	struct acceptor *own;
	int e;

	for (int i = 0; i < a->listener.count; i++) {
		own = malloc(sizeof(*own));
		if (!own)
			return -ENOMEM;
		*own = (struct acceptor){ .arrival = a, .index = i };
		e = group_spawn(&a->acceptors, a->listener.sockets[i].text, accept_connections, own);
		if (e < 0) {
			free(own);
			return e;
		}
	}
	return 0;
}

int arrival_start(struct arrival *a)
{
	int e = start_acceptors(a);

	if (e < 0 || a->exec.pidfd < 0)
		return e;
	e = group_spawn(&a->meeting, "exec", exec_wait, &a->exec);
	if (e < 0)
		exec_kill(&a->exec);
	return e;
}

/* fd:, exec: and file: bring main, and nothing else could ever come: say so now, while the source has its guest. */
static int check_single(const struct arrival *a, struct err *err)
{
	static const enum cap need_more[] = { CAP_MULTIFD, CAP_POSTCOPY_PREEMPT };

	for (size_t i = 0; i < sizeof(need_more) / sizeof(need_more[0]); i++)
		if (options_has(a->opts, need_more[i]))
			return err_set(err, -EINVAL,
			               "a single connection, and capability %s needs more than one: listen at tcp:, "
			               "unix: or vsock:, or turn it off on both sides",
			               options_cap_row(need_more[i])->name);
	return 0;
}

static int open_single(struct arrival *a, const struct address *addr, struct hello *ret_single, struct err *err)
{
	struct opened opened;
	int e = open_address(&opened, addr, &a->exec, a->reactor, a->log, a->opts, err);

	if (e == 0)
		*ret_single = (struct hello){ .ch = opened.ch };
	return e;
}

static int open_listener(struct arrival *a, struct listener *ret, const struct address *addr, struct err *err)
{
	struct opened opened;
	int e = open_address(&opened, addr, &a->exec, a->reactor, a->log, a->opts, err);

	if (e == 0)
		*ret = opened.listener;
	return e;
}

static int load_creds(struct arrival *a, struct err *err)
{
	struct tls_options o;

	if (!a->opts->tls_creds[0])
		return 0;
	o = tls_options_of(a->opts);
	return tls_creds_load(&a->tls, &o, err);
}

int arrival_open(struct arrival *a, const struct address *addr, struct hello *ret_single, struct err *err)
{
	int e = load_creds(a, err);

	*ret_single = (struct hello){ .ch = NULL };
	if (e == 0 && address_is_listening(addr))
		return open_listener(a, &a->listener, addr, err);
	if (e == 0)
		e = check_single(a, err);
	if (e == 0)
		return open_single(a, addr, ret_single, err);
	if (addr->kind == ADDRESS_FD)
		close(addr->fd);
	return e;
}

/*
 * The sockets stop to listen at once, so that the same port can be listened to again; their descriptors are closed when
 * nobody accepts on them any more.
 */
static void stop_listening(struct arrival *a)
{
	group_cancel(&a->acceptors);
	listener_shutdown(&a->listener);
	if (a->reopened)
		listener_close(&a->next);
	a->next.count = 0;
	a->reopened = true;
}

int arrival_reopen(struct arrival *a, const struct address *addr, struct hello *ret_single, struct err *err)
{
	*ret_single = (struct hello){ .ch = NULL };
	if (address_is_listening(addr)) {
		stop_listening(a);
		return open_listener(a, &a->next, addr, err);
	}
	if (addr->kind != ADDRESS_FD)
		return err_set(err, -EINVAL, "a source that is back needs answers: tcp, unix, vsock or fd is expected");
	if (a->main->ch) {
		close(addr->fd);
		return err_set(err, -EBUSY, "another main channel is there already");
	}
	return open_single(a, addr, ret_single, err);
}

const char *arrival_address(const struct arrival *a, unsigned index)
{
	const struct listener *l = a->reopened ? &a->next : &a->listener;

	return l->count > 0 && index < (unsigned)l->count ? l->sockets[index].text : NULL;
}

void arrival_move(struct arrival *a)
{
	/* Their coroutines were cancelled. */
	group_join(&a->acceptors);
	listener_close(&a->listener);
	a->listener = a->next;
	a->reopened = false;
	group_init(&a->acceptors, &a->reactor->sched, "acceptors");
	if (start_acceptors(a) < 0)
		log_warn(a->log, "no memory for a coroutine that accepts connections");
}

void arrival_undo(struct arrival *a)
{
	tls_creds_free(a->tls);
	a->tls = NULL;
	listener_close(&a->listener);
	a->listener.count = 0;
	if (a->exec.pidfd >= 0)
		exec_kill(&a->exec);
}

/* The command of exec: has time to end by itself when all went well. */
void arrival_end(struct arrival *a, int result)
{
	if (result == 0 && a->exec.pidfd >= 0)
		io_poll(a->reactor, a->exec.pidfd, POLLIN, deadline_after_ns(EXEC_GRACE_NS));
	group_cancel(&a->acceptors);
	group_cancel(&a->meeting);
	group_join(&a->acceptors);
	group_join(&a->meeting);
	listener_close(&a->listener);
	if (a->reopened)
		listener_close(&a->next);
	tls_creds_free(a->tls);
	a->tls = NULL;
}
