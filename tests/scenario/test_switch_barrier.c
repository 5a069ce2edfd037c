/*
 * The switch to postcopy is a barrier: a byte that was announced before it never reaches guest memory after it. See
 * memory/gate.h. A source announces a packet of pages on a multifd channel, holds back the last byte, and switches.
 */
#include "tests/support/check_main.h"

#include <errno.h>
#include <string.h>

#include "tests/support/huge_pool.h"
#include "tests/support/recovery_scene.h"

#define THEIRS 0xee
#define LATE_PAGES 8u

static const struct pc_block memfd[] = { { "pc.ram", 64, EMB_MEMFD }, { "vga.vram", 16, EMB_MEMFD } };
static const struct pc_block anon[] = { { "pc.ram", 64, EMB_ANON }, { "vga.vram", 16, EMB_ANON } };
static const struct pc_block huge[] = { { "pc.ram", 1024, EMB_HUGETLB }, { "vga.vram", 16, EMB_MEMFD } };

/* Pages that are final at the switch: the guest may write them. */
static void pick_final(const struct pc *s, uint64_t offsets[LATE_PAGES])
{
	unsigned n = 0;

	for (uint64_t i = 0; n < LATE_PAGES && i < s->ram[0].said.pages; i++)
		if (s->ram[0].precopied[i / s->ram[0].unit_pages])
			offsets[n++] = i * PC_PAGE;
	ck_assert_uint_eq(n, LATE_PAGES);
}

/* On channel 0, all but the last @held bytes. */
static void put_late_packet(struct pc *s, const uint64_t offsets[LATE_PAGES], size_t held)
{
	static uint8_t pages[LATE_PAGES * PC_PAGE], piece[2 * LATE_PAGES * PC_PAGE];
	uint32_t method = !s->o.compression                     ? 0 :
	                  strcmp(s->o.compression, "zlib") == 0 ? (uint32_t)WIRE_MULTIFD_ZLIB :
	                                                          (uint32_t)WIRE_MULTIFD_ZSTD;
	struct wire_encoder *enc = wire_encoder_new(method);
	struct pc_line *l = &s->lines[PC_MULTIFD];
	size_t bytes;

	memset(pages, THEIRS, sizeof(pages));
	bytes = wire_encode(enc, pages, sizeof(pages), piece, sizeof(piece));
	wire_encoder_free(enc);
	wire_multifd_header(&l->out, &(struct wire_packet){ .flags = method,
	                                                    .pages_alloc = WIRE_MULTIFD_PAGES_MAX,
	                                                    .normal_pages = LATE_PAGES,
	                                                    .payload_bytes = (uint32_t)bytes,
	                                                    .block = s->ram[0].said.name,
	                                                    .offsets = offsets,
	                                                    .offset_count = LATE_PAGES });
	wire_bytes(&l->out, piece, bytes);
	l->allowed = l->sent + l->out.len - l->done - held;
}

/* It must not come to this: the guest runs, and writes what is its own. Then the late bytes come. */
static void run_into_it(struct pc *s)
{
	ck_assert_msg(pc_until(s, pc_touched_all, 5000), "the guest hangs");
	s->lines[PC_MULTIFD].allowed = PC_ALL;
	wire_multifd_sync(&s->lines[PC_MULTIFD].out);
	pc_settle(s);
	ck_assert_msg(pc_compare(s) == 0, "what the guest wrote was overwritten");
	ck_abort_msg("the guest runs although a channel stands inside a packet");
}

/* All sync points are passed: the next thing on main is the first discard. */
static void go_to_the_switch(struct pc *s)
{
	pc_precopy(s);
	pc_allow(s, wire_find(&s->head, "command", 3));
	pc_settle(s);
}

static void meet(const struct pc_opts *o, size_t held)
{
	uint64_t offsets[LATE_PAGES];
	struct pc s;

	pc_begin(&s, o);
	pick_final(&s, offsets);
	go_to_the_switch(&s);
	put_late_packet(&s, offsets, held);
	pc_settle(&s);
	pc_switch(&s);
	if (pc_until(&s, pc_vcpus_started, 5000))
		run_into_it(&s);
	pc_check_failed(&s, -EPROTO, "in the middle of a packet with pages of block 'pc.ram'");
	pc_end(&s);
}

TEST_CASE("overwritten", 60);

/* The control runs this one. */
TEST(test_a_packet_that_ends_after_the_switch_overwrites_nothing)
{
	meet(&(struct pc_opts){ .blocks = memfd,
	                        .block_count = 2,
	                        .precopied = 60,
	                        .channels = 2,
	                        .quiet = true,
	                        .touch = { .threads = 1, .write = true } },
	     1);
}

static const struct {
	const struct pc_block *blocks;
	const char *compression;
	size_t held;
} ways[] = {
	{ memfd, NULL, LATE_PAGES *PC_PAGE },
	{ memfd, NULL, PC_PAGE + 1 },
	{ memfd, "zlib", 1 },
	{ memfd, "zstd", 1 },
	{ anon, NULL, LATE_PAGES *PC_PAGE },
	{ anon, NULL, 1 },
	{ anon, "zlib", 1 },
	{ anon, "zstd", 1 },
};
#define WAYS ((int)(sizeof(ways) / sizeof(ways[0])))

TEST_CASE("barrier", 60);

TEST_EACH(test_so_it_is_in_all_memory_and_with_compression, WAYS)
{
	meet(&(struct pc_opts){ .blocks = ways[_i].blocks,
	                        .block_count = 2,
	                        .precopied = 60,
	                        .channels = 1,
	                        .quiet = true,
	                        .compression = ways[_i].compression },
	     ways[_i].held);
}

TEST_CASE("huge", 60, HUGE_POOL);

TEST(test_so_it_is_in_huge_pages)
{
	huge_pool_need(4);
	meet(&(struct pc_opts){ .blocks = huge, .block_count = 2, .precopied = 60, .channels = 1, .quiet = true }, 1);
}

TEST_CASE("barrier", 60);

/* An end in the middle is told from one between packets before anything is switched. */
TEST(test_a_channel_that_ended_inside_a_packet_ends_the_switch)
{
	uint64_t offsets[LATE_PAGES];
	struct pc s;

	pc_begin(&s, &(struct pc_opts){ .blocks = memfd, .block_count = 2, .precopied = 60, .channels = 1 });
	pick_final(&s, offsets);
	go_to_the_switch(&s);
	put_late_packet(&s, offsets, 1);
	pc_settle(&s);
	pc_close_line(&s, PC_MULTIFD);
	pc_switch(&s);
	pc_until(&s, pc_vcpus_started, 5000);
	pc_check_failed(&s, -ENODATA, "in the middle of a packet");
	pc_end(&s);
}

/* ---- pages where none may be ------------------------------------------------------------------------------------- */

TEST_CASE("pages where none may be", 60);

/* The guest runs: it pauses, and what came is nowhere. */
TEST_EACH(test_a_packet_with_pages_after_the_switch_is_an_error_and_lands_nowhere, 2)
{
	uint64_t offsets[LATE_PAGES];
	struct pc s;

	pc_begin(
	        &s,
	        &(struct pc_opts){
	                .blocks = _i ? anon : memfd, .block_count = 2, .precopied = 60, .channels = 2, .quiet = true });
	pick_final(&s, offsets);
	pc_switch(&s);
	ck_assert(pc_until(&s, pc_vcpus_started, 5000));
	put_late_packet(&s, offsets, 0);
	ck_assert(pc_until(&s, pc_paused, 5000));
	ck_assert_ptr_nonnull(strstr(inm_error(s.e.inm), "pages after the switch to postcopy"));
	pc_cancel(&s);
	pc_run(&s, 5000);
	pc_check_cancelled(&s);
	for (unsigned i = 0; i < LATE_PAGES; i++)
		ck_assert_uint_ne(*pc_guest(&s, 0, offsets[i] / PC_PAGE), THEIRS);
	pc_end(&s);
}

static bool has_ended(struct rec *r)
{
	return r->s.result != 1;
}

/*
 * What came late was newer than what is here, and a source that is back does not send it again. So the guest is not
 * what it was at the source, and that is the last word.
 */
TEST_EACH(test_a_guest_that_has_missed_pages_has_not_landed_after_a_recovery_either, 2)
{
	const struct rec_opts back = rec_back(REC_NO_PREEMPT);
	uint64_t offsets[LATE_PAGES];
	struct rec r;

	rec_begin(
	        &r,
	        &(struct pc_opts){
	                .blocks = _i ? anon : memfd, .block_count = 2, .precopied = 60, .channels = 2, .quiet = true });
	pick_final(&r.s, offsets);
	pc_switch(&r.s);
	ck_assert(rec_until(&r, rec_guest_runs, 5000));
	put_late_packet(&r.s, offsets, 0);
	ck_assert(pc_until(&r.s, pc_paused, 5000));
	r.losses++;
	rec_forget(&r);
	rec_recover(&r, &back);
	pc_push(&r.s);
	ck_assert(rec_until(&r, has_ended, 10000));
	ck_assert_int_eq(r.s.result, -EPROTO);
	ck_assert_msg(strstr(inm_error(r.s.e.inm), "has not landed"), "%s", inm_error(r.s.e.inm));
	ck_assert_msg(strstr(inm_error(r.s.e.inm), "after the switch"), "%s", inm_error(r.s.e.inm));
	ck_assert_uint_eq(pc_reply_count(&r.s, WIRE_RP_SHUT), 0);
	pc_free(&r.s);
	rec_end(&r);
}

static void put_part(struct pc *s, struct wire *w)
{
	wire_part(w, WIRE_PART, 2);
	wire_content_record(w, s->ram[0].said.name, 0, 1, false);
	wire_ram_end(w, 2);
}

TEST(test_a_page_between_a_discard_and_listen_is_an_error)
{
	struct pc s;

	pc_begin(&s, &(struct pc_opts){ .inject_at = PC_AFTER_DISCARD, .inject = put_part });
	pc_switch(&s);
	pc_until(&s, pc_vcpus_started, 5000);
	pc_check_failed(&s, -EPROTO, "between the switch to postcopy and POSTCOPY_LISTEN");
	pc_end(&s);
}

static void put_end_of_precopy(struct pc *s, struct wire *w)
{
	(void)s;
	wire_part(w, WIRE_END, 2);
	wire_ram_end(w, 2);
	wire_globalstate(w, 50, "running");
	wire_eof(w);
	wire_vmdesc(w);
}

TEST(test_a_stream_that_discards_and_then_ends_as_precopy_has_not_landed)
{
	struct pc s;

	pc_begin(&s, &(struct pc_opts){ .precopied = 50, .inject_at = PC_AFTER_DISCARD, .inject = put_end_of_precopy });
	pc_switch(&s);
	pc_until(&s, pc_vcpus_started, 5000);
	pc_check_failed(&s, -EPROTO, "pages were discarded, and no package has come");
	pc_end(&s);
}
