/*
 * file.h - a channel that reads a pipe or a file: one way, no return path
 */
#ifndef ENGINE_CHANNEL_FILE_H
#define ENGINE_CHANNEL_FILE_H

#include "engine/channel/channel.h"

struct reactor;

/**
 * file_chan_new - read @fd from @off on; consumes @fd, also on failure
 * @off: ignored for what has no offsets (pipes, terminals)
 * Return: 0, -ENOMEM.
 */
int file_chan_new(struct chan **ret_chan, struct reactor *r, int fd, uint64_t off, const char *name);

#endif
