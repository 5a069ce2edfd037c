/*
 * channels.h - what a connection turns out to be gets it
 *
 * arrival.h asks here what the migration has and lacks, and hands over what it has found out.
 */
#ifndef ENGINE_CHANNELS_H
#define ENGINE_CHANNELS_H

#include "coroutine/co.h"

struct arrival_ops;
struct err;
struct hello;
struct inm;

/* For inm->arrival. */
extern const struct arrival_ops channels_ops;

/** channels_take_main - the main channel is found, complete with its first bytes; consumes h->ch */
void channels_take_main(struct inm *inm, struct hello *h);

/** channels_secure_main - TLS where nobody has met the main channel yet, which is so for fd:. As arrival_secure. */
may_park int channels_secure_main(struct inm *inm, struct err *err);

#endif
