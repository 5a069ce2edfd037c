/*
 * group.h - structured concurrency: coroutines that do not outlive the block they were started in
 *
 * A group lives in the frame of the coroutine that opens it, and group_join is the only way out of that block: when it
 * returns, every child has ended. So "a thread nobody joins" and "creation races with clean-up" cannot be written.
 *
 * Invariants:
 * (1) group_join returns only when there are no children, whatever happens to the coroutine that waits.
 * (2) The first error a child returns is kept, and cancels its siblings; -ECANCELED counts as an error only if nothing
 *     else went wrong and nobody asked for the cancel.
 * (3) After group_cancel no child is ever started: group_spawn returns -ECANCELED.
 */
#ifndef COROUTINE_GROUP_H
#define COROUTINE_GROUP_H

#include "base/list.h"
#include "coroutine/co.h"

struct group {
	struct sched *sched;
	const char *name;
	struct list children;
	size_t count;
	struct list joiners; /* at most one */
	int first_error;
	bool cancelled;
};

void group_init(struct group *g, struct sched *s, const char *name);

/**
 * group_spawn - start a child
 * Parks: no; the child runs at its turn. Return: 0, -ENOMEM, or -ECANCELED by (3).
 */
int group_spawn(struct group *g, const char *name, co_fn *fn, void *arg);

/* As group_spawn; the deadlock report does not count it (it waits for what may never come). */
int group_spawn_background(struct group *g, const char *name, co_fn *fn, void *arg);

/* Cancel every child, once. May be called again and from anywhere on the thread; parks not. */
void group_cancel(struct group *g);

/**
 * group_join - wait until all children have ended
 * A cancel of the caller is passed on to the children; joining goes on.
 * Parks: yes. Deadline: none; children have their own. Return: 0, the first error of a child, or -ECANCELED.
 */
may_park int group_join(struct group *g);

/* For the thread's own context, which cannot park: has the last child ended? */
static inline bool group_empty(const struct group *g)
{
	return g->count == 0;
}

#endif
