#include "engine/channel/listener.h"

#include "base/clock.h"
#include "base/err.h"
#include "coroutine/io.h"
#include "engine/channel/channel.h"
#include "engine/channel/socket.h"
#include "engine/options/options.h"

#include <errno.h>
#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/*
 * A socket left behind by a process that is gone would make bind fail. One that somebody listens at refuses nothing,
 * and anything that is not a socket is not ours to touch.
 */
static void unlink_stale(const struct sockaddr_un *sa)
{
	struct stat st;
	int fd;

	/* Asked first: to connect to a plain file is ECONNREFUSED, too. */
	if (lstat(sa->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
		return;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return;
	if (connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) < 0 && errno == ECONNREFUSED)
		unlink(sa->sun_path);
	close(fd);
}

/* Only what we bound: somebody may have put another socket there since. */
static void unlink_own(const struct listener_socket *s)
{
	struct stat st;

	if (s->path[0] && lstat(s->path, &st) == 0 && st.st_dev == s->dev && st.st_ino == s->ino)
		unlink(s->path);
}

void listener_close(struct listener *l)
{
	for (int i = 0; i < l->count; i++) {
		if (l->sockets[i].fd < 0)
			continue;
		close(l->sockets[i].fd);
		l->sockets[i].fd = -1;
		unlink_own(&l->sockets[i]);
	}
}

static void set_flag(int fd, int level, int name)
{
	int on = 1;

	setsockopt(fd, level, name, &on, sizeof(on));
}

static int bind_and_listen(int fd, const struct sockaddr *sa, socklen_t sa_bytes)
{
	int r = 0;

	if (bind(fd, sa, sa_bytes) < 0)
		return -errno;
	if (listen(fd, LISTENER_BACKLOG) < 0)
		r = -errno;
	if (r < 0 && sa->sa_family == AF_UNIX)
		unlink(((const struct sockaddr_un *)sa)->sun_path);
	return r;
}

/* Takes @fd, which listens. */
static void add_socket(struct listener *l, int fd, const char *path)
{
	struct listener_socket *s = &l->sockets[l->count++];
	struct sockaddr_storage sa = { 0 };
	socklen_t bytes = sizeof(sa);
	struct stat st;

	s->fd = fd;
	if (path[0] && lstat(path, &st) == 0) {
		snprintf(s->path, sizeof(s->path), "%s", path);
		s->dev = st.st_dev;
		s->ino = st.st_ino;
	}
	getsockname(fd, (struct sockaddr *)&sa, &bytes);
	address_format(s->text, (struct sockaddr *)&sa, bytes);
}

static int open_one(struct listener *l, int family, int protocol, bool v6only, const struct sockaddr *sa,
                    socklen_t sa_bytes, const char *path)
{
	int r, only = v6only, fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, protocol);

	if (fd < 0)
		return -errno;
	if (family == AF_INET || family == AF_INET6)
		set_flag(fd, SOL_SOCKET, SO_REUSEADDR);
	if (family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof(only));
	r = bind_and_listen(fd, sa, sa_bytes);
	if (r < 0) {
		close(fd);
		return r;
	}
	add_socket(l, fd, path);
	return 0;
}

static int open_unix(struct listener *l, const struct address *addr)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };

	/* address_parse has checked that it fits. */
	memcpy(sa.sun_path, addr->path, strlen(addr->path));
	unlink_stale(&sa);
	return open_one(l, AF_UNIX, 0, false, (struct sockaddr *)&sa, sizeof(sa), addr->path);
}

static int open_vsock(struct listener *l, const struct address *addr)
{
	struct sockaddr_vm sa = { .svm_family = AF_VSOCK, .svm_cid = addr->cid, .svm_port = addr->vsock_port };

	return open_one(l, AF_VSOCK, 0, false, (struct sockaddr *)&sa, sizeof(sa), "");
}

/* All sockets of a port, or none: -EADDRINUSE on one means the port is taken. */
static int open_port(struct listener *l, struct address_endpoint *endpoints, int count, uint16_t port)
{
	int r, worst = -EADDRNOTAVAIL;

	for (int i = 0; i < count; i++) {
		address_set_port(&endpoints[i], port);
		r = open_one(l, endpoints[i].sa.ss_family, endpoints[i].protocol, endpoints[i].v6only,
		             (struct sockaddr *)&endpoints[i].sa, endpoints[i].sa_bytes, "");
		if (r == -EADDRINUSE) {
			listener_close(l);
			l->count = 0;
			return r;
		}
		/* A family this machine does not have is no loss while another one works. */
		if (r < 0)
			worst = r;
	}
	return l->count > 0 ? 0 : worst;
}

static int open_tcp(struct listener *l, const struct address *addr, struct err *err)
{
	struct address_endpoint endpoints[ADDRESS_ENDPOINTS_MAX];
	int r, count = address_resolve(addr, endpoints, ADDRESS_ENDPOINTS_MAX, err);
	unsigned port, last;

	if (count < 0)
		return count;
	port = address_get_port((struct sockaddr *)&endpoints[0].sa);
	last = addr->port_last > port ? addr->port_last : port;
	do
		r = open_port(l, endpoints, count, (uint16_t)port);
	while (r == -EADDRINUSE && ++port <= last);
	return r < 0 ? err_set(err, r, "listening: %s", strerror(-r)) : 0;
}

int listener_open(struct listener *ret, const struct address *addr, struct err *err)
{
	struct listener l = { .keepalive = addr->keepalive };
	int r;

	switch (addr->kind) {
	case ADDRESS_TCP:
		r = open_tcp(&l, addr, err);
		break;
	case ADDRESS_UNIX:
		r = open_unix(&l, addr);
		if (r < 0)
			err_set(err, r, "listening: %s", strerror(-r));
		break;
	case ADDRESS_VSOCK:
		r = open_vsock(&l, addr);
		if (r < 0)
			err_set(err, r, "listening: %s", strerror(-r));
		break;
	default:
		r = err_set(err, -EINVAL, "not an address to listen on");
		break;
	}
	if (r < 0)
		return r;
	*ret = l;
	return 0;
}

void listener_shutdown(struct listener *l)
{
	for (int i = 0; i < l->count; i++)
		if (l->sockets[i].fd >= 0)
			shutdown(l->sockets[i].fd, SHUT_RDWR);
}

int listener_accept(struct listener *l, int index, struct reactor *r, const struct options *opts,
                    struct chan **ret_chan, struct err *err)
{
	const struct listener_socket *s = &l->sockets[index];
	struct sockaddr_storage sa = { 0 };
	socklen_t bytes = sizeof(sa);
	char peer[ADDRESS_TEXT_BYTES], name[sizeof(((struct chan *)0)->name)];
	/* No deadline: a source may come at any time, and waiting for it costs nothing. */
	int fd = io_accept(r, s->fd, (struct sockaddr *)&sa, &bytes, SOCK_CLOEXEC, DEADLINE_NEVER);

	if (fd < 0)
		return err_set(err, fd, "accepting on %s: %s", s->text, strerror(-fd));
	socket_set_options(fd, opts, &l->keepalive);
	if (sa.ss_family == AF_UNIX)
		snprintf(name, sizeof(name), "%.90s", s->text);
	else
		snprintf(name, sizeof(name), "%.90s", address_format(peer, (struct sockaddr *)&sa, bytes));
	return socket_chan_new(ret_chan, r, fd, name) < 0 ? err_set(err, -ENOMEM, "no memory for a connection") : 0;
}
