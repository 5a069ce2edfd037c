/* The guest of a postcopy scene: threads that touch its memory while it arrives. See postcopy_scene.h. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "tests/support/postcopy_scene.h"

#define STACK_BYTES (256u << 10)
/* Words of a page that are compared at each touch; and where thread i has its stamp. */
#define FIRST_WORD 1u
#define LAST_WORD 510u
#define STAMP_WORD(thread) (16u + (thread) * 8u)
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

static bool is_removed(const struct pc *s, unsigned block, uint64_t tpage)
{
	return __atomic_load_n(&s->ram[block].removed[tpage], __ATOMIC_ACQUIRE);
}

static void touch_page(struct pc_toucher *t, unsigned block, uint64_t tpage)
{
	struct pc *s = t->s;
	volatile uint64_t *words = (volatile uint64_t *)pc_guest(s, block, tpage);
	static const unsigned looked_at[] = { FIRST_WORD, LAST_WORD };
	uint8_t *stamped = s->ram[block].stamped[t->id];

	for (unsigned i = 0; i < 2; i++) {
		uint64_t found = words[looked_at[i]], expected = wire_content_word(block, tpage, looked_at[i]);

		if (found != expected && !(found == 0 && is_removed(s, block, tpage)))
			note_wrong(s, block, tpage, found, expected);
	}
	if (s->o.touch.write) {
		uint64_t expected = stamped[tpage] ? pc_stamp(block, tpage, t->id) :
						     wire_content_word(block, tpage, STAMP_WORD(t->id));
		uint64_t found = words[STAMP_WORD(t->id)];

		if (found != expected)
			note_wrong(s, block, tpage, found, expected);
		words[STAMP_WORD(t->id)] = pc_stamp(block, tpage, t->id);
		stamped[tpage] = 1;
	}
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

void pc_guest_start(struct pc *s)
{
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
}

unsigned long pc_touched(const struct pc *s)
{
	unsigned long n = 0;

	for (unsigned i = 0; i < PC_THREADS_MAX; i++)
		n += atomic_load(&s->touchers[i].touched);
	return n;
}

static void expected_page(const struct pc *s, unsigned block, uint64_t tpage, uint8_t *page)
{
	if (s->ram[block].removed[tpage])
		memset(page, 0, PC_PAGE);
	else
		wire_content(page, block, tpage);
	for (unsigned i = 0; i < s->o.touch.threads; i++) {
		uint64_t stamp = pc_stamp(block, tpage, i);

		if (s->ram[block].stamped[i][tpage])
			memcpy(page + STAMP_WORD(i) * 8, &stamp, 8);
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

			expected_page(s, b, i, page);
			if (!memcmp(found, page, PC_PAGE) || bad++ >= 5)
				continue;
			at = first_difference(found, page);
			fprintf(stderr, "%s page %llu at byte %u: %02x, not %02x\n", ram->said.name,
			        (unsigned long long)i, at, found[at], page[at]);
		}
	}
	return bad;
}
