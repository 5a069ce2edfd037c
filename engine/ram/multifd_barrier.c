#include "engine/ram/multifd_barrier.h"

#include "base/clock.h"
#include "base/err.h"
#include "engine/ram/multifd.h"
#include "engine/ram/multifd_channel.h"

#include <errno.h>

/* By (2) of multifd.h. */
int multifd_barrier_wait(struct multifd_channel *c)
{
	struct multifd *m = c->m;

#ifdef CONTROL_NO_SYNC
	return 0; /* only in the control of test_multifd, which must then fail */
#endif
	if (m->switched)
		return 0;
	c->at_sync = true;
	m->at_sync++;
	event_set(&m->changed);
	/* No deadline: the main stream may take as long as it likes to come here, and if it fails it cancels us. */
	return semaphore_acquire(&c->go, DEADLINE_NEVER);
}

/* A channel that has ended without its SYNC will never send it. */
static int check_ended(const struct multifd *m, struct err *err)
{
	for (unsigned i = 0; i < m->channels; i++) {
		const struct multifd_channel *c = m->slots[i];

		if (multifd_channel_has_ended(c))
			return err_set(err, -ENODATA, "channel %u: the source closed it before RAM was complete", i);
	}
	return 0;
}

int multifd_barrier_await(struct multifd *m, struct err *err)
{
	uint64_t bytes;
	int e = 0;

#ifdef CONTROL_NO_SYNC
	return 0; /* as in multifd_barrier_wait */
#endif
	while (m->at_sync < m->channels) {
		e = check_ended(m, err);
		if (e < 0)
			return e;
		bytes = m->counts.bytes;
		event_clear(&m->changed);
		e = event_wait(&m->changed, deadline_after_ns(MULTIFD_STALL_NS));
		if (e == -ETIMEDOUT && bytes == m->counts.bytes)
			return err_set(err, e,
			               "no byte on any multifd channel for %llu s; %u of %u are at the sync point",
			               MULTIFD_STALL_NS / NS_PER_S, m->at_sync, m->channels);
		if (e < 0 && e != -ETIMEDOUT)
			return e;
	}
	return 0;
}

void multifd_barrier_open(struct multifd *m)
{
	for (unsigned i = 0; i < m->channels; i++) {
		struct multifd_channel *c = m->slots[i];

		if (c && c->at_sync) {
			c->at_sync = false;
			semaphore_release(&c->go);
		}
	}
	m->at_sync = 0;
}
