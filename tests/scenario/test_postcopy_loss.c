/*
 * The network fails while the guest is in two halves: at each record's end and in the middle of one, on either channel
 * or on both. The result is a pause, which says which channel; threads that wait for a page keep waiting; only the
 * embedder gives up.
 */
#include "tests/support/check_main.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/support/huge_pool.h"
#include "tests/support/postcopy_scene.h"

#define THREADS 3u
/* That come after RUN, before the loss, by turns on main and on preempt. */
#define PAGES_SENT 6u
/* A turn of the library must not block; it takes microseconds. */
#define TURN_NS NS_PER_S

static const struct pc_block memories[][2] = {
	{ { "pc.ram", 64, EMB_MEMFD }, { "vga.vram", 16, EMB_ANON } },
	{ { "pc.ram", 64, EMB_ANON }, { "vga.vram", 16, EMB_MEMFD } },
	{ { "pc.ram", 2 * 512, EMB_HUGETLB }, { "vga.vram", 16, EMB_MEMFD } },
};
#define MEMORIES 3

enum cut { CUT_MAIN, CUT_PREEMPT, CUT_BOTH, CUTS };
#define LOSSES (MEMORIES * CUTS)

static void cut(struct pc *s, enum cut which)
{
	s->source_closed = true;
	if (which != CUT_PREEMPT)
		pc_close_line(s, PC_MAIN);
	if (which != CUT_MAIN)
		pc_close_line(s, PC_PREEMPT);
}

/* Only the preempt channel is called by its name; of both, whichever is noticed first. */
static bool names_it(const char *error, enum cut which)
{
	bool preempt = strstr(error, "the preempt channel");

	return which == CUT_BOTH || preempt == (which == CUT_PREEMPT);
}

static struct pc_opts opts_of(int memory)
{
	return pc_in_memory(memories[memory],
	                    (struct pc_opts){ .preempt = PC_LATE,
	                                      .quiet = true,
	                                      .unanswered = true,
	                                      .modern = memory % 2,
	                                      .touch = { .threads = THREADS, .order = PC_DOWNWARDS } });
}

/* The @nth after RUN: a page that no thread has reached yet; or a piece of a huge one. */
static void send_record(struct pc *s, unsigned nth)
{
	pc_send_page(s, nth % 2 ? PC_PREEMPT : PC_MAIN, 0, 1 + nth);
	if (s->ram[0].unit_pages == 1)
		s->ram[0].sent[1 + nth] = 1;
}

/* Still blocked, and not by zeros; and the library's thread is free. */
static void check_they_wait(struct pc *s)
{
	unsigned long touched = pc_touched(s);
	uint64_t deadline_ns = deadline_after_ns(30 * NS_PER_MS);

	while (clock_now_ns() < deadline_ns) {
		uint64_t began_ns = clock_now_ns();

		pc_turn(s);
		ck_assert_uint_lt(clock_now_ns() - began_ns, TURN_NS);
		usleep(1000);
	}
	ck_assert_uint_eq(pc_touched(s), touched);
	ck_assert(pc_all_wait(s));
	ck_assert_uint_eq(atomic_load(&s->wrong), 0);
}

static void check_paused(struct pc *s, enum cut which)
{
	struct inm_stats stats = { .size = sizeof(stats) };

	ck_assert_msg(pc_until(s, pc_paused, 5000), "cut %d: state %s", (int)which,
	              inm_state_name(inm_get_state(s->e.inm)));
	ck_assert_msg(names_it(inm_error(s->e.inm), which), "cut %d: %s", (int)which, inm_error(s->e.inm));
	inm_get_stats(s->e.inm, &stats);
	ck_assert_int_eq(stats.state, INM_STATE_POSTCOPY_PAUSED);
	ck_assert_uint_gt(stats.remaining_pages, 0);
	ck_assert_uint_gt(stats.outstanding_faults, 0);
}

/* The other channel is closed here, so that the source notices (doc/wire/stream.md 5.8); and it is told nothing. */
static void check_source_side(struct pc *s)
{
	pc_settle(s);
	for (unsigned i = PC_MAIN; i <= PC_PREEMPT; i++) {
		uint8_t byte;

		if (s->lines[i].fd >= 0 && !s->lines[i].broken)
			ck_assert_int_le(read(s->lines[i].fd, &byte, 1), 0);
	}
	ck_assert_uint_eq(pc_reply_count(s, WIRE_RP_SHUT), 0);
}

static void lose(int memory, enum cut which, unsigned records, size_t torn_bytes)
{
	const struct pc_opts o = opts_of(memory);
	struct pc s;

	pc_begin_until(&s, pc_all_wait, &o);
	for (unsigned i = 0; i < records; i++) {
		send_record(&s, i);
		pc_settle(&s);
	}
	if (torn_bytes) {
		struct pc_line *l = &s.lines[which == CUT_MAIN ? PC_MAIN : PC_PREEMPT];

		pc_send_page(&s, which == CUT_MAIN ? PC_MAIN : PC_PREEMPT, 0, 1 + records);
		l->allowed = l->sent + torn_bytes;
		pc_settle(&s);
	}
	cut(&s, which);
	check_paused(&s, which);
	check_they_wait(&s);
	check_source_side(&s);
	pc_give_up(&s);
}

TEST_CASE("pause", 60, HUGE_POOL);

TEST_EACH(test_a_loss_at_the_end_of_a_record_is_a_pause, LOSSES)
{
	for (unsigned records = 0; records <= PAGES_SENT; records++)
		lose(_i / CUTS, (enum cut)(_i % CUTS), records, 0);
}

static const size_t torn[] = { 1, 7, 8, 9, 20, 300, 4000 };

TEST_EACH(test_a_loss_in_the_middle_of_a_record_is_a_pause, 2 * MEMORIES)
{
	for (unsigned i = 0; i < sizeof(torn) / sizeof(torn[0]); i++)
		lose(_i / 2, _i % 2 ? CUT_PREEMPT : CUT_MAIN, 2, torn[i]);
}

/* ---- on the way from the package to the end ---------------------------------------------------------------------- */

/* Main breaks off between the package and PING 4, when the guest has just been started. */
TEST_EACH(test_a_loss_right_behind_the_package_is_a_pause, CUTS)
{
	const struct pc_opts o = opts_of(0);
	struct pc s;

	for (size_t more = 0; more <= 9; more++) {
		pc_begin(&s, &o);
		pc_switch(&s);
		pc_allow(&s, s.package_end + more);
		ck_assert(pc_until(&s, pc_all_wait, 5000));
		cut(&s, (enum cut)_i);
		check_paused(&s, (enum cut)_i);
		check_they_wait(&s);
		pc_give_up(&s);
	}
}

/* ---- before the guest runs --------------------------------------------------------------------------------------- */

TEST_CASE("failure", 20);

/* Up to PONG 0x42 the source still has its guest: it fails, and the source is told where it can be. */
TEST_EACH(test_a_loss_before_the_source_gave_the_guest_away_is_a_failure, CUTS)
{
	const char *error;
	struct pc s;

	pc_begin_until(&s, pc_asked,
	               &(struct pc_opts){ .preempt = PC_LATE,
	                                  .quiet = true,
	                                  .unanswered = true,
	                                  .device = pc_device_waits,
	                                  .look = pc_check_books,
	                                  .modern = true,
	                                  .touch = { .threads = 1 } });
	ck_assert_int_eq(inm_get_state(s.e.inm), INM_STATE_POSTCOPY_ACTIVE);
	cut(&s, (enum cut)_i);
	pc_run(&s, 5000);
	ck_assert_int_lt(s.result, 0);
	ck_assert_int_ne(s.result, -ECANCELED);
	error = inm_error(s.e.inm);
	ck_assert_msg(error && names_it(error, (enum cut)_i), "%s", error);
	pc_free(&s);
	ck_assert_int_eq(s.e.stats.state, INM_STATE_FAILED);
	ck_assert_uint_eq(s.vcpu_starts, 0);
	ck_assert(s.device_ended);
	ck_assert_int_eq(s.device_result, -ECANCELED);
	ck_assert_uint_eq(pc_reply_count(&s, WIRE_RP_SHUT), _i == CUT_PREEMPT);
	pc_end(&s);
}
