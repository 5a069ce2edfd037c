/*
 * The stream has ended, and pages have not come. A page that was asked for, or has come in part, is lost, and the
 * migration pauses. A page that nobody has asked for was unplugged at the source: it is zeros (postcopy/settle.h).
 */
#include "tests/support/check_main.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "engine/inm.h"
#include "tests/support/huge_pool.h"
#include "tests/support/postcopy_scene.h"

static const struct pc_block memories[][2] = {
	{ { "pc.ram", 64, EMB_MEMFD }, { "vga.vram", 16, EMB_MEMFD } },
	{ { "pc.ram", 64, EMB_ANON }, { "vga.vram", 16, EMB_ANON } },
};
#define MEMORIES 2
static const struct pc_block huge[2] = { { "pc.ram", 2 * 512, EMB_HUGETLB }, { "vga.vram", 16, EMB_MEMFD } };

/* END and EOF, whatever was sent before. */
static void end_stream(struct pc *s)
{
	struct wire *w = &s->lines[PC_MAIN].out;

	wire_part(w, WIRE_END, 2);
	wire_ram_end(w, 2);
	wire_eof(w);
}

static void check_lost(struct pc *s, const char *words)
{
	ck_assert_msg(pc_until(s, pc_paused, 5000), "state %s: %s", inm_state_name(inm_get_state(s->e.inm)), s->said);
	ck_assert_msg(strstr(inm_error(s->e.inm), words), "no '%s' in: %s", words, inm_error(s->e.inm));
	ck_assert_uint_eq(pc_reply_count(s, WIRE_RP_SHUT), 0);
	ck_assert_uint_eq(atomic_load(&s->wrong), 0);
}

/* Half of the pages are missing, and the source answers nothing. */
static struct pc_opts quiet(int memory)
{
	return (struct pc_opts){ .blocks = memories[memory],
		                 .block_count = 2,
		                 .precopied = 50,
		                 .quiet = true,
		                 .unanswered = true,
		                 .prefetch = true };
}

/* ---- asked for --------------------------------------------------------------------------------------------------- */

TEST_CASE("asked", 60);

TEST_EACH(test_a_page_that_a_thread_has_asked_for_is_lost_and_not_zeros, MEMORIES)
{
	struct pc_opts o = quiet(_i);
	struct pc s;

	o.touch = (struct pc_touch){ .threads = 2 };
	pc_begin_until(&s, pc_asked, &o);
	end_stream(&s);
	check_lost(&s, "were asked for");
	ck_assert_ptr_nonnull(strstr(inm_error(s.e.inm), "postcopy-preempt on at the source"));
	pc_give_up(&s);
}

TEST_EACH(test_a_page_that_a_device_waits_for_is_lost_and_not_zeros, MEMORIES)
{
	struct pc_opts o = quiet(_i);
	struct pc s;

	o.precopied = 0;
	o.device = pc_device_waits;
	pc_begin_until(&s, pc_asked, &o);
	end_stream(&s);
	check_lost(&s, "were asked for");
	ck_assert_uint_eq(s.vcpu_starts, 0);
	pc_give_up(&s);
}

TEST(test_one_of_many_is_named_with_block_and_offset)
{
	struct pc_opts o = quiet(0);
	struct pc s;

	o.precopied = 0;
	o.device = pc_device_waits;
	pc_begin_until(&s, pc_asked, &o);
	end_stream(&s);
	check_lost(&s, "one is at 0x1000 of block 'pc.ram'");
	pc_give_up(&s);
}

/* With preempt it may be on its way; when that has ended it is not. */
TEST_EACH(test_it_is_lost_when_the_preempt_channel_has_ended, MEMORIES)
{
	struct pc_opts o = quiet(_i);
	struct pc s;

	o.preempt = PC_LATE;
	o.touch = (struct pc_touch){ .threads = 1 };
	pc_begin_until(&s, pc_asked, &o);
	end_stream(&s);
	pc_settle(&s);
	ck_assert_int_eq(inm_get_state(s.e.inm), INM_STATE_POSTCOPY_ACTIVE);
	wire_word(&s.lines[PC_PREEMPT].out, 0, WIRE_RAM_EOS);
	check_lost(&s, "were asked for");
	pc_give_up(&s);
}

/* ---- unplugged --------------------------------------------------------------------------------------------------- */

/* Return: did memory hold zeros, where nothing was sent, and what was sent elsewhere? */
static void lands_with_zeros(struct pc *s)
{
	pc_run(s, 8000);
	ck_assert_msg(s->result == 0, "%d, state %s: %s", s->result, inm_state_name(inm_get_state(s->e.inm)), s->said);
	ck_assert_ptr_nonnull(strstr(s->said, "they are zeros"));
	pc_free(s);
	for (unsigned b = 0; b < 2; b++)
		for (uint64_t i = 0; i < s->ram[b].said.pages; i++) {
			uint8_t page[PC_PAGE] = { 0 };

			if (s->ram[b].precopied[i / s->ram[b].unit_pages])
				wire_content(page, b, i);
			ck_assert_mem_eq(s->ram[b].emb->host + i * PC_PAGE, page, PC_PAGE);
		}
	pc_end(s);
}

TEST_CASE("unplugged", 60);

TEST_EACH(test_what_nobody_has_asked_for_is_zeros, 2 * MEMORIES)
{
	struct pc_opts o = quiet(_i % MEMORIES);
	struct pc s;

	/* A preempt channel that stays open might bring more, unless the embedder knows what is missing. */
	o.preempt = _i / MEMORIES ? PC_LATE : PC_NO_PREEMPT;
	o.unplugged = o.preempt != PC_NO_PREEMPT;
	pc_begin_until(&s, pc_vcpus_started, &o);
	end_stream(&s);
	lands_with_zeros(&s);
}

/* Main has ended, and a page that nobody has asked for is still on its way on the preempt channel. */
TEST_EACH(test_a_page_that_comes_after_the_end_of_main_is_waited_for, MEMORIES)
{
	struct pc_opts o = quiet(_i);
	struct pc s;

	o.preempt = PC_LATE;
	pc_begin_until(&s, pc_vcpus_started, &o);
	for (unsigned b = 0; b < 2; b++)
		for (uint64_t u = 0; u < s.ram[b].units; u++)
			if (!s.ram[b].precopied[u] && (b == 0 || u > 3))
				pc_send_unit(&s, PC_MAIN, b, u);
	end_stream(&s);
	pc_settle(&s);
	ck_assert_int_eq(inm_get_state(s.e.inm), INM_STATE_POSTCOPY_ACTIVE);
	for (uint64_t u = 0; u <= 3; u++)
		if (!s.ram[1].precopied[u])
			pc_send_unit(&s, PC_PREEMPT, 1, u);
	pc_run(&s, 8000);
	pc_check_landed(&s);
	pc_end(&s);
}

/* The embedder knows better than the stream. */
TEST_EACH(test_in_a_block_with_unplugged_parts_what_was_asked_for_is_zeros, MEMORIES)
{
	struct pc_opts o = quiet(_i);
	struct pc s;

	o.precopied = 0;
	o.unplugged = true;
	o.device = pc_device_waits;
	pc_begin_until(&s, pc_asked, &o);
	end_stream(&s);
	lands_with_zeros(&s);
}

/* ---- in part ----------------------------------------------------------------------------------------------------- */

TEST_CASE("in part", 60, HUGE_POOL);

TEST(test_half_of_a_huge_page_is_lost_and_not_zeros)
{
	struct pc s;

	huge_pool_need(4);
	pc_begin_until(&s, pc_vcpus_started,
	               &(struct pc_opts){ .blocks = huge, .block_count = 2, .quiet = true, .unanswered = true });
	pc_send_run(&s, PC_MAIN, 0, 512, 700);
	end_stream(&s);
	check_lost(&s, "one is at 0x200000 of block 'pc.ram'");
	pc_give_up(&s);
}

/* A guess that nobody has been told of is no request, and hides nothing: a part of its page has come. */
TEST(test_half_of_a_huge_page_is_lost_also_where_it_was_to_be_asked_for_ahead)
{
	struct postcopy *pc;
	struct pc s;

	huge_pool_need(4);
	pc_begin_until(&s, pc_vcpus_started,
	               &(struct pc_opts){ .blocks = huge, .block_count = 2, .quiet = true, .unanswered = true });
	pc_send_run(&s, PC_MAIN, 0, 512, 700);
	pc_settle(&s);
	pc = &s.e.inm->postcopy;
	pc->ledger.offline = true;
	ck_assert(ledger_guess(&pc->ledger, &pc->blocks[0], 1, clock_now_ns()));
	end_stream(&s);
	check_lost(&s, "one is at 0x200000 of block 'pc.ram'");
	pc_give_up(&s);
}

/* What is unplugged is whole pages of the backing: one that has come in part was there. */
TEST(test_half_of_a_huge_page_is_lost_also_in_a_block_with_unplugged_parts)
{
	struct pc s;

	huge_pool_need(4);
	pc_begin_until(
	        &s, pc_vcpus_started,
	        &(struct pc_opts){
	                .blocks = huge, .block_count = 2, .unplugged = true, .quiet = true, .unanswered = true });
	pc_send_run(&s, PC_MAIN, 0, 512, 700);
	end_stream(&s);
	check_lost(&s, "one is at 0x200000 of block 'pc.ram'");
	pc_give_up(&s);
}
