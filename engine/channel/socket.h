/*
 * socket.h - a channel on a connected stream socket
 */
#ifndef ENGINE_CHANNEL_SOCKET_H
#define ENGINE_CHANNEL_SOCKET_H

#include "engine/channel/channel.h"

struct address_keepalive;
struct options;
struct reactor;

/**
 * socket_chan_new - make a channel of @fd, which it consumes, also on failure
 * @name: for errors and logs, copied
 * Return: 0 or -ENOMEM.
 */
int socket_chan_new(struct chan **ret_chan, struct reactor *r, int fd, const char *name);

/**
 * socket_set_options - for a TCP socket, keepalive and such; others are left alone
 * @keepalive: what the address says comes before what @opts say
 * A source whose host has vanished sends no FIN: without these it would never be missed.
 */
void socket_set_options(int fd, const struct options *opts, const struct address_keepalive *keepalive);

#endif
