/* The connections of a postcopy scene's source, inside TLS or not. See postcopy_scene.h. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "tests/support/high_fd.h"
#include "tests/support/postcopy_scene.h"
#include "tests/support/tls_peer.h"

/* ---- inside TLS -------------------------------------------------------------------------------------------------- */

#if HAVE_GNUTLS

/* A line inside TLS: a child that shakes hands on the connection and then carries bytes in both directions. */
struct tls_relay {
	struct tls_peer peer;
	struct tls_peer_plan plan;
	int fd; /* the child's end of the pair */
};

/* tls_peer_start closes what is below. */
#define RELAY_FD_MIN 256

/* Return: whether it goes on. */
static bool relay_in(struct tls_peer *p, int fd)
{
	uint8_t buf[16384];
	ssize_t n = gnutls_record_recv(p->session, buf, sizeof(buf));

	if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED)
		return true;
	return n > 0 && write(fd, buf, (size_t)n) == n;
}

static bool relay_out(struct tls_peer *p, int fd)
{
	uint8_t buf[16384];
	ssize_t n = read(fd, buf, sizeof(buf)), sent;

	for (ssize_t at = 0; at < n; at += sent) {
		sent = gnutls_record_send(p->session, buf + at, (size_t)(n - at));
		if (sent < 0)
			return false;
	}
	return n > 0;
}

static void act_relay(struct tls_peer *p)
{
	const struct tls_relay *r = p->plan->arg;
	struct pollfd fds[2] = { { .fd = p->fd, .events = POLLIN }, { .fd = r->fd, .events = POLLIN } };
	bool on = true;

	while (on) {
		fds[0].revents = POLLIN;
		fds[1].revents = 0;
		if (!gnutls_record_check_pending(p->session) && poll(fds, 2, -1) < 0)
			return;
		if (fds[0].revents)
			on = relay_in(p, r->fd);
		if (on && fds[1].revents)
			on = relay_out(p, r->fd);
	}
}

static int through_tls(struct pc *s, unsigned line, int fd)
{
	struct tls_relay *r = calloc(1, sizeof(*r));
	int pair[2];

	ASSERT(r && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	*r = (struct tls_relay){ .plan = { .kind = TLS_PEER_PSK, .dir = s->tls_dir, .act = act_relay },
		                 .fd = high_fd(pair[1], RELAY_FD_MIN) };
	close(pair[1]);
	r->plan.arg = r;
	s->lines[line].fd = pair[0];
	tls_peer_start(&r->peer, &r->plan, fd);
	close(r->fd);
	s->lines[line].relay = r;
	return pair[0];
}

static void end_tls(struct pc_line *line)
{
	struct tls_peer_report report;

	if (!line->relay)
		return;
	tls_peer_wait(&line->relay->peer, &report);
	free(line->relay);
	line->relay = NULL;
}

#else

static int through_tls(struct pc *s, unsigned line, int fd)
{
	(void)s;
	(void)line;
	return fd;
}

static void end_tls(struct pc_line *line)
{
	(void)line;
}

#endif

/* ---- a line ------------------------------------------------------------------------------------------------------ */

void pc_source_connect(struct pc *s, unsigned line)
{
	static const struct wire nothing;
	struct pump p;

	if (s->lines[line].fd >= 0)
		return;
	ASSERT(pump_connect(&p, &nothing, s->address) == 0);
	s->lines[line].fd = s->o.tls ? through_tls(s, line, p.fd) : p.fd;
	fcntl(s->lines[line].fd, F_SETFL, O_NONBLOCK);
}

void pc_close_line(struct pc *s, unsigned line)
{
	struct pc_line *l = &s->lines[line];

	if (l->fd < 0)
		return;
	close(l->fd);
	l->fd = -1;
	end_tls(l);
}

void pc_lose(struct pc *s)
{
	s->source_closed = true;
	for (unsigned i = 0; i < PC_LINES; i++)
		pc_close_line(s, i);
}
bool pc_flush_line(struct pc_line *l, size_t upto)
{
	size_t piece = l->out.len - l->done;
	ssize_t n;

	if (l->fd < 0 || l->broken || l->sent >= upto)
		return false;
	if (piece > upto - l->sent)
		piece = upto - l->sent;
	if (!piece)
		return false;
	n = send(l->fd, l->out.data + l->done, piece, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n < 0) {
		l->broken = true;
		return true;
	}
	l->done += (size_t)n;
	l->sent += (size_t)n;
	if (l->done == l->out.len)
		l->done = l->out.len = l->out.mark_count = 0;
	return true;
}
