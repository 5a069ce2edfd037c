#include "programs/guest/touch.h"

#include "base/clock.h"
#include "base/text.h"
#include "programs/cli/complain.h"
#include "programs/guest/touch_parts.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

int touch_init(struct touch *t, const struct touch_options *opts)
{
	t->opts = *opts;
	if (sem_init(&t->gate, 0, 0) < 0)
		return -errno;
	t->gate_made = true;
	return 0;
}

static const struct guest_block *choose_block(const struct touch *t, const struct guest_ram *ram)
{
	const struct guest_block *found = NULL;

	for (size_t i = 0; i < ram->count; i++) {
		const struct guest_block *b = &ram->blocks[i];

		if (t->opts.block[0] ? strcmp(b->name, t->opts.block) == 0 : !found || b->bytes > found->bytes)
			found = b;
	}
	return found;
}

/* Memory that costs what is touched of it. */
static void *table_new(uint64_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static int make_tables(struct touch *t)
{
	uint64_t page_cost = sizeof(*t->sums) + t->opts.threads * sizeof(struct touch_stamp);

	t->tracked_pages = TOUCH_MEMORY_MAX / page_cost < t->pages ? TOUCH_MEMORY_MAX / page_cost : t->pages;
	t->sums = table_new(t->tracked_pages * sizeof(*t->sums));
	t->touchers = calloc(t->opts.threads, sizeof(*t->touchers));
	if (!t->sums || !t->touchers)
		return -ENOMEM;
	for (unsigned i = 0; i < t->opts.threads; i++) {
		struct toucher *tc = &t->touchers[i];

		*tc = (struct toucher){ .t = t, .index = i };
		tc->random = (t->opts.seed + i + 1) * 0x9e3779b97f4a7c15ull | 1;
		if (t->opts.access == TOUCH_READ)
			continue;
		tc->stamps = table_new(t->tracked_pages * sizeof(*tc->stamps));
		if (!tc->stamps)
			return -ENOMEM;
	}
	return 0;
}

static int make_threads(struct touch *t)
{
	sigset_t all, before;
	int r = 0;

	/* A signal that a toucher took would wait with it for its page. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	while (r == 0 && t->made < t->opts.threads) {
		r = -pthread_create(&t->touchers[t->made].thread, NULL, touch_walk, &t->touchers[t->made]);
		t->made += r == 0;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

int touch_prepare(struct touch *t, const struct guest_ram *ram)
{
	uint64_t bytes;
	int r;

	t->block = choose_block(t, ram);
	if (!t->block || !t->block->addr || t->block->bytes < TOUCH_PAGE_BYTES) {
		fail("--guest touch: there is no RAM block %s",
		     t->opts.block[0] ? TEXT_QUOTE(t->opts.block, strlen(t->opts.block)) : "of at least a page");
		return -ENOENT;
	}
	bytes = t->opts.span_bytes && t->opts.span_bytes < t->block->bytes ? t->opts.span_bytes : t->block->bytes;
	t->pages = bytes / TOUCH_PAGE_BYTES;
	r = make_tables(t);
	if (r == 0)
		r = make_threads(t);
	if (r < 0)
		fail("--guest touch: %s", strerror(-r));
	return r;
}

static void open_gate(struct touch *t)
{
	for (unsigned i = 0; i < t->opts.threads; i++)
		sem_post(&t->gate);
}

void touch_run(struct touch *t)
{
	if (t->running)
		return;
	t->running = true;
	open_gate(t);
}

void touch_landed(struct touch *t)
{
	atomic_store(&t->landed, true);
}

void touch_ask_stop(struct touch *t)
{
	if (!t->gate_made || atomic_exchange(&t->stop, true))
		return;
	open_gate(t); /* they may not have begun */
}

/* Return: 0 joined, -ETIMEDOUT when it has not come further for so long. */
static int join_one(struct toucher *tc, uint64_t stall_ns)
{
	uint64_t seen = UINT64_MAX, seen_ns = 0, accesses;
	struct timespec ts;

	for (;;) {
		accesses = atomic_load_explicit(&tc->accesses, memory_order_relaxed);
		if (accesses != seen)
			seen_ns = clock_now_ns();
		seen = accesses;
		clock_gettime(CLOCK_REALTIME, &ts);
		ts.tv_nsec += 100 * (long)NS_PER_MS;
		ts.tv_sec += ts.tv_nsec / (long)NS_PER_S;
		ts.tv_nsec %= (long)NS_PER_S;
		if (pthread_timedjoin_np(tc->thread, NULL, &ts) == 0)
			return 0;
		if (stall_ns != DEADLINE_NEVER && clock_now_ns() - seen_ns > stall_ns)
			return -ETIMEDOUT;
	}
}

int touch_join(struct touch *t, uint64_t stall_ns, uint64_t *ret_off)
{
	for (unsigned i = 0; i < t->made; i++) {
		struct toucher *tc = &t->touchers[i];

		if (!tc->joined && join_one(tc, stall_ns) < 0) {
			*ret_off = atomic_load(&tc->page_now) * TOUCH_PAGE_BYTES;
			return -ETIMEDOUT;
		}
		tc->joined = true;
	}
	return 0;
}

void touch_fini(struct touch *t)
{
	uint64_t off;

	if (t->made) {
		touch_ask_stop(t);
		touch_join(t, DEADLINE_NEVER, &off);
	}
	for (unsigned i = 0; t->touchers && i < t->opts.threads; i++) {
		if (t->touchers[i].stamps)
			munmap(t->touchers[i].stamps, t->tracked_pages * sizeof(struct touch_stamp));
	}
	free(t->touchers);
	if (t->sums)
		munmap((void *)t->sums, t->tracked_pages * sizeof(*t->sums));
	if (t->gate_made)
		sem_destroy(&t->gate);
	*t = (struct touch){ 0 };
}

/* ---- numbers ---- */

struct touch_count touch_count(const struct touch *t, unsigned index)
{
	const struct toucher *tc = &t->touchers[index];

	return (struct touch_count){
		.tid = tc->tid,
		.accesses = atomic_load(&tc->accesses),
		.writes = tc->sequence,
		.passes = tc->passes,
		.blocked_ns = tc->latency.total_ns,
	};
}

static void latency_merge(struct touch_latency *into, const struct touch_latency *from)
{
	into->count += from->count;
	into->total_ns += from->total_ns;
	into->max_ns = from->max_ns > into->max_ns ? from->max_ns : into->max_ns;
	for (size_t i = 0; i < TOUCH_OCTAVES * TOUCH_STEPS; i++)
		into->steps[i] += from->steps[i];
}

void touch_totals(const struct touch *t, struct touch_totals *ret)
{
	*ret = (struct touch_totals){ 0 };
	for (unsigned i = 0; i < t->made; i++) {
		const struct toucher *tc = &t->touchers[i];

		ret->accesses += atomic_load(&tc->accesses);
		ret->writes += tc->sequence;
		ret->stamps += tc->stamps_count;
		ret->passes += tc->passes;
		if (tc->end_ns - tc->begin_ns > ret->elapsed_ns)
			ret->elapsed_ns = tc->end_ns - tc->begin_ns;
		latency_merge(&ret->latency, &tc->latency);
	}
	ret->blocked_ns = ret->latency.total_ns;
}

uint64_t touch_latency_ns(const struct touch_latency *l, unsigned per_mille)
{
	return histogram_quantile(l->steps, TOUCH_STEPS, l->max_ns, per_mille);
}
