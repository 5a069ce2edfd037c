#include "programs/stress/phases.h"

#include "base/clock.h"
#include "coroutine/co.h"
#include "coroutine/io.h"
#include "postcopy/postcopy.h"
#include "programs/stress/stress.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>

enum stress_phase phase_next(struct stress *s, unsigned *seen)
{
	enum stress_phase phase;

	pthread_mutex_lock(&s->phase_lock);
	while (s->phase_number == *seen)
		pthread_cond_wait(&s->phase_changed, &s->phase_lock);
	*seen = s->phase_number;
	phase = s->phase;
	pthread_mutex_unlock(&s->phase_lock);
	return phase;
}

static void tell_conductor(struct stress *s)
{
	/* Cannot fail: it would have to be read less than once in 2^64 writes. */
	if (eventfd_write(s->arrived_fd, 1) < 0)
		abort();
}

void phase_done(struct stress *s)
{
	pthread_mutex_lock(&s->phase_lock);
	if (++s->arrived == s->participants)
		tell_conductor(s);
	pthread_mutex_unlock(&s->phase_lock);
}

void phase_give_up(struct stress *s)
{
	atomic_store(&s->given_up, true);
	atomic_store(&s->stop, true);
	tell_conductor(s);
}

void phase_begin(struct stress *s, enum stress_phase phase)
{
	pthread_mutex_lock(&s->phase_lock);
	s->phase = phase;
	s->phase_number++;
	s->arrived = 0;
	atomic_store(&s->touching, phase == PHASE_TOUCH ? s->opts.touchers : 0);
	pthread_cond_broadcast(&s->phase_changed);
	pthread_mutex_unlock(&s->phase_lock);
}

static bool all_arrived(struct stress *s)
{
	bool all;

	pthread_mutex_lock(&s->phase_lock);
	all = s->arrived == s->participants;
	pthread_mutex_unlock(&s->phase_lock);
	return all;
}

may_park int phase_await(struct stress *s)
{
	eventfd_t n;
	ssize_t r;

	while (!all_arrived(s)) {
		/* No deadline: the watcher finds who does not come. */
		r = io_read(s->reactor, s->arrived_fd, &n, sizeof(n), RING_OFF_CURRENT, DEADLINE_NEVER);
		if (r < 0)
			return (int)r;
		/* Wakes threads that wait for a page. */
		if (atomic_load(&s->given_up))
			postcopy_end(s->pc);
	}
	return 0;
}
