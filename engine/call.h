/*
 * call.h - the frame of a public call: NULL, the wrong thread, and where its failure is told
 *
 *   int inm_set_x(struct inm *inm, ...)
 *   {
 *           struct call call;
 *           int r = call_begin(&call, inm, __func__);
 *
 *           if (r < 0)
 *                   return r;
 *           ...
 *           return call_end(&call, r);
 *   }
 */
#ifndef ENGINE_CALL_H
#define ENGINE_CALL_H

#include "base/err.h"

#include <stdbool.h>

struct inm;

struct call {
	struct inm *inm;
	const char *name;
	int claimed;    /* see claim.h */
	struct err err; /* of what fails between begin and end */
};

/** call_begin - a call that looks or sets. Return: 0; -EINVAL: NULL; -EDEADLK. When negative, there is no call_end. */
int call_begin(struct call *call, struct inm *inm, const char *name);

/** call_begin_run - the same for a call that runs coroutines */
int call_begin_run(struct call *call, struct inm *inm, const char *name);

/** call_end - a failure, with its story in call->err, is kept for inm_error and inm_last_error. Return: @result. */
int call_end(struct call *call, int result);

/* For calls that fail in no way of their own: as call_begin, and call_unlook takes what it has returned. */
int call_look(const struct inm *inm, const char *name);
void call_unlook(const struct inm *inm, int claimed);

#endif
