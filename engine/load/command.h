/*
 * command.h - command elements of the main stream
 */
#ifndef ENGINE_LOAD_COMMAND_H
#define ENGINE_LOAD_COMMAND_H

#include "coroutine/co.h"

struct err;
struct load;

/**
 * command_read - one command, whose type byte is next, and what it asks for
 * Parks: yes (replies). Return: 0; -EPROTO for one that is malformed, out of place, or asks for something impossible.
 * Source: doc/wire/stream.md 2
 */
may_park int command_read(struct load *l, struct err *err);

#endif
