#include "programs/stress/events.h"

#include "base/clock.h"
#include "programs/stress/block.h"
#include "programs/stress/check.h"
#include "programs/stress/kinds.h"
#include "programs/stress/phases.h"
#include "programs/stress/random.h"
#include "programs/stress/story.h"
#include "programs/stress/stress.h"
#include "programs/stress/waiter.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* A balloon gives back a run of pages; a huge page at a time. */
#define REMOVE_UNITS_MAX 16u

struct events {
	struct stress *s;
	uint64_t random;
	uint64_t next_ns[EVENT_COUNT];
};

bool events_any(const struct stress *s)
{
	for (unsigned e = 0; e < EVENT_COUNT; e++)
		if (s->opts.event_rate[e] > 0)
			return true;
	return false;
}

static struct sblock *choose(struct events *ev, enum stress_role role)
{
	struct sblock *fits[BLOCKS_MAX];
	unsigned count = 0;

	for (unsigned i = 0; i < ev->s->block_count; i++)
		if (ev->s->blocks[i].role == role)
			fits[count++] = &ev->s->blocks[i];
	return count ? fits[random_next(&ev->random) % count] : NULL;
}

/* ---- remove ---- */

static void count_removals(_Atomic uint32_t *counts, uint32_t page, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		atomic_fetch_add(&counts[page + i], 1);
}

static void remove_some(struct events *ev)
{
	struct stress *s = ev->s;
	struct sblock *sb = choose(ev, ROLE_STEADY);
	uint32_t units = sb->pages / sb->unit_pages, count, page;
	uint32_t most = sb->unit_pages > 1 ? 1 : REMOVE_UNITS_MAX;
	uint8_t *at;
	int r;

	page = (uint32_t)(random_next(&ev->random) % units) * sb->unit_pages;
	count = (uint32_t)(random_next(&ev->random) % most + 1) * sb->unit_pages;
	if (count > sb->pages - page)
		count = sb->pages - page;
	at = atomic_load(&sb->guest) + (uint64_t)page * TPAGE_BYTES;
	pthread_mutex_lock(&s->rival_lock);
	count_removals(sb->removes_begun, page, count);
	pthread_mutex_unlock(&s->rival_lock);
	story_add(s, sb, page, count, STORY_REMOVES, 0);
	waiter_begins(s->remover, sb, page, clock_now_ns());
	/* Memory that is shared stays in its file at MADV_DONTNEED: a balloon gives it back by MADV_REMOVE. */
	r = madvise(at, (size_t)count * TPAGE_BYTES, sblock_is_anonymous(sb) ? MADV_DONTNEED : MADV_REMOVE);
	waiter_ends(s->remover);
	if (r < 0) {
		check_failed(s, "a removal in '%s': %s", sb->name, strerror(errno));
		return;
	}
	count_removals(sb->removes_done, page, count);
	story_add(s, sb, page, count, STORY_REMOVED, 0);
}

/* ---- unmap and remap ---- */

/* No new thread comes in, and those in there get out: the source keeps sending pages. Return: false at the end. */
static bool drain(struct stress *s, struct slot *slot)
{
	atomic_fetch_add(&slot->users, SLOT_CLOSED);
	while (atomic_load(&slot->users) != SLOT_CLOSED) {
		if (atomic_load(&s->stop) && atomic_load(&s->touching) == 0)
			return false;
		usleep(50);
	}
	return true;
}

static void reopen(struct slot *slot)
{
	atomic_fetch_sub(&slot->users, SLOT_CLOSED);
}

static void unmap_one(struct events *ev)
{
	struct stress *s = ev->s;
	struct sblock *sb = choose(ev, ROLE_UNPLUG);
	unsigned i = (unsigned)(random_next(&ev->random) % sb->slot_count);
	struct slot *slot = &sb->slots[i];
	uint64_t off = slot_begin(sb, i), bytes = slot_begin(sb, i + 1) - off;
	void *p;

	if (slot->gone || bytes == 0)
		return;
	if (!drain(s, slot)) {
		reopen(slot);
		return;
	}
	/* In one step something inaccessible: a hole would be taken by the next thread that maps anything. */
	waiter_begins(s->remover, sb, (uint32_t)(off / TPAGE_BYTES), clock_now_ns());
	p = mmap(atomic_load(&sb->guest) + off, bytes, PROT_NONE,
	         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	waiter_ends(s->remover);
	if (p == MAP_FAILED)
		check_failed(s, "unmapping a part of '%s': %s", sb->name, strerror(errno));
	slot->gone = true;
	story_add(s, sb, (uint32_t)(off / TPAGE_BYTES), (uint32_t)(bytes / TPAGE_BYTES), STORY_UNPLUGGED, 0);
}

static void remap_one(struct events *ev)
{
	struct stress *s = ev->s;
	struct sblock *sb = choose(ev, ROLE_MOVING);
	uint64_t bytes = (uint64_t)sb->pages * TPAGE_BYTES, align = 2ul << 20;
	uint8_t *from = atomic_load(&sb->guest), *space, *to = MAP_FAILED;

	if (align < sb->hpage_bytes)
		align = sb->hpage_bytes;
	space = mmap(NULL, bytes + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (space == MAP_FAILED || !drain(s, &sb->slots[0]))
		goto out;
	to = (uint8_t *)(((uintptr_t)space + align - 1) / align * align);
	waiter_begins(s->remover, sb, 0, clock_now_ns());
	to = mremap(from, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	waiter_ends(s->remover);
	/* What the library could not place for long it lets go of (postcopy/show.c), and that splits the mapping: then
	 * it cannot be moved as a whole (EFAULT), and stays. */
	if (to == MAP_FAILED && errno != EFAULT) {
		check_failed(s, "moving '%s': %s", sb->name, strerror(errno));
	} else if (to != MAP_FAILED) {
		atomic_store(&sb->guest, to);
		story_add(s, sb, 0, sb->pages, STORY_MOVED, 0);
	}
out:
	/* What is left of the reservation around it. */
	if (space != MAP_FAILED && to == MAP_FAILED) {
		munmap(space, bytes + align);
	} else if (space != MAP_FAILED) {
		if (to > space)
			munmap(space, (size_t)(to - space));
		munmap(to + bytes, (size_t)(space + align - to));
	}
	if (atomic_load(&sb->slots[0].users) >= SLOT_CLOSED)
		reopen(&sb->slots[0]);
}

/* ---- fork ---- */

static void fork_one(struct events *ev)
{
	pid_t pid = fork();

	if (pid == 0) {
		/* Long enough to be in the way: until then every page is shared with it. */
		usleep(1000);
		_exit(0);
	}
	if (pid < 0) {
		check_failed(ev->s, "fork: %s", strerror(errno));
		return;
	}
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

/* ---- when ---- */

static void (*const event_do[EVENT_COUNT])(struct events *ev) = {
	[EVENT_REMOVE] = remove_some, [EVENT_UNMAP] = unmap_one, [EVENT_REMAP] = remap_one, [EVENT_FORK] = fork_one
};

static uint64_t interval_ns(struct events *ev, enum stress_event e)
{
	/* Between nothing and twice the mean. */
	return (uint64_t)(random_unit(&ev->random) * 2e9 / ev->s->opts.event_rate[e]);
}

static enum stress_event next_event(const struct events *ev)
{
	enum stress_event next = 0;

	for (unsigned e = 0; e < EVENT_COUNT; e++)
		if (ev->next_ns[e] < ev->next_ns[next])
			next = (enum stress_event)e;
	return next;
}

static bool wait_until(const struct stress *s, uint64_t at_ns)
{
	uint64_t now_ns;

	while (atomic_load(&s->touching) > 0) {
		now_ns = clock_now_ns();
		if (now_ns >= at_ns)
			return true;
		/* Not long: the phase may end. */
		usleep(at_ns - now_ns > NS_PER_MS ? 1000 : (useconds_t)((at_ns - now_ns) / NS_PER_US));
	}
	return false;
}

static void events_phase(struct events *ev)
{
	enum stress_event e;

	while (e = next_event(ev), wait_until(ev->s, ev->next_ns[e])) {
		event_do[e](ev);
		ev->s->result.events[e]++;
		/* From now on: one that could not keep up does not catch up, which would be a flood. */
		ev->next_ns[e] = clock_now_ns() + interval_ns(ev, e);
	}
}

void *events_main(void *arg)
{
	struct stress *s = arg;
	struct events ev = { .s = s, .random = mix64(s->opts.seed ^ 0x6576656e7473ull) };
	enum stress_phase phase;
	unsigned seen = 0;

	atomic_store(&s->remover->tid, (uint32_t)gettid());
	for (unsigned e = 0; e < EVENT_COUNT; e++)
		ev.next_ns[e] = s->opts.event_rate[e] > 0 ? clock_now_ns() + interval_ns(&ev, e) : DEADLINE_NEVER;
	while ((phase = phase_next(s, &seen)) != PHASE_END) {
		if (phase == PHASE_TOUCH)
			events_phase(&ev);
		phase_done(s);
	}
	return NULL;
}
