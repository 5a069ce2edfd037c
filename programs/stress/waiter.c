#include "programs/stress/waiter.h"

#include "programs/stress/stress.h"

#include <stdio.h>

struct waiter *waiter_new(struct stress *s, const char *fmt, unsigned number)
{
	struct waiter *w = &s->waiters[s->waiter_count++];

	snprintf(w->name, sizeof(w->name), fmt, number); /* NOLINT: formats of ours */
	w->stress = s;
	return w;
}
