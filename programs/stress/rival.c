#include "programs/stress/rival.h"

#include "postcopy/postcopy.h"
#include "programs/stress/block.h"
#include "programs/stress/content.h"
#include "programs/stress/phases.h"
#include "programs/stress/random.h"
#include "programs/stress/story.h"
#include "programs/stress/stress.h"
#include "programs/stress/waiter.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/ioctl.h>

struct copy_args {
	uint64_t dst, src, len, mode;
	int64_t copy;
};

static int rival_place(struct stress *s, struct sblock *sb, uint32_t page, uint8_t *bytes)
{
	uint64_t addr = (uintptr_t)atomic_load(&sb->guest) + (uint64_t)page * TPAGE_BYTES;
	struct copy_args c = { .dst = addr, .src = (uintptr_t)bytes, .len = TPAGE_BYTES, .mode = 1 };
	struct uffdio_continue k = { .range = { addr, sb->hpage_bytes }, .mode = UFFDIO_CONTINUE_MODE_DONTWAKE };

	if (!sblock_is_anonymous(sb))
		return ioctl(s->pc->guest.fd, UFFDIO_CONTINUE, &k) < 0 ? -errno : 0;
	content_make(s, sb, page, s->round, bytes);
	return ioctl(s->pc->guest.fd, UFFDIO_COPY, &c) < 0 ? -errno : 0;
}

static void rival_turn(struct stress *s, uint64_t *random, uint8_t *bytes)
{
	struct waiter *w = &s->waiters[random_next(random) % s->opts.touchers];
	uint32_t page = atomic_load(&w->page);
	struct sblock *sb = &s->blocks[atomic_load(&w->block)];
	int r = -EBUSY;

	/* Not huge pages: half of one may be here. */
	if (!atomic_load(&w->since_ns) || page >= sb->pages || sb->role != ROLE_STEADY || sb->unit_pages > 1)
		return;
	/* Somebody has asked for it, so an answer will come. And nobody has removed it: its content is no longer
	 * wanted then. */
	pthread_mutex_lock(&s->rival_lock);
	if (atomic_load(&sb->due_ns[page / sb->unit_pages]) && atomic_load(&sb->removes_begun[page]) == 0)
		r = rival_place(s, sb, page, bytes);
	pthread_mutex_unlock(&s->rival_lock);
	if (r < 0)
		return;
	s->result.rival_placed++;
	story_add(s, sb, page, sb->unit_pages, STORY_RIVAL, 0);
}

void *rival_main(void *arg)
{
	struct stress *s = arg;
	uint64_t random = mix64(s->opts.seed ^ 0x726976616cull);
	_Alignas(64) uint8_t bytes[TPAGE_BYTES];
	unsigned seen = 0;
	enum stress_phase phase;

	while ((phase = phase_next(s, &seen)) != PHASE_END) {
		while (phase == PHASE_TOUCH && atomic_load(&s->touching) > 0) {
			rival_turn(s, &random, bytes);
			sched_yield();
		}
		phase_done(s);
	}
	return NULL;
}
