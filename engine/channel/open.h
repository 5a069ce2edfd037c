/*
 * open.h - from an address to a channel, or to a listener
 *
 * tcp:, unix: and vsock: are listened to. fd:, exec: and file: are one connected channel each: main, and nothing else
 * could ever come there.
 */
#ifndef ENGINE_CHANNEL_OPEN_H
#define ENGINE_CHANNEL_OPEN_H

#include "engine/channel/exec.h"
#include "engine/channel/listener.h"

struct address;
struct chan;
struct err;
struct log;
struct options;
struct reactor;

/* What there is after open_address: a listener with sockets, or a channel. */
struct opened {
	struct listener listener; /* listener.count is 0 where there is none */
	struct chan *ch;          /* owned; NULL where there is a listener */
	struct exec *exec;        /* not owned: whose command @ch reads; NULL where there is none */
};

/**
 * open_address - listen at @addr, or open the one channel it stands for
 * A descriptor in @addr is consumed, also on failure. A name in it is looked up: this blocks.
 * @exec: for the command of exec:, lives until it has been waited for (exec.h)
 * Return: 0; -EINVAL what is there cannot be a stream, in words; else the errno of the call that failed.
 */
int open_address(struct opened *ret, const struct address *addr, struct exec *exec, struct reactor *r,
                 const struct log *log, const struct options *opts, struct err *err);

#endif
