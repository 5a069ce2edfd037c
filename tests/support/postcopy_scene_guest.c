/* The guest of a postcopy scene: threads that touch its memory while it arrives. See postcopy_scene.h. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "tests/support/postcopy_scene.h"

/* ThreadSanitizer keeps some 900 KiB of it for itself. */
#define STACK_BYTES (1u << 20)
/* Words of a page that are compared at each touch; and where thread i has its stamp. */
#define FIRST_WORD 1u
#define LAST_WORD 510u
/* Prime, so that a walk by this stride comes everywhere. */
#define SCATTER 7919u

uint8_t *pc_guest(struct pc *s, unsigned block, uint64_t tpage)
{
	return s->ram[block].emb->guest + tpage * PC_PAGE;
}

uint64_t pc_stamp(unsigned block, uint64_t tpage, unsigned thread)
{
	return 0x5700000000000000ull | (uint64_t)thread << 48 | (uint64_t)block << 40 | tpage;
}

static uint64_t all_pages(const struct pc *s)
{
	uint64_t n = 0;

	for (unsigned b = 0; b < s->ram_count; b++)
		n += s->ram[b].said.pages;
	return n;
}

static void note_wrong(struct pc *s, unsigned block, uint64_t tpage, uint64_t found, uint64_t expected)
{
	if (atomic_load(&s->lost) || atomic_fetch_add(&s->wrong, 1))
		return;
	snprintf(s->wrong_text, sizeof(s->wrong_text), "block %u, page %llu: 0x%llx instead of 0x%llx", block,
	         (unsigned long long)tpage, (unsigned long long)found, (unsigned long long)expected);
}

static enum pc_removal removal_of(const struct pc *s, unsigned block, uint64_t tpage)
{
	return (enum pc_removal)__atomic_load_n(&s->ram[block].removed[tpage], __ATOMIC_SEQ_CST);
}

/* What was sent, or zeros: while it is being removed both are right. */
static void look_at(struct pc *s, unsigned block, uint64_t tpage, unsigned word)
{
	volatile const uint64_t *words = (volatile const uint64_t *)pc_guest(s, block, tpage);
	enum pc_removal before = removal_of(s, block, tpage);
	uint64_t found = words[word], expected = wire_content_word(block, tpage, word);
	enum pc_removal after = removal_of(s, block, tpage);

	if (before == PC_REMOVED ? found == 0 : found == expected || (found == 0 && after != PC_KEPT))
		return;
	note_wrong(s, block, tpage, found, before == PC_REMOVED ? 0 : expected);
}

static void stamp_page(struct pc_toucher *t, unsigned block, uint64_t tpage)
{
	struct pc *s = t->s;
	volatile uint64_t *word = (volatile uint64_t *)pc_guest(s, block, tpage) + PC_STAMP_WORD(t->id);
	uint8_t *stamped = s->ram[block].stamped[t->id];
	uint64_t expected =
	        stamped[tpage] ? pc_stamp(block, tpage, t->id) : wire_content_word(block, tpage, PC_STAMP_WORD(t->id));
	uint64_t found = *word;

	if (found != expected && removal_of(s, block, tpage) == PC_KEPT)
		note_wrong(s, block, tpage, found, expected);
	*word = pc_stamp(block, tpage, t->id);
	stamped[tpage] = 1;
}

static void touch_page(struct pc_toucher *t, unsigned block, uint64_t tpage)
{
	struct pc *s = t->s;
	uint64_t began_ns = clock_now_ns(), took_ns;

	atomic_store(&t->block, block);
	atomic_store(&t->tpage, tpage);
	atomic_store(&t->since_ns, began_ns);
	look_at(s, block, tpage, FIRST_WORD);
	look_at(s, block, tpage, LAST_WORD);
	if (s->o.touch.write)
		stamp_page(t, block, tpage);
	atomic_store(&t->since_ns, 0);
	took_ns = clock_now_ns() - began_ns;
	if (took_ns > atomic_load(&t->worst_ns))
		atomic_store(&t->worst_ns, took_ns);
	atomic_fetch_add(&t->touched, 1);
}

/* The @nth page that this thread comes to. */
static uint64_t page_nth(const struct pc_toucher *t, uint64_t nth, uint64_t count)
{
	uint64_t first = count * t->id / t->s->o.touch.threads;

	switch (t->s->o.touch.order) {
	case PC_UPWARDS:
		return (first + nth) % count;
	case PC_DOWNWARDS:
		return (first + count - nth) % count;
	case PC_SCATTERED:
		return (first + nth * SCATTER) % count;
	default:
		return nth;
	}
}

static void touch_nth(struct pc_toucher *t, uint64_t page)
{
	unsigned block = 0;

	while (page >= t->s->ram[block].said.pages)
		page -= t->s->ram[block++].said.pages;
	touch_page(t, block, page);
}

static void *run_toucher(void *arg)
{
	struct pc_toucher *t = arg;
	struct pc *s = t->s;
	uint64_t count = all_pages(s);
	unsigned passes = s->o.touch.passes ? s->o.touch.passes : 1;

	atomic_store(&t->tid, gettid());
	while (s->o.touch.held && !atomic_load(&s->go) && !atomic_load(&s->stop))
		usleep(500);
	for (unsigned pass = 0; pass < passes; pass++)
		for (uint64_t i = 0; i < count && !atomic_load(&s->stop); i++)
			touch_nth(t, page_nth(t, i, count));
	atomic_fetch_add(&s->touchers_done, 1);
	return NULL;
}

static unsigned count_tasks(void)
{
	DIR *dir = opendir("/proc/self/task");
	unsigned n = 0;

	ASSERT(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

void pc_guest_begin(struct pc *s)
{
	ASSERT(s->o.touch.threads <= PC_THREADS_MAX);
	for (unsigned b = 0; b < s->ram_count; b++)
		for (unsigned i = 0; i < s->o.touch.threads; i++) {
			s->ram[b].stamped[i] = calloc(1, s->ram[b].said.pages);
			ASSERT(s->ram[b].stamped[i]);
		}
}

void pc_thread_start(struct pc_thread *t, void *(*run)(void *arg), void *arg)
{
	pthread_attr_t attr;

	/* A stack of ours: the C library keeps its own, guards and all, and the census would see them. */
	t->stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT(t->stack != MAP_FAILED);
	ASSERT(pthread_attr_init(&attr) == 0 && pthread_attr_setstack(&attr, t->stack, STACK_BYTES) == 0);
	t->tasks_before = count_tasks();
	ASSERT(pthread_create(&t->thread, &attr, run, arg) == 0);
	pthread_attr_destroy(&attr);
}

void pc_thread_join(struct pc_thread *t)
{
	uint64_t deadline_ns = deadline_after_ns(2 * NS_PER_S);

	pthread_join(t->thread, NULL);
	munmap(t->stack, STACK_BYTES);
	/* A joined thread is listed for a moment longer. */
	while (count_tasks() > t->tasks_before && clock_now_ns() < deadline_ns)
		usleep(200);
}

void pc_touch(struct pc *s)
{
	atomic_store(&s->go, true);
}

/* ---- the balloon ------------------------------------------------------------------------------------------------- */

static void set_removal(struct pc *s, unsigned block, uint64_t first, uint64_t end, enum pc_removal to)
{
	struct pc_ram *ram = &s->ram[block];

	for (uint64_t i = first * ram->unit_pages; i < end * ram->unit_pages && i < ram->said.pages; i++)
		__atomic_store_n(&ram->removed[i], (uint8_t)to, __ATOMIC_SEQ_CST);
}

int pc_remove(struct pc *s, unsigned block, uint64_t first, uint64_t end)
{
	struct pc_ram *ram = &s->ram[block];
	int r;

	/* What has been removed before is zeros, and stays so. */
	for (uint64_t u = first; u < end; u++)
		if (removal_of(s, block, u * ram->unit_pages) != PC_REMOVED)
			set_removal(s, block, u, u + 1, PC_BEING_REMOVED);
	r = madvise(pc_guest(s, block, first * ram->unit_pages), (end - first) * ram->unit_pages * PC_PAGE,
	            ram->said.backing == EMB_ANON ? MADV_DONTNEED : MADV_REMOVE);
	if (r < 0)
		return -errno;
	set_removal(s, block, first, end, PC_REMOVED);
	atomic_fetch_add(&s->removals, 1);
	return 0;
}

bool pc_goes(const struct pc *s, unsigned block, uint64_t unit)
{
	return ((unit + 1) * (block + 3) * 2246822519u >> 7) % 100 < s->o.balloon.percent;
}

static void remove_from(struct pc_toucher *t, unsigned block)
{
	struct pc *s = t->s;
	uint64_t units = s->ram[block].units;

	for (uint64_t nth = t->id; nth < units && !atomic_load(&s->stop); nth += s->o.balloon.threads) {
		uint64_t unit = s->o.touch.order == PC_UPWARDS ? units - 1 - nth : nth;

		if (!pc_goes(s, block, unit))
			continue;
		ASSERT(pc_remove(s, block, unit, unit + 1) == 0);
		if (s->o.balloon.pause_us)
			usleep(s->o.balloon.pause_us);
	}
}

static void *run_balloon(void *arg)
{
	struct pc_toucher *t = arg;
	struct pc *s = t->s;

	do {
		for (unsigned b = 0; b < s->ram_count; b++)
			remove_from(t, b);
		atomic_fetch_add(&s->balloon_walks, 1);
	} while (!s->o.balloon.once && !atomic_load(&s->stop) && atomic_load(&s->touchers_done) < s->o.touch.threads);
	return NULL;
}

static void start_balloons(struct pc *s)
{
	for (unsigned i = 0; i < s->o.balloon.threads; i++) {
		struct pc_toucher *t = &s->balloons[s->balloon_count++];

		t->s = s;
		t->id = i;
		pc_thread_start(&t->thread, run_balloon, t);
	}
}

/* ---- all of them ------------------------------------------------------------------------------------------------- */

void pc_guest_start(struct pc *s)
{
	start_balloons(s);
	for (unsigned i = 0; i < s->o.touch.threads; i++) {
		struct pc_toucher *t = &s->touchers[s->toucher_count++];

		t->s = s;
		t->id = i;
		pc_thread_start(&t->thread, run_toucher, t);
	}
}

void pc_guest_end(struct pc *s)
{
	while (s->toucher_count)
		pc_thread_join(&s->touchers[--s->toucher_count].thread);
	while (s->balloon_count)
		pc_thread_join(&s->balloons[--s->balloon_count].thread);
}

uint64_t pc_worst_touch_ns(const struct pc *s)
{
	uint64_t worst_ns = 0;

	for (unsigned i = 0; i < PC_THREADS_MAX; i++)
		if (atomic_load(&s->touchers[i].worst_ns) > worst_ns)
			worst_ns = atomic_load(&s->touchers[i].worst_ns);
	return worst_ns;
}

unsigned long pc_touched(const struct pc *s)
{
	unsigned long n = 0;

	for (unsigned i = 0; i < PC_THREADS_MAX; i++)
		n += atomic_load(&s->touchers[i].touched);
	return n;
}

/* A stamp in a page that was removed is gone, or was written afterwards: @found is right in both. */
static void expected_page(const struct pc *s, unsigned block, uint64_t tpage, const uint8_t *found, uint8_t *page)
{
	bool removed = s->ram[block].removed[tpage] != PC_KEPT;

	if (removed)
		memset(page, 0, PC_PAGE);
	else
		wire_content(page, block, tpage);
	for (unsigned i = 0; i < s->o.touch.threads; i++) {
		uint64_t stamp = pc_stamp(block, tpage, i);

		if (s->ram[block].stamped[i][tpage] && !(removed && memcmp(found + PC_STAMP_WORD(i) * 8, &stamp, 8)))
			memcpy(page + PC_STAMP_WORD(i) * 8, &stamp, 8);
	}
}

static unsigned first_difference(const uint8_t *a, const uint8_t *b)
{
	unsigned i = 0;

	while (a[i] == b[i])
		i++;
	return i;
}

unsigned pc_compare(struct pc *s)
{
	uint8_t page[PC_PAGE];
	unsigned bad = 0;

	for (unsigned b = 0; b < s->ram_count; b++) {
		const struct pc_ram *ram = &s->ram[b];

		for (uint64_t i = 0; i < ram->said.pages; i++) {
			const uint8_t *found = ram->emb->host + i * PC_PAGE;
			unsigned at;

			expected_page(s, b, i, found, page);
			if (!memcmp(found, page, PC_PAGE) || bad++ >= 5)
				continue;
			at = first_difference(found, page);
			fprintf(stderr, "%s page %llu at byte %u: %02x, not %02x\n", ram->said.name,
			        (unsigned long long)i, at, found[at], page[at]);
		}
	}
	return bad;
}
