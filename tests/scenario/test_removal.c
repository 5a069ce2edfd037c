/*
 * The embedder gives memory back, or moves it, while pages of it are missing: a balloon (madvise), mremap, munmap.
 * Memory that was given back reads as zeros; we no longer ask for it, and place no late page there; no thread waits
 * longer.
 */
#include "tests/support/check_main.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/support/huge_pool.h"
#include "tests/support/postcopy_scene.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define PAGES 300
#else
#define PAGES 2000
#endif
#define END_MS 30000
/* What a touch may take while others flood; it takes some milliseconds, and this machine has other things to do. */
#define BOUND_NS (2 * NS_PER_S)

static const struct pc_block memories[][2] = {
	{ { "pc.ram", PAGES, EMB_MEMFD }, { "vga.vram", 65, EMB_MEMFD } },
	{ { "pc.ram", PAGES, EMB_ANON }, { "vga.vram", 65, EMB_ANON } },
	{ { "pc.ram", 4 * 512 + 37, EMB_HUGETLB }, { "vga.vram", 65, EMB_MEMFD } },
};
#define MEMORIES 3

static struct pc_opts in_memory(int nth, struct pc_opts o)
{
	return pc_in_memory(memories[nth], o);
}

/* ---- what goes before anybody touches it ------------------------------------------------------------------------- */

static bool balloon_has_walked(struct pc *s)
{
	return atomic_load(&s->balloon_walks) == s->o.balloon.threads;
}

static void check_not_asked(const struct pc *s)
{
	for (unsigned b = 0; b < s->ram_count; b++)
		for (uint64_t u = 0; u < s->ram[b].units; u++)
			ck_assert_msg(!pc_goes(s, b, u) || !s->ram[b].asked[u],
			              "'%s' unit %llu was removed, and asked for afterwards", s->ram[b].said.name,
			              (unsigned long long)u);
}

static unsigned count_going(const struct pc *s)
{
	unsigned n = 0;

	for (unsigned b = 0; b < s->ram_count; b++)
		for (uint64_t u = 0; u < s->ram[b].units; u++)
			n += pc_goes(s, b, u) && !s->ram[b].precopied[u];
	return n;
}

TEST_CASE("late", 60, HUGE_POOL);

/* Removed, then touched, then sent: what is sent is too late. */
TEST_EACH(test_what_was_removed_is_zeros_is_not_asked_for_and_stays_zeros, MEMORIES)
{
	struct pc_opts o = in_memory(_i, (struct pc_opts){ .precopied = 30,
	                                                   .quiet = true,
	                                                   .preempt = PC_LATE,
	                                                   .touch = { .threads = 4, .held = true },
	                                                   .balloon = { .threads = 2, .percent = 40, .once = true } });
	struct pc s;

	pc_begin(&s, &o);
	pc_switch(&s);
	ck_assert(pc_until(&s, balloon_has_walked, END_MS));
	ck_assert_uint_gt(count_going(&s), 0);
	pc_touch(&s);
	pc_finish(&s);
	check_not_asked(&s);
	pc_check_landed(&s);
	ck_assert_uint_ge(s.e.stats.duplicate_pages, 1); /* of the late ones; zero pages are not all of them */
	pc_end(&s);
}

/* Asked for, then removed: a thread that waits for it goes on, and reads zeros; the answer comes too late. */
TEST_EACH(test_who_waits_for_what_is_removed_goes_on, 2)
{
	const struct pc_touch touch = { .threads = 4, .order = PC_SAME_PAGE };
	struct pc_opts o =
	        in_memory(_i, (struct pc_opts){ .quiet = true,
	                                        .unanswered = true,
	                                        .touch = touch,
	                                        .balloon = { .threads = 1, .percent = 100, .pause_us = 200 } });
	struct pc s;

	pc_begin(&s, &o);
	pc_switch(&s);
	ck_assert_msg(pc_until(&s, pc_touched_all, END_MS), "%lu touched", pc_touched(&s));
	pc_answer(&s);
	pc_finish(&s);
	pc_check_landed(&s);
	ck_assert_uint_eq(s.e.stats.outstanding_faults, 0);
	pc_end(&s);
}

#define RUN 32u

struct remover {
	struct pc_thread thread;
	struct pc *s;
	uint64_t first, end;
	atomic_bool done;
	int error;
};

static void *run_remover(void *arg)
{
	struct remover *r = arg;

	r->error = pc_remove(r->s, 0, r->first, r->end);
	atomic_store(&r->done, true);
	return NULL;
}

/* A run of pages has come, and while some of them are removed the first one cannot be placed. */
static void remove_in_the_middle(struct pc *s, uint64_t first)
{
	struct remover r = { .s = s, .first = first + 2, .end = first + RUN };

	/* No turn of the library's until both are there: it finds the pages first. */
	pc_send_run(s, PC_MAIN, 0, first, first + RUN);
	for (uint64_t i = first; i < first + RUN; i++)
		s->ram[0].sent[i] = 1;
	while (pc_source_step(s))
		;
	pc_thread_start(&r.thread, run_remover, &r);
	usleep(2000);
	while (!atomic_load(&r.done))
		pc_turn(s);
	pc_settle(s);
	pc_thread_join(&r.thread);
	ck_assert_int_eq(r.error, 0);
	pc_check_books(s);
}

TEST_EACH(test_the_rest_of_a_run_may_be_removed_while_its_first_page_waits, 2)
{
	struct pc_opts o = in_memory(_i, (struct pc_opts){ .quiet = true });
	struct pc s;

	pc_begin(&s, &o);
	pc_switch(&s);
	ck_assert(pc_until(&s, pc_vcpus_started, END_MS));
	pc_settle(&s);
	for (uint64_t first = 0; first + RUN <= s.ram[0].units && first < 64 * RUN; first += RUN)
		remove_in_the_middle(&s, first);
	pc_finish(&s);
	pc_check_landed(&s);
	pc_end(&s);
}

/* ---- a flood ----------------------------------------------------------------------------------------------------- */

/*
 * Without a pause there is hardly a moment in which the kernel lets a page be copied: two removals overlap nearly
 * always. Memory that is a file does not need one.
 */
static unsigned pause_of(int memory)
{
	return memories[memory][0].backing == EMB_ANON ? 20 : 0;
}

static struct pc_opts flood(int nth)
{
	return in_memory(
	        nth / 4,
	        (struct pc_opts){ .quiet = nth % 2,
	                          .preempt = PC_LATE,
	                          .main_percent = 30,
	                          .twice_percent = 10,
	                          .touch = { .threads = 4, .order = PC_SCATTERED, .write = nth / 2 % 2, .passes = 3 },
	                          .balloon = { .threads = 2, .percent = 30, .pause_us = pause_of(nth / 4) } });
}

static void check_nobody_waited_long(struct pc *s)
{
	pc_check_landed(s);
	ck_assert_uint_gt(atomic_load(&s->removals), 0);
	ck_assert_msg(pc_worst_touch_ns(s) < BOUND_NS, "a touch took %llu ms beside %lu removals",
	              (unsigned long long)(pc_worst_touch_ns(s) / NS_PER_MS), atomic_load(&s->removals));
	pc_end(s);
}

TEST_CASE("flood", 60, HUGE_POOL);

/* Pages are pushed in runs, asked for, and placed by both channels, and removed all the while. */
TEST_EACH(test_a_flood_of_removals_keeps_nobody_waiting, 4 * MEMORIES)
{
	struct pc_opts o = flood(_i);
	struct pc s;

	pc_begin(&s, &o);
	pc_finish(&s);
	check_nobody_waited_long(&s);
}

TEST_EACH(test_a_flood_of_removals_beside_a_source_of_its_own, 4 * MEMORIES)
{
	struct pc_opts o = flood(_i);
	struct pc s;

	pc_begin(&s, &o);
	pc_run_threaded(&s, END_MS);
	check_nobody_waited_long(&s);
}

/* Nothing is left to place: only the flood is there, and pages that somebody else touches. */
TEST_EACH(test_who_touches_what_stays_is_served_beside_a_flood, MEMORIES)
{
	struct pc_opts o =
	        in_memory(_i, (struct pc_opts){ .quiet = true,
	                                        .preempt = PC_LATE,
	                                        .precopied = 50,
	                                        .touch = { .threads = 1, .order = PC_SCATTERED, .passes = 1 },
	                                        .balloon = { .threads = 2, .percent = 50, .pause_us = pause_of(_i) } });
	struct pc s;

	pc_begin(&s, &o);
	pc_run_threaded(&s, END_MS);
	check_nobody_waited_long(&s);
}

/* ---- the guest view moves ---------------------------------------------------------------------------------------- */

struct mover {
	struct pc_thread thread;
	struct pc *s;
	void *to;
	size_t bytes;
	bool unmap; /* the upper half of it goes, and nothing moves */
	atomic_bool done;
	int error;
};

/* It waits until its event has been read, so it has a thread of its own. */
static void *run_mover(void *arg)
{
	struct mover *m = arg;
	uint8_t *from = m->s->ram[0].emb->guest;

	if (m->unmap)
		m->error = munmap(from + m->bytes / 2, m->bytes / 2) < 0 ? errno : 0;
	else
		m->error = mremap(from, m->bytes, m->bytes, MREMAP_MAYMOVE | MREMAP_FIXED, m->to) != m->to ? errno : 0;
	atomic_store(&m->done, true);
	return NULL;
}

static void move(struct pc *s, struct mover *m)
{
	uint64_t deadline_ns = deadline_after_ns(10 * NS_PER_S);

	pc_thread_start(&m->thread, run_mover, m);
	while (!atomic_load(&m->done) && clock_now_ns() < deadline_ns)
		pc_turn(s);
	ck_assert_msg(atomic_load(&m->done), "it waits for its event to be read");
	pc_settle(s);
	pc_thread_join(&m->thread);
	ck_assert_int_eq(m->error, 0);
}

TEST_CASE("moved", 60, HUGE_POOL);

/* A vCPU would be stopped meanwhile: here nobody has touched anything. Afterwards it is touched at its new place. */
TEST(test_a_guest_view_may_be_moved)
{
	static const struct pc_block blocks[] = { { "pc.ram", 256, EMB_MEMFD }, { "vga.vram", 16, EMB_MEMFD } };
	struct mover m = { .bytes = 256 * PC_PAGE };
	struct pc s;

	pc_begin(&s, &(struct pc_opts){ .blocks = blocks,
	                                .block_count = 2,
	                                .quiet = true,
	                                .look = pc_check_books,
	                                .preempt = PC_LATE,
	                                .precopied = 20,
	                                .touch = { .threads = 2, .held = true, .write = true } });
	m.to = mmap(NULL, m.bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert(m.to != MAP_FAILED);
	m.s = &s;
	pc_switch(&s);
	ck_assert(pc_until(&s, pc_vcpus_started, 5000));
	move(&s, &m);
	s.ram[0].emb->guest = m.to;
	pc_touch(&s);
	pc_finish(&s);
	pc_check_landed(&s);
	ck_assert_uint_gt(s.e.stats.faults, 0);
	pc_end(&s);
}

/* Its name is the peer's, and pretends to be the rest of the line, and another one. */
TEST(test_a_part_that_is_moved_is_told_in_one_printable_line)
{
	static const struct pc_block blocks[] = { { "x\x1b[31m' was moved\nerror: all is well", 64, EMB_MEMFD },
		                                  { "vga.vram", 16, EMB_MEMFD } };
	struct mover m = { .bytes = 32 * PC_PAGE };
	struct pc s;

	pc_begin(&s, &(struct pc_opts){ .blocks = blocks, .block_count = 2, .quiet = true });
	m.to = mmap(NULL, m.bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert(m.to != MAP_FAILED);
	m.s = &s;
	pc_switch(&s);
	ck_assert(pc_until(&s, pc_vcpus_started, 5000));
	move(&s, &m); /* half of it */
	/* Back before the end: the rest of the scene looks at it. */
	ck_assert_ptr_eq(mmap(s.ram[0].emb->guest, m.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
	                      s.ram[0].emb->fd, (off_t)s.ram[0].emb->canary_bytes),
	                 s.ram[0].emb->guest);
	pc_finish(&s);
	ck_assert_msg(strstr(s.said, "part of the guest view of block 'x\\x1b[31m\\x27 was moved\\x0aerror: all "
	                             "is well' was moved; a touch of it may hang\n"),
	              "%s", s.said);
	pc_check_landed(&s);
	munmap(m.to, m.bytes); /* not before: it would wait for its event to be read */
	pc_end(&s);
}

static uint64_t load_word(const void *at)
{
	return *(const volatile uint64_t *)at;
}

struct lower_half {
	struct pc_thread thread;
	struct pc *s;
	uint64_t first, end;
	atomic_uint right, done;
};

/* Downwards: so the pages after a touched page have come, up to those that are no longer mapped as before. */
static void *run_lower_half(void *arg)
{
	struct lower_half *t = arg;

	for (uint64_t i = t->end; i-- > t->first;)
		atomic_fetch_add(&t->right, load_word(pc_guest(t->s, 0, i) + 8) == wire_content_word(0, i, 1));
	atomic_store(&t->done, 1);
	return NULL;
}

/* All of block 0 has come in runs, and not been touched: each page between is shown when it is touched, at once. */
static void touch_what_has_come(struct pc *s, uint64_t first, uint64_t end)
{
	struct lower_half t = { .s = s, .first = first, .end = end };
	uint64_t deadline_ns = deadline_after_ns(5 * NS_PER_S);

	pc_thread_start(&t.thread, run_lower_half, &t);
	while (!atomic_load(&t.done) && clock_now_ns() < deadline_ns)
		pc_turn(s);
	ck_assert_msg(atomic_load(&t.done), "a page that is here is not shown: %u were", atomic_load(&t.right));
	pc_thread_join(&t.thread);
	ck_assert_uint_eq(atomic_load(&t.right), end - first);
}

/*
 * The source sends all of a block that is no longer one mapping, in runs across the seam, and keeps one page of the
 * other block, so that it is still postcopy when the pages are touched.
 */
static void land_across_the_seam(struct pc *s)
{
	for (uint64_t u = 0; u < s->ram[0].units; u++)
		s->ram[0].sent[u] = 0;
	pc_reserve(s, 1, 3);
	pc_push(s);
	pc_settle(s);
	ck_assert_int_eq(s->result, 1);
}

static const struct pc_block seam_blocks[] = { { "pc.ram", 256, EMB_MEMFD }, { "vga.vram", 16, EMB_MEMFD } };

static void begin_at_the_seam(struct pc *s)
{
	pc_begin(s, &(struct pc_opts){ .blocks = seam_blocks,
	                               .block_count = 2,
	                               .quiet = true,
	                               .preempt = PC_LATE,
	                               .look = pc_check_books });
	pc_switch(s);
	ck_assert(pc_until(s, pc_vcpus_started, 5000));
}

static void end_at_the_seam(struct pc *s)
{
	pc_send_unit(s, PC_PREEMPT, 1, 3);
	pc_finish(s);
	pc_check_landed(s);
	pc_end(s);
}

/* An embedder that write-protects a ROM, or advises about a part, has more than one mapping there. */
TEST(test_a_guest_view_of_several_mappings_is_served)
{
	struct pc s;

	begin_at_the_seam(&s);
	ck_assert_int_eq(mprotect(pc_guest(&s, 0, 100), 50 * PC_PAGE, PROT_READ), 0);
	land_across_the_seam(&s);
	touch_what_has_come(&s, 0, 256);
	end_at_the_seam(&s);
}

/* LeakSanitizer looks at what was mapped, when the test ends, and dies of it. */
#define need_unmapping() \
	do { \
		if (WITH_ASAN) \
			test_skip("LeakSanitizer looks into what is unmapped"); \
	} while (0)

TEST(test_what_is_left_of_a_guest_view_is_served)
{
	struct mover m = { .bytes = 256 * PC_PAGE, .unmap = true };
	struct pc s;

	need_unmapping();
	begin_at_the_seam(&s);
	m.s = &s;
	move(&s, &m);
	land_across_the_seam(&s);
	touch_what_has_come(&s, 0, 128);
	end_at_the_seam(&s);
}

/* What was sent for it lands in the file all the same, and what is still mapped is served. */
TEST(test_half_a_guest_view_may_go)
{
	static const struct pc_block blocks[] = { { "pc.ram", 256, EMB_MEMFD }, { "vga.vram", 16, EMB_MEMFD } };
	struct mover m = { .bytes = 256 * PC_PAGE, .unmap = true };
	struct pc s;

	need_unmapping();
	pc_begin(&s, &(struct pc_opts){ .blocks = blocks,
	                                .block_count = 2,
	                                .quiet = true,
	                                .look = pc_check_books,
	                                .preempt = PC_LATE,
	                                .twice_percent = 20 });
	m.s = &s;
	pc_switch(&s);
	ck_assert(pc_until(&s, pc_vcpus_started, 5000));
	move(&s, &m);
	for (uint64_t i = 0; i < 128; i += 3)
		pc_send_unit(&s, i % 2 ? PC_MAIN : PC_PREEMPT, 0, 127 + i % 129);
	pc_finish(&s);
	pc_check_landed(&s);
	pc_end(&s);
}
