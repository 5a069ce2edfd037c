#include "tests/support/tls_source.h"

#if HAVE_GNUTLS

#include "base/assert.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define GIVE_UP_S 60

/* ---- the child -------------------------------------------------------------------------------------------------- */

static int connect_to(const struct tls_source_plan *plan)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	const char *port = strrchr(plan->address, ':');
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ASSERT(port && fd >= 0);
	sa.sin_port = htons((uint16_t)strtoul(port + 1, NULL, 10));
	if (plan->send_buffer_bytes)
		ASSERT(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &plan->send_buffer_bytes, sizeof(int)) == 0);
	ASSERT(connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0);
	return fd;
}

static void say(int fd, enum tls_source_step step)
{
	char c = (char)step;

	ASSERT(write(fd, &c, 1) == 1);
}

/* Where interval @nth ends: after the SYNC packet and what follows it, or with the wire. */
static size_t interval_end(const struct wire *w, unsigned nth, unsigned count)
{
	return nth < count ? wire_find(w, "interval", nth) : w->len;
}

/*
 * Interval by interval, and main before all: the destination reads no channel beyond a sync point that the others have
 * not reached, so a source that sends one channel to its end before the next would wait forever.
 */
static void send_all(const struct multifd_honest *h, struct tls_peer *main, struct tls_peer *channels, size_t *sent)
{
	tls_peer_send(main, h->main.data, h->main.len);
	for (unsigned nth = 0; nth <= h->syncs; nth++)
		for (unsigned i = 0; i < h->count; i++) {
			size_t end = interval_end(&h->channels[i], nth, h->syncs);

			tls_peer_send(&channels[i], h->channels[i].data + sent[i], end - sent[i]);
			sent[i] = end;
		}
}

static void child_main(const struct tls_source_plan *plan, int to, int from)
{
	struct tls_peer main, channels[TLS_SOURCE_CHANNELS_MAX];
	size_t sent[TLS_SOURCE_CHANNELS_MAX] = { 0 };
	struct tls_source_report report = { 0 };
	const struct multifd_honest *h = plan->h;
	char c;

	ASSERT(h->count <= TLS_SOURCE_CHANNELS_MAX);
	tls_peer_shake(&main, &plan->tls, connect_to(plan));
	ASSERT(main.report.handshake == 0);
	for (unsigned i = 0; i < h->count; i++) {
		tls_peer_shake(&channels[i], &plan->tls, connect_to(plan));
		ASSERT(channels[i].report.handshake == 0);
		sent[i] = WIRE_MULTIFD_HELLO_BYTES;
		tls_peer_send(&channels[i], h->channels[i].data, sent[i]);
	}
	say(to, TLS_SOURCE_READY);
	ASSERT(read(from, &c, 1) == 1);
	send_all(h, &main, channels, sent);
	for (unsigned i = 0; i < h->count; i++) {
		int unread = 0;

		ASSERT(ioctl(channels[i].fd, FIONREAD, &unread) == 0);
		report.unread_bytes += (size_t)unread;
		report.sent_bytes += sent[i];
		close(channels[i].fd);
	}
	say(to, TLS_SOURCE_CLOSED);
	tls_peer_until_closed(&main);
	ASSERT(write(to, &report, sizeof(report)) == sizeof(report));
}

/* ---- the test's side -------------------------------------------------------------------------------------------- */

void tls_source_start(struct tls_source *src, const struct tls_source_plan *plan)
{
	int to[2], from[2]; /* seen from the child */

	ASSERT(pipe2(to, O_CLOEXEC) == 0 && pipe2(from, O_CLOEXEC) == 0);
	fflush(NULL);
	src->pid = fork();
	ASSERT(src->pid >= 0);
	if (src->pid == 0) {
		alarm(GIVE_UP_S);
		/* The destination's ends must not be held open here. */
		for (int i = 3; i < 256; i++)
			if (i != to[1] && i != from[0])
				close(i);
		child_main(plan, to[1], from[0]);
		_exit(0);
	}
	close(to[1]);
	close(from[0]);
	src->from = to[0];
	src->to = from[1];
	src->step = TLS_SOURCE_STARTED;
}

enum tls_source_step tls_source_step(struct tls_source *src, int ms)
{
	struct pollfd pfd = { .fd = src->from, .events = POLLIN };
	char c;

	if (src->step < TLS_SOURCE_CLOSED && poll(&pfd, 1, ms) > 0) {
		ASSERT(read(src->from, &c, 1) == 1); /* or it is dead */
		src->step = (enum tls_source_step)c;
	}
	return src->step;
}

void tls_source_go(struct tls_source *src)
{
	ASSERT(write(src->to, "g", 1) == 1);
}

void tls_source_wait(struct tls_source *src, struct tls_source_report *ret_report)
{
	int status;

	while (tls_source_step(src, -1) != TLS_SOURCE_CLOSED)
		;
	ASSERT(read(src->from, ret_report, sizeof(*ret_report)) == sizeof(*ret_report));
	close(src->from);
	close(src->to);
	ASSERT(waitpid(src->pid, &status, 0) == src->pid && status == 0);
}

#else

/* A translation unit is not empty. */
extern const int tls_source_without_gnutls;
const int tls_source_without_gnutls;

#endif
