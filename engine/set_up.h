/*
 * set_up.h - a source that has failed, and does not say so
 */
#ifndef ENGINE_SET_UP_H
#define ENGINE_SET_UP_H

#include "coroutine/co.h"

struct inm;

/** set_up_watch - a multifd channel of @name was turned away: does its source fall silent? Parks: until we know. */
may_park void set_up_watch(struct inm *inm, const char *name);

#endif
