/*
 * The source comes back (doc/wire/stream.md 5.8): we request again what threads wait for, once that is possible; each
 * step of the dialogue can fail and be tried again; what had come in part comes again; an embedder can give up
 * anywhere.
 */
#include "tests/support/check_main.h"

#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/support/huge_pool.h"
#include "tests/support/recovery_scene.h"

#define RAM_ID 2u

static const struct pc_block memories[][2] = {
	{ { "pc.ram", 64, EMB_MEMFD }, { "vga.vram", 16, EMB_ANON } },
	{ { "pc.ram", 64, EMB_ANON }, { "vga.vram", 16, EMB_MEMFD } },
	{ { "pc.ram", 2 * 512, EMB_HUGETLB }, { "vga.vram", 16, EMB_MEMFD } },
};
#define MEMORIES 3
#define HUGE_MEMORY 2
#define STORIES (MEMORIES * REC_STYLES)
#define SMALL_STORIES (HUGE_MEMORY * REC_STYLES)

static struct pc_opts opts_of(int memory, enum rec_style style)
{
	return rec_story(memories[memory], style);
}

/* ---- pages that threads wait for are asked for again ------------------------------------------------------------ */

/* Of the units that somebody waits for. */
static unsigned count_waited(const struct rec *r, bool *ret_each_asked)
{
	uint64_t seen[REC_THREADS];
	unsigned n = 0;

	*ret_each_asked = true;
	for (unsigned i = 0; i < REC_THREADS; i++) {
		unsigned block = atomic_load(&r->s.touchers[i].block), known = 0;
		uint64_t tpage = atomic_load(&r->s.touchers[i].tpage);
		uint64_t unit = (uint64_t)block << 32 | tpage / r->s.ram[block].unit_pages;

		for (unsigned k = 0; k < n; k++)
			known += seen[k] == unit;
		if (known == 0)
			seen[n++] = unit;
		if (pc_asked_times(&r->s, block, tpage) != 1)
			*ret_each_asked = false;
	}
	return n;
}

static unsigned count_asked(const struct rec *r)
{
	unsigned asked = 0;

	for (unsigned b = 0; b < r->s.ram_count; b++)
		for (uint64_t u = 0; u < r->s.ram[b].units; u++)
			asked += r->s.ram[b].asked[u];
	return asked;
}

static void check_asked_again(struct rec *r)
{
	unsigned asked, waited;
	bool each;

	/* On a machine that is busy it may take more than one look. */
	for (unsigned looks = 0; looks < 100; looks++) {
		rec_settle(r);
		waited = count_waited(r, &each);
		asked = count_asked(r);
		if (each && asked == waited)
			break;
	}
	ck_assert_msg(each && asked == waited, "%u pages are waited for, %u were asked for", waited, asked);
	ck_assert_uint_ge(r->s.named_requests, 1);
	ck_assert_msg(!r->s.breach[0], "%s", r->s.breach);
}

TEST_CASE("small", 60);

/* Faults that were outstanding at the loss, and faults of the time when nobody could be asked. */
TEST_EACH(test_what_is_waited_for_is_asked_for_again_behind_the_ack, SMALL_STORIES)
{
	enum rec_style style = (enum rec_style)(_i % REC_STYLES);
	struct pc_opts o = opts_of(_i / REC_STYLES, style);
	struct rec_opts back = rec_back(style);
	struct rec r;

	for (unsigned late = 0; late < 2; late++) {
		o.touch.held = late;
		rec_begin(&r, &o);
		pc_switch(&r.s);
		ck_assert(late || rec_until(&r, rec_all_wait, 5000));
		rec_settle(&r);
		ck_assert_uint_eq(r.s.request_count > 0, !late);
		ck_assert(rec_pause(&r, REC_BOTH, false));
		pc_touch(&r.s);
		ck_assert(rec_until(&r, rec_all_wait, 5000));
		back.stop = REC_PREEMPT;
		rec_return(&r, &back);
		ck_assert(rec_until(&r, rec_is_stopped, 5000));
		rec_settle(&r);
		ck_assert_int_eq(r.stage, REC_PREEMPT);
		rec_check_state(&r, INM_STATE_POSTCOPY_RECOVER);
		/* A request that came now would lie where RESUME_ACK is expected. */
		r.o.stop = REC_AWAY;
		ck_assert(rec_until(&r, rec_is_back, 5000));
		check_asked_again(&r);
		rec_answer_and_finish(&r);
	}
}

/* With all that waits for it: the library's thread is free, and the threads stay where they are. */
TEST_EACH(test_nobody_goes_on_while_it_is_paused, HUGE_MEMORY)
{
	const struct pc_opts o = opts_of(_i, REC_NEW);
	unsigned long touched;
	uint64_t until_ns;
	struct rec r;

	rec_begin_paused(&r, &o);
	touched = pc_touched(&r.s);
	until_ns = deadline_after_ns(100 * NS_PER_MS);
	while (clock_now_ns() < until_ns)
		if (!rec_turn(&r))
			usleep(500);
	ck_assert_uint_eq(pc_touched(&r.s), touched);
	ck_assert(rec_all_wait(&r));
	rec_recover_and_finish(&r, REC_NEW);
}

/* ---- losses in a row --------------------------------------------------------------------------------------------- */

TEST_EACH(test_the_network_may_be_lost_again_and_again, SMALL_STORIES)
{
	enum rec_style style = (enum rec_style)(_i % REC_STYLES);
	struct pc_opts o = opts_of(_i / REC_STYLES, style);
	const struct rec_opts back = rec_back(style);
	struct rec r;

	o.quiet = o.unanswered = false;
	o.split = o.preempt != PC_NO_PREEMPT; /* so that there is something on main */
	rec_begin(&r, &o);
	pc_switch(&r.s);
	rec_limit(&r, PC_MAIN, r.s.package_end + 9);
	ck_assert(rec_until(&r, rec_guest_runs, 5000));
	for (unsigned i = 0; i < 8; i++) {
		/* Nearly always something is left: each time a few pages come, pieces of one where it is huge. */
		ck_assert(rec_until(&r, rec_at_limit, 5000));
		if (!rec_pause(&r, style == REC_NO_PREEMPT ? REC_MAIN : (enum rec_cut)(i % REC_CUTS), false))
			break;
		rec_recover(&r, &back);
		rec_limit(&r, PC_MAIN, 5 * PC_PAGE + 100 * i);
	}
	ck_assert_uint_ge(r.losses, 4);
	rec_limit(&r, PC_MAIN, SIZE_MAX);
	rec_finish(&r);
}

/* Main has ended, and pages that were promised on the preempt channel are lost with that: main goes on again. */
TEST_EACH(test_a_loss_behind_the_end_of_main_reopens_its_sections, HUGE_MEMORY)
{
	const struct pc_opts o = opts_of(_i, REC_NEW);
	struct rec r;

	rec_begin_waiting(&r, &o);
	for (unsigned i = 0; i < REC_THREADS; i++) {
		unsigned block = atomic_load(&r.s.touchers[i].block);

		r.s.ram[block].sent[atomic_load(&r.s.touchers[i].tpage) / r.s.ram[block].unit_pages] = 1;
	}
	pc_push(&r.s);
	rec_settle(&r);
	ck_assert(r.s.ended);
	rec_check_state(&r, INM_STATE_POSTCOPY_ACTIVE);
	ck_assert(rec_pause(&r, (enum rec_cut)(1 + _i % 2), false));
	rec_recover_and_finish(&r, REC_NEW);
}

/* ---- the dialogue fails ------------------------------------------------------------------------------------------ */

TEST_EACH(test_the_dialogue_may_break_at_any_byte, SMALL_STORIES)
{
	enum rec_style style = (enum rec_style)(_i % REC_STYLES);
	const struct pc_opts o = opts_of(_i / REC_STYLES, style);
	const struct rec_opts back = rec_back(style);
	struct rec_opts some = back;
	struct rec r;

	rec_begin_paused(&r, &o);
	/* Both commands and all but the last byte of RESUME. */
	for (some.allowed = 1; some.allowed < 12 + 14 + 5; some.allowed++)
		rec_attempt(&r, &some, style == REC_NO_PREEMPT ? REC_MAIN : (enum rec_cut)(some.allowed % REC_CUTS));
	rec_recover(&r, &back);
	check_asked_again(&r);
	rec_answer_and_finish(&r);
}

TEST_EACH(test_the_dialogue_may_break_at_any_step, SMALL_STORIES)
{
	enum rec_style style = (enum rec_style)(_i % REC_STYLES);
	const struct pc_opts o = opts_of(_i / REC_STYLES, style);
	const struct rec_opts back = rec_back(style);
	struct rec r;

	rec_begin_paused(&r, &o);
	for (enum rec_stage stop = REC_CONNECTED; stop <= REC_PREEMPT; stop++)
		for (enum rec_cut which = REC_MAIN; which < REC_CUTS; which++) {
			struct rec_opts some = back;

			some.stop = stop;
			/* Of one channel: the other one is closed by the destination. */
			if (which != REC_ONLY_PREEMPT || (style != REC_NO_PREEMPT && stop == REC_PREEMPT))
				rec_attempt(&r, &some, which);
		}
	rec_recover(&r, &back);
	check_asked_again(&r);
	/* Right after the ack, with everything asked for again: once more. */
	ck_assert(rec_pause(&r, REC_BOTH, false));
	rec_recover(&r, &back);
	check_asked_again(&r);
	rec_answer_and_finish(&r);
}

/* The source goes while its answer is being written: RESUME_ACK has gone out, or is about to. */
TEST_EACH(test_an_ack_that_nobody_reads_is_a_loss_like_others, SMALL_STORIES)
{
	enum rec_style style = (enum rec_style)(_i % REC_STYLES);
	const struct pc_opts o = opts_of(_i / REC_STYLES, style);
	const struct rec_opts back = rec_back(style);
	struct wire script = { 0 };
	struct rec_opts some = back;
	struct rec r;

	rec_begin_waiting(&r, &o);
	for (unsigned b = 0; b < r.s.ram_count; b++)
		wire_recv_bitmap(&script, r.s.ram[b].said.name);
	wire_resume(&script);
	ck_assert(rec_pause(&r, REC_BOTH, false));
	some.script = &script;
	some.unread = true;
	some.allowed = script.len;
	some.old = true; /* so that the preempt channel is there */
	for (unsigned i = 0; i < 3; i++)
		rec_attempt(&r, &some, REC_BOTH);
	ck_assert_uint_eq(r.returns, 3);
	rec_recover(&r, &back);
	check_asked_again(&r);
	rec_answer_and_finish(&r);
	wire_fini(&script);
}

/* ---- inside a bitmap --------------------------------------------------------------------------------------------- */

/* Its bitmap is longer than what the socket holds. Nothing of the memory is ever touched. */
static const struct pc_block vast[] = { { "pc.ram", 1 << 18, EMB_MEMFD } };

/* The library's end of each connection is in this process. */
static void shrink_buffers(const struct rec *r)
{
	int least = 1;

	for (int fd = 3; fd < 64; fd++)
		if (fd != r->fd)
			setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &least, sizeof(least));
}

static void stop_inside_a_bitmap(struct rec *r)
{
	const struct rec_opts unread = { .unread = true, .stop = REC_ASKING };
	struct rec_opts first = unread;

	first.stop = REC_CONNECTED;
	rec_return(r, &first);
	rec_settle(r);
	shrink_buffers(r);
	r->o = unread;
	ck_assert(rec_until(r, rec_is_stopped, 5000));
	rec_settle(r);
	rec_check_state(r, INM_STATE_POSTCOPY_RECOVER);
}

TEST_CASE("small", 60);

TEST_EACH(test_a_loss_inside_a_bitmap_is_tried_again, 2)
{
	struct rec r;

	rec_begin(&r, &(struct pc_opts){ .blocks = vast,
	                                 .block_count = 1,
	                                 .quiet = true,
	                                 .touch = { .threads = 1 },
	                                 .unanswered = true });
	pc_switch(&r.s);
	ck_assert(rec_until(&r, rec_all_wait, 5000));
	ck_assert(rec_pause(&r, REC_BOTH, false));
	for (unsigned i = 0; i < 2; i++) {
		stop_inside_a_bitmap(&r);
		if (_i)
			break;
		rec_lose(&r, REC_BOTH, false);
		ck_assert(rec_until(&r, rec_is_paused, 5000));
		rec_forget(&r);
	}
	if (!_i) {
		rec_recover(&r, &(struct rec_opts){ .old = false });
		rec_settle(&r);
		ck_assert_uint_eq(pc_asked_times(&r.s, 0, 0), 1);
	}
	rec_give_up(&r);
}

/* ---- huge pages -------------------------------------------------------------------------------------------------- */

/* What they were before: not what the source has now. */
static void send_stale(struct rec *r, unsigned line, uint64_t first, uint64_t end)
{
	struct wire *w = &r->s.lines[line].out;

	if (line == PC_MAIN)
		wire_part(w, WIRE_PART, RAM_ID);
	for (uint64_t i = first; i < end; i++)
		wire_content_record(w, r->s.ram[0].said.name, 0, i, true);
	if (line == PC_MAIN) {
		wire_ram_end(w, RAM_ID);
	}
}

TEST_CASE("huge", 60, HUGE_POOL);

/* Pieces on one channel or on both; each loss leaves others. Nothing of them may be seen in the end. */
TEST_EACH(test_half_a_huge_page_comes_anew, 2)
{
	enum rec_style style = _i ? REC_NEW : REC_NO_PREEMPT;
	const struct pc_opts o = opts_of(HUGE_MEMORY, style);
	const struct rec_opts back = rec_back(style);
	struct rec r;

	rec_begin_waiting(&r, &o);
	for (unsigned loss = 0; loss < 3; loss++) {
		send_stale(&r, PC_MAIN, 100 * loss, 100 * loss + 100);
		if (style == REC_NEW)
			send_stale(&r, PC_PREEMPT, 300, loss == 2 ? 512 : 400);
		rec_settle(&r);
		ck_assert(rec_pause(&r, REC_BOTH, false));
		rec_recover(&r, &back);
		for (unsigned i = 0; i < 512; i++)
			ck_assert_uint_eq(r.received[0][i], 0);
	}
	check_asked_again(&r);
	rec_answer_and_finish(&r);
}

/* ---- memory is given back ---------------------------------------------------------------------------------------- */

static bool has_gone_on(struct rec *r)
{
	return pc_touched(&r->s) >= r->s.ram[0].unit_pages;
}

TEST_CASE("small", 60);

TEST_EACH(test_what_is_removed_while_it_is_paused_is_not_asked_for, HUGE_MEMORY)
{
	struct pc_opts o = opts_of(_i, REC_NEW);
	const struct rec_opts back = rec_back(REC_NEW);
	struct rec r;

	o.touch.threads = 1;
	o.touch.order = PC_UPWARDS;
	rec_begin_paused(&r, &o);
	ck_assert_uint_eq(pc_touched(&r.s), 0);
	rec_remove(&r, 0, 0, 1);
	rec_remove(&r, 1, 3, 5);
	ck_assert(rec_until(&r, has_gone_on, 5000));
	ck_assert(rec_until(&r, rec_all_wait, 5000));
	/* The thread has found zeros, and waits for the next unit. */
	ck_assert_uint_eq(pc_touched(&r.s), r.s.ram[0].unit_pages);
	rec_recover(&r, &back);
	ck_assert_uint_eq(r.received[0][0], 1);
	ck_assert_uint_eq(r.received[1][2], 0);
	ck_assert_uint_eq(r.received[1][3], 1);
	ck_assert_uint_eq(r.received[1][4], 1);
	rec_settle(&r);
	ck_assert_uint_eq(pc_asked_times(&r.s, 0, 0), 0);
	ck_assert_uint_eq(pc_asked_times(&r.s, 0, r.s.ram[0].unit_pages), 1);
	rec_answer_and_finish(&r);
}

TEST_EACH(test_it_completes_when_all_that_was_missing_is_removed, HUGE_MEMORY)
{
	const struct pc_opts o = opts_of(_i, REC_NEW);
	struct rec r;

	rec_begin_paused(&r, &o);
	rec_remove(&r, 0, 0, r.s.ram[0].units);
	rec_check_state(&r, INM_STATE_POSTCOPY_PAUSED);
	rec_remove(&r, 1, 0, r.s.ram[1].units);
	r.lost_at_end = true;
	rec_finish(&r);
}

/* ---- inside TLS -------------------------------------------------------------------------------------------------- */

TEST_CASE("tls", 60);

TEST_EACH(test_it_recovers_inside_tls, REC_STYLES)
{
	enum rec_style style = (enum rec_style)_i;
	struct pc_opts o = opts_of(0, style);
	const struct rec_opts back = rec_back(style);
	struct rec r;

	o.tls = true;
	/* Of a child that carries bytes to a line which is closed. */
	signal(SIGPIPE, SIG_IGN);
	for (enum rec_cut which = REC_MAIN; which < REC_CUTS; which++) {
		if (which != REC_MAIN && style == REC_NO_PREEMPT)
			break;
		rec_begin_waiting(&r, &o);
		ck_assert(rec_pause(&r, which, false));
		rec_recover(&r, &back);
		check_asked_again(&r);
		ck_assert(rec_pause(&r, which, false));
		rec_recover(&r, &back);
		rec_answer_and_finish(&r);
	}
}

/* ---- cancelled --------------------------------------------------------------------------------------------------- */

static void cancel(struct rec *r)
{
	pc_cancel(&r->s);
}

/* Return: whether the recovery was so long. */
static bool cancel_at(const struct pc_opts *o, enum rec_style style, unsigned nth, size_t chunk_bytes)
{
	struct rec_opts back = rec_back(style);
	bool under_way;
	struct rec r;

	back.chunk_bytes = chunk_bytes;
	rec_begin_waiting(&r, o);
	rec_lose(&r, REC_BOTH, false);
	r.act = cancel;
	r.act_at = r.turns + nth;
	rec_until(&r, rec_is_paused, 5000);
	rec_forget(&r);
	if (r.s.result == 1)
		rec_return(&r, &back);
	rec_until(&r, rec_is_back, 5000);
	under_way = r.turns > r.act_at;
	rec_give_up(&r);
	return under_way;
}

TEST_CASE("cancel", 60);

TEST_EACH(test_a_cancel_at_any_turn_of_a_recovery_gives_everything_back, 2 * REC_STYLES)
{
	enum rec_style style = (enum rec_style)(_i % REC_STYLES);
	const struct pc_opts o = opts_of(_i / REC_STYLES % 2, style);
	size_t chunk_bytes = _i / REC_STYLES ? 3 : 0;
	unsigned turns = 0;

	while (turns < 300 && cancel_at(&o, style, turns, chunk_bytes))
		turns++;
	ck_assert_uint_ge(turns, chunk_bytes ? 10 : 5);
	ck_assert_uint_lt(turns, 300);
}

/* Others may have the pool while what needs none of it runs. */
TEST_CASE("huge", 60, HUGE_POOL);
TEST_AGAIN(test_what_is_waited_for_is_asked_for_again_behind_the_ack, SMALL_STORIES, STORIES);
TEST_AGAIN(test_a_loss_behind_the_end_of_main_reopens_its_sections, HUGE_MEMORY, MEMORIES);
TEST_AGAIN(test_nobody_goes_on_while_it_is_paused, HUGE_MEMORY, MEMORIES);
TEST_AGAIN(test_the_network_may_be_lost_again_and_again, SMALL_STORIES, STORIES);
TEST_AGAIN(test_the_dialogue_may_break_at_any_byte, SMALL_STORIES, STORIES);
TEST_AGAIN(test_the_dialogue_may_break_at_any_step, SMALL_STORIES, STORIES);
TEST_AGAIN(test_an_ack_that_nobody_reads_is_a_loss_like_others, SMALL_STORIES, STORIES);
TEST_AGAIN(test_what_is_removed_while_it_is_paused_is_not_asked_for, HUGE_MEMORY, MEMORIES);
TEST_AGAIN(test_it_completes_when_all_that_was_missing_is_removed, HUGE_MEMORY, MEMORIES);
