/*
 * The library decides again after a park what it decided before it: it gives others their turn in the middle of long
 * work (coroutine/turn.h), and at that moment a channel is lost, or a message comes.
 */
#include "tests/support/check_main.h"

#include <string.h>

#include "base/be.h"
#include "coroutine/group.h"
#include "coroutine/reactor.h"
#include "coroutine/turn.h"
#include "engine/inm.h"
#include "tests/support/recovery_scene.h"

/* ---- everybody's turn is over, all the time ---- */

struct hog {
	struct group group;
	struct pc *s;
	bool (*is_time)(struct pc *s); /* for act, once */
	void (*act)(struct pc *s);
	bool acted, stop;
};

/* A coroutine that looks after this, in the same round, yields at its first look. */
static int hog_turns(void *arg)
{
	struct hog *h = arg;
	struct sched *s = h->group.sched;

	while (!h->stop) {
		s->turn_round = s->rounds;
		s->turn_round_end_ns = 0;
		s->turn_work = TURN_LOOK;
		if (!h->acted && h->is_time(h->s)) {
			h->acted = true;
			h->act(h->s);
		}
		co_yield_shielded(s);
	}
	return 0;
}

static void hog_begin(struct hog *h)
{
	group_init(&h->group, &h->s->e.inm->reactor->sched, "hog");
	ck_assert_int_eq(group_spawn_background(&h->group, "hog", hog_turns, h), 0);
}

static void hog_end(struct hog *h)
{
	h->stop = true;
	/* Also when the migration has ended. */
	while (!group_empty(&h->group))
		reactor_dispatch(h->s->e.inm->reactor);
}

/* ---- LISTEN ---- */

/* More blocks than are watched at a time, and more pages than are counted (postcopy/expect.c); none is touched. */
#define MANY_PAGES (1u << 20)
#define SMALL(name) \
	{ \
		name, 4, EMB_MEMFD \
	}
static const struct pc_block many[PC_BLOCKS_MAX] = {
	{ "pc.ram", MANY_PAGES, EMB_MEMFD },
	SMALL("b1"),
	SMALL("b2"),
	SMALL("b3"),
	SMALL("b4"),
	SMALL("b5"),
	SMALL("b6"),
	SMALL("b7"),
	SMALL("b8"),
	SMALL("b9"),
	SMALL("b10"),
	SMALL("b11"),
	SMALL("b12"),
	SMALL("b13"),
	SMALL("b14"),
	SMALL("b15"),
};

static bool is_listening(const struct pc *s)
{
	return s->e.inm->postcopy.listening && !s->e.inm->preempt.listening.set;
}

static bool listening_begins(struct pc *s)
{
	return is_listening(s);
}

/* The first look with all blocks watched may be that of the last registration; the next one is of the counting. */
static bool pages_are_counted(struct pc *s)
{
	static unsigned looks;
	const struct postcopy *pc = &s->e.inm->postcopy;

	looks += is_listening(s) && pc->guest_views.count == PC_BLOCKS_MAX;
	return looks == 2 && !pc->settled;
}

static void lose_preempt(struct pc *s)
{
	pc_close_line(s, PC_PREEMPT);
}

TEST_CASE("listen", 60);

/*
 * The source has no guest any more when LISTEN is carried out, so a channel that is lost in the middle of it is a
 * pause; and it is noticed, although it has never said a word.
 */
TEST_EACH(test_a_silent_preempt_channel_that_is_lost_during_LISTEN_is_a_pause, 2)
{
	static bool (*const times[])(struct pc * s) = { listening_begins, pages_are_counted };
	struct hog h = { .is_time = times[_i], .act = lose_preempt };
	struct pc s;

	pc_begin(&s, &(struct pc_opts){ .blocks = many,
	                                .block_count = PC_BLOCKS_MAX,
	                                .preempt = PC_LATE,
	                                .quiet = true,
	                                .unanswered = true });
	pc_precopy(&s);
	pc_switch(&s);
	h.s = &s;
	hog_begin(&h);
	pc_until(&s, pc_paused, 3000);
	hog_end(&h);
	ck_assert(h.acted);
	ck_assert_msg(pc_paused(&s), "state %s: %s", inm_state_name(inm_get_state(s.e.inm)), inm_error(s.e.inm));
	ck_assert_msg(strstr(inm_error(s.e.inm), "the preempt channel"), "%s", inm_error(s.e.inm));
	pc_give_up(&s);
}

/* ---- the package ---- */

#define BULK_BYTES ((size_t)96 << 20)

static struct pc *starts;
static struct inm_ops before;

static void put_bulk(struct pc *s, struct wire *w)
{
	static uint8_t bulk[BULK_BYTES];

	(void)s;
	memset(bulk, 0x55, sizeof(bulk));
	wire_device(w, 77, &(struct wire_device){ .name = "bulk", .data = bulk, .bytes = sizeof(bulk) });
}

/* All that is left of the head goes out, PING 4: when nothing is left to load, and the package is about to be freed. */
static void start_and_go_on(void *opaque, const char *run_state)
{
	before.start_vcpus(opaque, run_state);
	pc_allow(starts, PC_ALL);
	for (unsigned i = 0; i < 20; i++)
		pc_source_step(starts);
}

static bool has_pong_4(struct pc *s)
{
	for (unsigned i = 0; i < s->reply_count; i++)
		if (s->replies[i].type == WIRE_RP_PONG && be32_load(s->replies[i].payload) == 4)
			return true;
	return false;
}

TEST_CASE("package", 60);

TEST(test_a_PING_that_comes_while_the_package_is_freed_is_answered)
{
	struct pc s;

	pc_begin(&s, &(struct pc_opts){ .quiet = true, .inject_at = PC_AFTER_LISTEN, .inject = put_bulk });
	starts = &s;
	before = s.e.inm->callbacks.ops;
	s.e.inm->callbacks.ops.start_vcpus = start_and_go_on;
	pc_precopy(&s);
	pc_switch(&s);
	pc_allow(&s, s.package_end);
	ck_assert(pc_until(&s, pc_vcpus_started, 20000));
	ck_assert(pc_until(&s, has_pong_4, 3000));
	pc_push(&s);
	ck_assert_int_eq(pc_run(&s, 10000), 0);
	pc_free(&s);
	pc_end(&s);
}

/* ---- RESUME ---- */

static bool goes_on(struct rec *r)
{
	return inm_get_state(r->s.e.inm) == INM_STATE_POSTCOPY_ACTIVE;
}

TEST_CASE("resume", 60);

/*
 * Another one has taken its place in the turn in which RESUME came: its coroutine does not park before the answer, so a
 * cancel would come too late. It does not go on; the next one does.
 */
TEST(test_an_attempt_that_has_lost_its_place_does_not_go_on)
{
	static const struct pc_block memory[2] = { { "pc.ram", 64, EMB_MEMFD }, { "vga.vram", 16, EMB_ANON } };
	struct pc_opts o = rec_story(memory, REC_NEW);
	struct rec_opts back = rec_back(REC_NEW);
	struct rec r;

	rec_begin_paused(&r, &o);
	back.stop = REC_ASKED;
	rec_return(&r, &back);
	ck_assert(rec_until(&r, rec_is_stopped, 5000));
	r.s.e.inm->contest.displaced = true;
	r.o.stop = REC_AWAY;
	rec_until(&r, goes_on, 1000);
	ck_assert_msg(rec_is_paused(&r), "state %s", inm_state_name(inm_get_state(r.s.e.inm)));
	ck_assert_ptr_nonnull(strstr(inm_error(r.s.e.inm), "another connection has taken its place"));
	r.losses++;
	rec_forget(&r);
	rec_recover_and_finish(&r, REC_NEW);
}
