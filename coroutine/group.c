#include "coroutine/group.h"

#include "base/assert.h"
#include "base/clock.h"

#include <errno.h>

void group_init(struct group *g, struct sched *s, const char *name)
{
	*g = (struct group){ .sched = s, .name = name };
	list_init(&g->children);
	list_init(&g->joiners);
}

static void wake_joiner(struct group *g)
{
	if (g->count == 0 && !list_empty(&g->joiners))
		co_wake(co_of_node(g->joiners.next), 0);
}

/* By (2): -ECANCELED gives way to an error with something to say. */
static bool may_be_error(const struct group *g, int result)
{
	if (result == -ECANCELED)
		return g->first_error == 0 && !g->cancelled;
	return g->first_error == 0 || g->first_error == -ECANCELED;
}

/* On the ending coroutine's stack. */
static void child_ended(struct co *co, int result)
{
	struct group *g = co->group;

	list_unlink(&co->sibling);
	g->count--;
	if (result < 0 && may_be_error(g, result)) {
		g->first_error = result;
		group_cancel(g);
	}
	wake_joiner(g);
}

static int spawn(struct group *g, const char *name, co_fn *fn, void *arg, bool background)
{
	struct co *co;
	int r;

	if (g->cancelled)
		return -ECANCELED; /* by (3) */
	r = co_spawn(g->sched,
	             &(struct co_params){ .name = name,
	                                  .fn = fn,
	                                  .arg = arg,
	                                  .background = background,
	                                  .on_exit = child_ended,
	                                  .group = g },
	             &co);
	if (r < 0)
		return r;
	list_push_tail(&g->children, &co->sibling);
	g->count++;
	return 0;
}

int group_spawn(struct group *g, const char *name, co_fn *fn, void *arg)
{
	return spawn(g, name, fn, arg, false);
}

int group_spawn_background(struct group *g, const char *name, co_fn *fn, void *arg)
{
	return spawn(g, name, fn, arg, true);
}

void group_cancel(struct group *g)
{
	struct list *node;

	if (g->cancelled)
		return;
	g->cancelled = true;
	/* Nobody is removed here: a child is unlinked when it ends, and nothing runs inside this loop. */
	for (node = g->children.next; node != &g->children; node = node->next)
		co_cancel(container_of(node, struct co, sibling));
}

int group_join(struct group *g)
{
	bool interrupted = false;
	int r;

	while (g->count > 0) {
		/* No deadline: by (1) there is no way out but the children's ends, and they have their own. */
		r = co_park(g->sched, &g->joiners, DEADLINE_NEVER, "group", g->name);
		if (r == -ECANCELED) {
			interrupted = true;
			group_cancel(g);
		}
	}
	if (g->first_error == 0)
		return interrupted ? -ECANCELED : 0;
	/* The error is reported first; the cancel is the caller's all the same. */
	if (interrupted && g->first_error != -ECANCELED)
		co_cancel_again(g->sched);
	return g->first_error;
}
