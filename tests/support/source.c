#include "tests/support/source.h"
#include "tests/support/high_fd.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/be.h"
#include "base/clock.h"

#define GIVE_UP_MS 20000
/* The player gives up by itself; a child that is later than this past it is stuck, and killed. */
#define WAIT_SLACK_NS (10 * NS_PER_S)

/* The state of a player while it plays; the pump has the same parts. */
struct play {
	const struct source_plan *plan;
	int fd;
	size_t len; /* to play */
	uint64_t deadline_ns;
	struct source_report report;
	uint8_t inbuf[1024];
	size_t in_len;
};

/* ---- replies ----------------------------------------------------------------------------------------------- */

/* What has come, taken apart; an incomplete message stays at the front of @buf. */
static void parse_replies(struct source_report *report, uint8_t *buf, size_t *len)
{
	size_t at = 0;

	while (!report->bad_reply) {
		struct wire_reply reply;
		int n = wire_reply_parse(buf + at, *len - at, &reply);

		if (n == 0)
			break;
		if (n < 0 || report->reply_count == SOURCE_REPLIES_MAX) {
			report->bad_reply = true;
			break;
		}
		report->replies[report->reply_count++] = reply;
		at += (size_t)n;
	}
	if (report->bad_reply)
		at = *len;
	memmove(buf, buf + at, *len - at);
	*len -= at;
}

/* Return: whether anything came, the end of the stream included. */
static bool read_replies(int fd, struct source_report *report, uint8_t *buf, size_t cap, size_t *len)
{
	ssize_t n = recv(fd, buf + *len, cap - *len, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR || errno == ENOTSOCK))
		return false;
	if (n <= 0) {
		report->peer_closed = true;
		return true;
	}
	*len += (size_t)n;
	parse_replies(report, buf, len);
	return true;
}

unsigned source_reply_count(const struct source_report *report, uint16_t type)
{
	unsigned count = 0;

	for (unsigned i = 0; i < report->reply_count; i++)
		count += report->replies[i].type == type;
	return count;
}

uint32_t source_reply_value(const struct source_report *report, uint16_t type, unsigned nth)
{
	for (unsigned i = 0; i < report->reply_count; i++)
		if (report->replies[i].type == type && nth-- == 0)
			return be32_load(report->replies[i].payload);
	fprintf(stderr, "there is no such reply of type %u\n", type);
	abort();
}

const char *source_reply_text(const struct source_report *report, char *buf, size_t buf_bytes)
{
	static const char *const names[] = { "?",         "SHUT",        "PONG",       "REQ_PAGES_ID",
		                             "REQ_PAGES", "RECV_BITMAP", "RESUME_ACK", "SWITCHOVER_ACK" };
	size_t at = 0;

	buf[0] = 0;
	for (unsigned i = 0; i < report->reply_count && at < buf_bytes; i++) {
		const struct wire_reply *r = &report->replies[i];

		at += (size_t)snprintf(buf + at, buf_bytes - at, "%s%s", i ? ", " : "", names[r->type]);
		if (r->len == 4 && at < buf_bytes)
			at += (size_t)snprintf(buf + at, buf_bytes - at, " %u", be32_load(r->payload));
	}
	if (report->bad_reply && at < buf_bytes)
		snprintf(buf + at, buf_bytes - at, "%srubbish", at ? ", " : "");
	return buf;
}

/* ---- the child --------------------------------------------------------------------------------------------- */

static void set_nonblocking(int fd)
{
	ASSERT(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0);
}

/* Waits for @events, or for a reply, or until @until_ns. */
static void play_wait(struct play *p, short events, uint64_t until_ns)
{
	uint64_t now = clock_now_ns();
	struct pollfd pfd = { .fd = p->fd, .events = events };
	int ms;

	if (!p->report.peer_closed && p->plan->return_path)
		pfd.events |= POLLIN;
	if (until_ns > p->deadline_ns)
		until_ns = p->deadline_ns;
	ms = until_ns <= now ? 0 : (int)((until_ns - now + NS_PER_MS - 1) / NS_PER_MS);
	if (p->report.peer_closed && !events)
		pfd.fd = -1;
	if (poll(&pfd, 1, ms) > 0 && (pfd.revents & (POLLIN | POLLHUP | POLLERR)))
		if (!read_replies(p->fd, &p->report, p->inbuf, sizeof(p->inbuf), &p->in_len) &&
		    (pfd.revents & (POLLERR | POLLHUP)))
			p->report.peer_closed = true; /* the reader of a pipe is gone */
	p->report.gave_up |= clock_now_ns() >= p->deadline_ns;
}

static void play_pause(struct play *p, unsigned ms)
{
	uint64_t until_ns = deadline_after_ns(ms * NS_PER_MS);

	while (clock_now_ns() < until_ns && !p->report.gave_up)
		play_wait(p, 0, until_ns);
}

/* How far to write before the next pause or the end of the chunk. */
static size_t play_piece(const struct play *p, unsigned next_pause)
{
	size_t at = p->report.written, end = p->len;

	if (next_pause < p->plan->pause_count && p->plan->pauses[next_pause].off < end)
		end = p->plan->pauses[next_pause].off;
	if (p->plan->chunk_bytes && end - at > p->plan->chunk_bytes)
		end = at + p->plan->chunk_bytes;
	return end - at;
}

static void play_write(struct play *p)
{
	unsigned pause = 0;

	while (p->report.written < p->len && !p->report.gave_up) {
		ssize_t n;

		while (pause < p->plan->pause_count && p->plan->pauses[pause].off <= p->report.written)
			play_pause(p, p->plan->pauses[pause++].ms);
		n = write(p->fd, p->plan->wire->data + p->report.written, play_piece(p, pause));
		if (n < 0 && errno != EAGAIN && errno != EINTR) {
			p->report.write_errno = errno;
			return;
		}
		p->report.written += n > 0 ? (size_t)n : 0;
		if (n < 0)
			play_wait(p, POLLOUT, p->deadline_ns);
		else if (p->plan->return_path)
			play_wait(p, POLLOUT, 0);
	}
}

static bool play_has_shut(const struct play *p)
{
	return source_reply_count(&p->report, WIRE_RP_SHUT) > 0;
}

static void play_end(struct play *p)
{
	const struct linger reset = { .l_onoff = 1, .l_linger = 0 };
	bool hold = p->plan->end == SOURCE_END_HOLD;
	bool wait_shut = p->plan->end == SOURCE_END_HONEST && p->plan->return_path;

	/* A destination that refused the stream may have said so before it closed: read that, too. */
	while ((hold || wait_shut || p->report.write_errno) && !p->report.peer_closed && !p->report.gave_up &&
	       !(wait_shut && play_has_shut(p)))
		play_wait(p, 0, p->deadline_ns);
	if (p->plan->end == SOURCE_END_RESET)
		setsockopt(p->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	/* After SHUT nothing may follow: listen a moment longer for what must not come. */
	if (wait_shut && play_has_shut(p))
		play_pause(p, 5);
	close(p->fd);
}

static int play_connect(struct play *p, int (*connect_to)(const char *where), const char *where)
{
	int fd;

	while ((fd = connect_to(where)) < 0 && clock_now_ns() < p->deadline_ns)
		usleep(1000);
	return fd;
}

static int connect_unix(const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) == 0)
		return fd;
	close(fd);
	return -1;
}

static int connect_tcp(const char *where)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST };
	const char *colon = strrchr(where, ':');
	struct addrinfo *ai;
	char host[128];
	int fd, one = 1, space = 1 << 20;

	ASSERT(colon && (size_t)(colon - where) < sizeof(host));
	snprintf(host, sizeof(host), "%.*s", (int)(colon - where), where);
	if (host[0] == '[') { /* [::1] */
		memmove(host, host + 1, strlen(host));
		host[strcspn(host, "]")] = 0;
	}
	ASSERT(getaddrinfo(host, colon + 1, &hints, &ai) == 0);
	fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	/* A whole stream fits in, whatever tcp_wmem is. */
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &space, sizeof(space));
	if (connect(fd, ai->ai_addr, ai->ai_addrlen) < 0) {
		close(fd);
		fd = -1;
	}
	freeaddrinfo(ai);
	return fd;
}

int source_connect(const char *uri, uint32_t host)
{
	const struct sockaddr_in from = { .sin_family = AF_INET, .sin_addr = { htonl(host) } };
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int fd;

	if (!host) {
		fd = strncmp(uri, "unix:", 5) ? connect_tcp(uri + 4) : connect_unix(uri + 5);
		ASSERT(fd >= 0);
		return fd;
	}
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	to.sin_port = htons((uint16_t)strtoul(strrchr(uri, ':') + 1, NULL, 10));
	ASSERT(fd >= 0 && bind(fd, (const struct sockaddr *)&from, sizeof(from)) == 0);
	ASSERT(connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0);
	return fd;
}

/* The child's life: only its end of the pair and of the report pipe stay open, or closing would mean nothing. */
_Noreturn static void child_main(const struct source_plan *plan, const char *uri, int fd, int report_fd)
{
	struct play p = { .plan = plan, .fd = fd, .len = plan->stop_at ? plan->stop_at : plan->wire->len };
	unsigned high = (unsigned)high_number(500);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_IGN);
	report_fd = high_fd(report_fd, 500);
	p.fd = fd < 0 ? -1 : high_fd(fd, 500);
	ASSERT(report_fd == (int)high);
	close_range(3, high - 1, 0);
	close_range(p.fd < 0 ? high + 1 : (unsigned)p.fd + 1, ~0u, 0);
	p.deadline_ns = deadline_after_ns((plan->give_up_ms ? plan->give_up_ms : GIVE_UP_MS) * NS_PER_MS);
	if (uri && !strncmp(uri, "unix:", 5))
		p.fd = play_connect(&p, connect_unix, uri + 5);
	else if (uri)
		p.fd = play_connect(&p, connect_tcp, uri + 4);
	if (p.fd >= 0) {
		set_nonblocking(p.fd);
		play_write(&p);
		play_end(&p);
	} else {
		p.report.gave_up = true;
	}
	/* Smaller than a pipe's buffer: this does not wait for the reader. */
	_exit(write(report_fd, &p.report, sizeof(p.report)) == (ssize_t)sizeof(p.report) ? 0 : 1);
}

static void start_child(struct source *src, const struct source_plan *plan, const char *uri, int fd)
{
	int report[2];

	ASSERT(pipe2(report, O_CLOEXEC) == 0);
	fflush(NULL);
	src->pid = fork();
	ASSERT(src->pid >= 0);
	if (src->pid == 0)
		child_main(plan, uri, fd, report[1]);
	close(report[1]);
	src->report_fd = report[0];
}

void source_play_uri(struct source *src, const struct source_plan *plan, const char *uri)
{
	start_child(src, plan, uri, -1);
}

int source_play_pair(struct source *src, const struct source_plan *plan, enum source_kind kind)
{
	int fds[2]; /* 0: the destination's */

	if (kind == SOURCE_PIPE)
		ASSERT(pipe2(fds, O_CLOEXEC) == 0);
	else
		ASSERT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
	start_child(src, plan, NULL, fds[1]);
	close(fds[1]);
	return fds[0];
}

void source_wait(struct source *src, struct source_report *ret_report)
{
	uint64_t deadline_ns = deadline_after_ns(GIVE_UP_MS * NS_PER_MS + WAIT_SLACK_NS);
	size_t at = 0;
	int status;

	while (at < sizeof(*ret_report)) {
		struct pollfd pfd = { .fd = src->report_fd, .events = POLLIN };
		uint64_t now = clock_now_ns();
		ssize_t n;

		if (now >= deadline_ns || poll(&pfd, 1, (int)((deadline_ns - now) / NS_PER_MS) + 1) == 0)
			kill(src->pid, SIGKILL);
		n = read(src->report_fd, (char *)ret_report + at, sizeof(*ret_report) - at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		at += (size_t)n;
	}
	close(src->report_fd);
	src->report_fd = -1;
	while (waitpid(src->pid, &status, 0) < 0 && errno == EINTR)
		;
	ASSERT(at == sizeof(*ret_report) && status == 0);
}

void source_kill(struct source *src)
{
	kill(src->pid, SIGKILL);
	while (waitpid(src->pid, NULL, 0) < 0 && errno == EINTR)
		;
	close(src->report_fd);
	src->report_fd = -1;
}

/* ---- in the process ---------------------------------------------------------------------------------------- */

int pump_open(struct pump *p, const struct wire *w)
{
	int fds[2];

	ASSERT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
	set_nonblocking(fds[1]);
	*p = (struct pump){ .wire = w, .stop_at = w->len, .fd = fds[1] };
	return fds[0];
}

int pump_connect(struct pump *p, const struct wire *w, const char *uri)
{
	int fd = strncmp(uri, "unix:", 5) ? connect_tcp(uri + 4) : connect_unix(uri + 5);

	if (fd < 0)
		return -errno;
	set_nonblocking(fd);
	*p = (struct pump){ .wire = w, .stop_at = w->len, .fd = fd };
	return 0;
}

void pump_close(struct pump *p)
{
	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
}

static bool pump_write(struct pump *p)
{
	size_t piece = p->stop_at - p->written;
	ssize_t n;

	if (p->chunk_bytes && piece > p->chunk_bytes)
		piece = p->chunk_bytes;
	if (!piece || p->report.write_errno)
		return false;
	n = send(p->fd, p->wire->data + p->written, piece, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n < 0)
		p->report.write_errno = errno;
	else
		p->written += (size_t)n;
	p->report.written = p->written;
	return true;
}

bool pump_step(struct pump *p)
{
	bool moved, close_now;

	if (p->fd < 0)
		return false;
	moved = pump_write(p);
	if (!p->report.peer_closed)
		moved |= read_replies(p->fd, &p->report, p->inbuf, sizeof(p->inbuf), &p->in_len);
	close_now = p->report.peer_closed;
	if (p->written == p->stop_at && p->end == PUMP_SHUTDOWN && !p->ended) {
		shutdown(p->fd, SHUT_WR);
		p->ended = moved = true;
	}
	if (p->written == p->stop_at && p->end == PUMP_HONEST)
		close_now |= !p->return_path || source_reply_count(&p->report, WIRE_RP_SHUT);
	if (p->written == p->stop_at && p->end == PUMP_CLOSE)
		close_now = true;
	if (close_now)
		pump_close(p);
	return moved || close_now;
}
