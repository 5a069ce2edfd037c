/*
 * listener.h - sockets that connections arrive at
 */
#ifndef ENGINE_CHANNEL_LISTENER_H
#define ENGINE_CHANNEL_LISTENER_H

#include "coroutine/co.h"
#include "engine/channel/address.h"

#include <sys/types.h>
#include <sys/un.h>

struct chan;
struct err;
struct options;
struct reactor;

struct listener_socket {
	int fd;
	char text[ADDRESS_TEXT_BYTES];                              /* "tcp:127.0.0.1:40123", with the real port */
	char path[sizeof(((struct sockaddr_un *)0)->sun_path) + 1]; /* of a unix socket: unlinked at the end; else "" */
	dev_t dev;                                                  /* of path, when it was made */
	ino_t ino;
};

struct listener {
	struct listener_socket sockets[ADDRESS_ENDPOINTS_MAX];
	int count;
	struct address_keepalive keepalive; /* of its connections, as the address says */
};

/* Connections the kernel may hold ready: as many as one migration has, and strangers (doc/wire/channels.md 4.3). */
#define LISTENER_BACKLOG 300

/**
 * listener_open - bind and listen on every socket of @addr
 * A stale unix socket at the path is removed. With to=LAST ports are tried in turn. Blocks on name resolution.
 * Return: 0; the errno of the call that failed, with its name and address.
 */
int listener_open(struct listener *ret, const struct address *addr, struct err *err);

/* Nobody can connect any more, and an accept under way fails. To be closed all the same. */
void listener_shutdown(struct listener *l);

/* The texts stay. May be called again. */
void listener_close(struct listener *l);

/**
 * listener_accept - the next connection on socket @index, as a channel; TCP options: its address's, and else of @opts
 * Parks: yes. Deadline: none; a source may come at any time. Return: 0; -ECANCELED; or the errno of accept(2); some
 * mean nothing for the next one (-ECONNABORTED, -EMFILE: see accept(2)).
 */
may_park int listener_accept(struct listener *l, int index, struct reactor *r, const struct options *opts,
                             struct chan **ret_chan, struct err *err);

#endif
