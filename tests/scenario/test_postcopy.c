/* Postcopy as an honest source does it: every byte lands, wherever it is touched (doc/wire/stream.md 5, 6). */
#include "tests/support/check_main.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "tests/support/huge_pool.h"
#include "tests/support/postcopy_scene.h"

#define HUGE_PAGES 8 /* in the pool */

static const struct pc_block memfd_blocks[] = {
	{ "pc.ram", 300, EMB_MEMFD },
	{ "vga.vram", 33, EMB_MEMFD },
	{ "rom", 1, EMB_MEMFD },
};
static const struct pc_block anon_blocks[] = {
	{ "pc.ram", 300, EMB_ANON },
	{ "vga.vram", 33, EMB_ANON },
	{ "rom", 1, EMB_ANON },
};
static const struct pc_block huge_blocks[] = {
	{ "pc.ram", 2 * 512, EMB_HUGETLB },
	{ "vga.vram", 33, EMB_MEMFD },
	{ "rom", 1, EMB_ANON },
};
static const struct pc_block odd_huge_blocks[] = {
	{ "pc.ram", 512 + 37, EMB_HUGETLB },
	{ "vga.vram", 33, EMB_ANON },
	{ "rom", 1, EMB_MEMFD },
};

static const struct backing {
	const char *name;
	const struct pc_block *blocks;
} backings[] = {
	{ "memfd", memfd_blocks },
	{ "anonymous", anon_blocks },
	{ "hugetlb", huge_blocks },
	{ "hugetlb with a part of a page", odd_huge_blocks },
};
#define BACKINGS 4
#define WALKS (BACKINGS * PC_ORDERS)

static void need_huge(const struct pc_opts *o)
{
	for (unsigned i = 0; i < o->block_count; i++)
		if (o->blocks[i].backing == EMB_HUGETLB && huge_pool_free() < 3)
			test_skip("no huge pages of 2 MiB");
}

/* Everything of a run but the end; the caller looks at the numbers. */
static void lands(struct pc *s, struct pc_opts o)
{
	if (!o.blocks) {
		o.blocks = memfd_blocks;
		o.block_count = 3;
	}
	need_huge(&o);
	pc_begin(s, &o);
	pc_finish(s);
	pc_check_landed(s);
}

static struct pc_opts with_backing(unsigned nth, struct pc_opts o)
{
	o.blocks = backings[nth].blocks;
	o.block_count = 3;
	return o;
}

static uint64_t asked_units(const struct pc *s)
{
	uint64_t n = 0;

	for (unsigned b = 0; b < s->ram_count; b++)
		for (uint64_t u = 0; u < s->ram[b].units; u++)
			n += s->ram[b].asked[u];
	return n;
}

static uint64_t missing_units(const struct pc *s)
{
	uint64_t n = 0;

	for (unsigned b = 0; b < s->ram_count; b++)
		for (uint64_t u = 0; u < s->ram[b].units; u++)
			n += !s->ram[b].precopied[u];
	return n;
}

/* ---- nobody touches anything ------------------------------------------------------------------------------------- */

static const unsigned precopied[] = { 0, 50, 90, 100 };

TEST_CASE("pushed", 30, HUGE_POOL);

TEST_EACH(test_what_is_pushed_lands, BACKINGS)
{
	struct pc s;

	for (unsigned i = 0; i < 4; i++) {
		lands(&s, with_backing((unsigned)_i, (struct pc_opts){ .precopied = precopied[i] }));
		ck_assert_uint_eq(s.e.stats.requests, 0);
		ck_assert_uint_eq(s.e.stats.duplicate_pages, 0);
		pc_end(&s);
	}
}

TEST_EACH(test_a_source_of_today_lands, BACKINGS)
{
	struct pc s;

	lands(&s, with_backing((unsigned)_i, (struct pc_opts){ .modern = true, .precopied = 50, .preempt = PC_LATE }));
	pc_end(&s);
}

/* ---- the guest touches what is missing --------------------------------------------------------------------------- */

TEST_CASE("touched", 30, HUGE_POOL);

TEST_EACH(test_touched_pages_are_asked_for_once_and_land, WALKS)
{
	static const unsigned threads[] = { 1, 4, 16 };
	struct pc s;

	for (unsigned i = 0; i < 3; i++) {
		const struct pc_touch touch = { .threads = threads[i], .order = (enum pc_order)(_i / BACKINGS) };

		lands(&s, with_backing((unsigned)_i % BACKINGS, (struct pc_opts){ .quiet = true, .touch = touch }));
		ck_assert_uint_eq(asked_units(&s), missing_units(&s));
		ck_assert_uint_ge(s.e.stats.faults, missing_units(&s));
		ck_assert_uint_eq(s.e.stats.fault_count, missing_units(&s));
		ck_assert_uint_eq(s.e.stats.outstanding_faults, 0);
		ck_assert_uint_eq(s.e.stats.requests, s.named_requests + s.unnamed_requests);
		pc_end(&s);
	}
}

TEST_EACH(test_pages_are_touched_while_they_are_pushed, BACKINGS)
{
	struct pc s;

	for (unsigned order = 0; order < PC_ORDERS; order++) {
		lands(&s, with_backing((unsigned)_i,
		                       (struct pc_opts){ .precopied = order * 30,
		                                         .touch = { .threads = 6, .order = order, .passes = 3 } }));
		pc_end(&s);
	}
}

TEST(test_a_page_that_many_wait_for_is_asked_for_once)
{
	const struct pc_touch touch = { .threads = 16, .order = PC_SAME_PAGE };
	struct pc s;

	pc_begin_until(&s, pc_asked, &(struct pc_opts){ .quiet = true, .unanswered = true, .touch = touch });
	pc_settle(&s);
	ck_assert_uint_eq(s.request_count, 1);
	ck_assert_uint_eq(pc_touched(&s), 0);
	pc_answer(&s);
	pc_finish(&s);
	pc_check_landed(&s);
	ck_assert_uint_eq(asked_units(&s), missing_units(&s));
	ck_assert_uint_ge(s.e.stats.faults, 16);
	pc_end(&s);
}

TEST(test_a_slow_source_keeps_only_those_waiting_who_touch)
{
	struct pc s;

	lands(&s, (struct pc_opts){ .precopied = 90, .quiet = true, .answer_delay_ms = 20, .touch = { .threads = 4 } });
	if (asked_units(&s))
		ck_assert_uint_ge(s.e.stats.fault_p50_ns, 18 * NS_PER_MS);
	pc_end(&s);
}

TEST_EACH(test_pages_asked_for_ahead_are_asked_for_once, BACKINGS)
{
	struct pc s;

	lands(&s, with_backing((unsigned)_i,
	                       (struct pc_opts){ .quiet = true, .prefetch = true, .touch = { .threads = 2 } }));
	if (_i < 2)
		ck_assert_uint_gt(s.e.stats.prefetch_pages, 0);
	pc_end(&s);
}

/* The block is named when it changes, and not otherwise (doc/wire/stream.md 3); the source looks at each. */
TEST(test_requests_name_the_block_when_it_changes)
{
	struct pc s;

	lands(&s, (struct pc_opts){ .quiet = true, .touch = { .threads = 1 } });
	ck_assert_uint_eq(s.named_requests, 3);
	ck_assert_uint_eq(s.unnamed_requests, 331);
	pc_end(&s);
}

/* ---- what the guest wrote stays ---------------------------------------------------------------------------------- */

TEST_CASE("written", 30, HUGE_POOL);

TEST_EACH(test_late_copies_do_not_overwrite_what_the_guest_wrote, BACKINGS)
{
	struct pc s;

	for (unsigned preempt = 0; preempt < 2; preempt++) {
		lands(&s, with_backing((unsigned)_i,
		                       (struct pc_opts){ .quiet = true,
		                                         .twice = true,
		                                         .preempt = preempt ? PC_LATE : PC_NO_PREEMPT,
		                                         .touch = { .threads = 3, .write = true, .passes = 2 } }));
		/* Once beside the answer, once in the end. */
		ck_assert_uint_ge(s.e.stats.duplicate_pages, 2 * s.ram[0].said.pages);
		pc_end(&s);
	}
}

TEST_EACH(test_writers_and_pushed_pages_do_not_disturb_each_other, BACKINGS)
{
	struct pc s;

	lands(&s, with_backing((unsigned)_i,
	                       (struct pc_opts){
	                               .precopied = 30,
	                               .twice = true,
	                               .touch = { .threads = 8, .order = PC_SCATTERED, .write = true, .passes = 4 } }));
	pc_end(&s);
}

/* ---- the preempt channel ----------------------------------------------------------------------------------------- */

static const enum pc_preempt whens[] = { PC_BEFORE_MAIN, PC_EARLY, PC_LATE, PC_WITH_PACKAGE, PC_AFTER_PACKAGE };

TEST_CASE("preempt", 30, HUGE_POOL);

TEST_EACH(test_the_preempt_channel_may_come_at_any_time, BACKINGS)
{
	struct pc s;

	for (unsigned i = 0; i < 5; i++)
		for (unsigned eos = 0; eos < 2; eos++) {
			lands(&s, with_backing((unsigned)_i, (struct pc_opts){ .preempt = whens[i],
			                                                       .preempt_eos = eos,
			                                                       .quiet = true,
			                                                       .preempt_delay_ms = 20,
			                                                       .touch = { .threads = 3 } }));
			ck_assert_uint_gt(s.e.stats.preempt_bytes, 4096);
			pc_end(&s);
		}
}

TEST_EACH(test_the_preempt_channel_may_be_silent_to_its_end, BACKINGS)
{
	struct pc s;

	for (unsigned eos = 0; eos < 2; eos++)
		for (unsigned threads = 0; threads < 3; threads += 2) {
			lands(&s, with_backing((unsigned)_i, (struct pc_opts){ .preempt = PC_LATE,
			                                                       .preempt_eos = eos,
			                                                       .preempt_silent = true,
			                                                       .quiet = true,
			                                                       .touch = { .threads = threads } }));
			ck_assert_uint_le(s.e.stats.preempt_bytes, 8);
			pc_end(&s);
		}
}

TEST_RANGE(test_a_huge_page_may_come_by_both_channels, 2, BACKINGS)
{
	struct pc s;

	for (unsigned threads = 0; threads < 5; threads += 4) {
		lands(&s,
		      with_backing((unsigned)_i, (struct pc_opts){ .preempt = PC_EARLY,
		                                                   .split = true,
		                                                   .quiet = threads > 0,
		                                                   .touch = { .threads = threads, .write = true } }));
		ck_assert_uint_ge(s.e.stats.preempt_bytes, 256 * 6 / 7 * PC_PAGE);
		pc_end(&s);
	}
}

static bool has_touched_all_of_it(struct pc *s)
{
	return pc_touched(s) == 512;
}

/* Until the last piece is there nobody sees any of it. */
TEST(test_half_a_huge_page_is_not_shown)
{
	const struct pc_touch touch = { .threads = 1 };
	struct pc_opts o = with_backing(
	        2, (struct pc_opts){ .quiet = true, .unanswered = true, .preempt = PC_LATE, .touch = touch });
	struct pc s;

	need_huge(&o);
	pc_begin_until(&s, pc_asked, &o);
	for (unsigned i = 0; i < 511; i++)
		pc_send_page(&s, i % 2 ? PC_MAIN : PC_PREEMPT, 0, i);
	pc_settle(&s);
	ck_assert_uint_eq(pc_touched(&s), 0);
	pc_send_page(&s, PC_MAIN, 0, 511);
	s.ram[0].sent[0] = 1;
	ck_assert(pc_until(&s, has_touched_all_of_it, 5000));
	pc_answer(&s);
	pc_finish(&s);
	pc_check_landed(&s);
	pc_end(&s);
}

/* ---- beside multifd, and inside TLS ------------------------------------------------------------------------------ */

TEST_CASE("company", 30, HUGE_POOL);

TEST_EACH(test_multifd_channels_may_stay_to_the_end, 2 * BACKINGS)
{
	struct pc s;

	for (unsigned percent = 0; percent <= 90; percent += 45)
		for (unsigned preempt = 0; preempt < 2; preempt++) {
			lands(&s, with_backing((unsigned)_i / 2, (struct pc_opts){ .channels = 3,
			                                                           .old_multifd = _i % 2,
			                                                           .precopied = percent,
			                                                           .preempt = preempt ? PC_LATE : 0,
			                                                           .touch = { .threads = 2 } }));
			ck_assert(percent == 0 || s.e.stats.multifd_bytes > 3 * 64);
			pc_end(&s);
		}
}

TEST_RANGE(test_postcopy_lands_inside_tls, PC_NO_PREEMPT, PC_AFTER_PACKAGE + 1)
{
	struct pc s;

	lands(&s, (struct pc_opts){ .tls = true,
	                            .precopied = 50,
	                            .preempt = (enum pc_preempt)_i,
	                            .quiet = true,
	                            .touch = { .threads = 2, .write = true } });
	pc_end(&s);
}
