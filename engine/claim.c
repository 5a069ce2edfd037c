#include "engine/claim.h"

#include "base/err.h"

#include <errno.h>
#include <unistd.h>

void claim_init(struct claim *c)
{
	*c = (struct claim){ .holder = 0 };
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->given_back, NULL);
}

void claim_fini(struct claim *c)
{
	pthread_cond_destroy(&c->given_back);
	pthread_mutex_destroy(&c->lock);
}

static bool is_nested(const struct claim *c, pid_t self)
{
	return __atomic_load_n(&c->holder, __ATOMIC_RELAXED) == self;
}

/* With the lock: waits for calls that look, by (3). Return: -EDEADLK when the holder runs. */
static int take(struct claim *c, pid_t self, struct err *err)
{
	while (c->holder != 0 && !c->running)
		pthread_cond_wait(&c->given_back, &c->lock);
	if (c->holder != 0)
		return err_set(err, -EDEADLK, "the migration is being run on another thread (%d)", (int)c->holder);
	__atomic_store_n(&c->holder, self, __ATOMIC_RELAXED);
	return CLAIMED;
}

/* With the lock. */
static int become_runner(struct claim *c, pid_t self, struct err *err)
{
	if (c->owner != 0 && c->owner != self)
		return err_set(err, -EDEADLK, "the reactor belongs to another thread (%d), the first one that ran it",
		               (int)c->owner);
	c->owner = self;
	c->running = true;
	return 0;
}

int claim_look(struct claim *c, struct err *err)
{
	pid_t self = gettid();
	int r;

	if (is_nested(c, self))
		return CLAIMED_NESTED;
	pthread_mutex_lock(&c->lock);
	r = take(c, self, err);
	pthread_mutex_unlock(&c->lock);
	return r;
}

int claim_to_run(struct claim *c, struct err *err)
{
	int r;

	pthread_mutex_lock(&c->lock);
	r = become_runner(c, c->holder, err);
	/* Calls that wait for one that looks hear that it runs now. */
	pthread_cond_broadcast(&c->given_back);
	pthread_mutex_unlock(&c->lock);
	return r;
}

int claim_run(struct claim *c, struct err *err)
{
	int r;

	if (is_nested(c, gettid()))
		return err_set(err, -EDEADLK, "called from a callback");
	r = claim_look(c, err);
	if (r < 0)
		return r;
	r = claim_to_run(c, err);
	if (r < 0)
		claim_leave(c, CLAIMED);
	return r < 0 ? r : CLAIMED;
}

void claim_leave(struct claim *c, int claimed)
{
	if (claimed != CLAIMED)
		return;
	pthread_mutex_lock(&c->lock);
	c->running = false;
	__atomic_store_n(&c->holder, 0, __ATOMIC_RELAXED);
	pthread_cond_broadcast(&c->given_back);
	pthread_mutex_unlock(&c->lock);
}
