/*
 * callbacks.h - `inmigrate listen` as the library's embedder
 */
#ifndef PROGRAMS_LISTEN_CALLBACKS_H
#define PROGRAMS_LISTEN_CALLBACKS_H

#include "inmigrate.h"

/* Their argument is a struct listen. */
extern const struct inm_ops listen_ops;

/** listen_say_where - a line on standard output for each address that is listened to */
void listen_say_where(const struct inm *inm);

#endif
