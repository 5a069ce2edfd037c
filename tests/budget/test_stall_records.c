/* Many small records: what one costs, and how long others wait meanwhile. */
#include "tests/support/check_main.h"
#include "tests/support/roomy.h"

#include <stdlib.h>
#include <sys/mman.h>

#define BLOCKS 4096u

/* A block costs two lines of /proc/self/maps here, and a mapping of ours. */
#define NS_PER_BYTE_OF_VIEWS 150
#define RECORDS (512u << 10)

/* 12 to 14 us each before names had an index. */
#define NS_PER_BYTE_MAX 30

static void play_records(const char *what, unsigned blocks, unsigned name_bytes)
{
	struct wire_block *list = roomy_names(blocks, name_bytes, WIRE_TPAGE_BYTES);
	struct roomy r = { .bytes = (uint64_t)blocks * WIRE_TPAGE_BYTES };
	struct wire w = { 0 };

	roomy_begin(&r);
	roomy_head(&w, false);
	roomy_ram(&w, list, blocks);
	wire_part(&w, WIRE_PART, 2);
	for (unsigned i = 0; i < RECORDS; i++)
		wire_zero(&w, list[blocks - 1].name, 0, 0);
	wire_ram_end(&w, 2);
	roomy_tail(&w);
	ck_assert_msg(roomy_land(&r, &w, &(struct land_opts){ 0 }) == 0, "%s", r.error);
	ck_assert_uint_eq(r.stats.zero_pages, RECORDS);
	stall_check(&r.seen, what);
	stall_check_cpu(&r.seen, what, w.len, NS_PER_BYTE_MAX);
	wire_fini(&w);
	free(list);
	roomy_end(&r);
}

TEST_CASE("records", 120);

TEST(test_records_of_one_block_do_not_hold_up_others)
{
	play_records("records of one block", 1, 4);
}

TEST(test_records_that_name_the_last_of_4096_blocks_do_not_hold_up_others)
{
	play_records("records that name the last of 4096 blocks", BLOCKS, 4);
}

TEST(test_a_list_of_4096_blocks_with_long_names_does_not_hold_up_others)
{
	struct wire_block *list = roomy_names(BLOCKS, 250, WIRE_TPAGE_BYTES);
	struct roomy r = { .bytes = (uint64_t)BLOCKS * WIRE_TPAGE_BYTES };
	struct wire w = { 0 };

	roomy_begin(&r);
	roomy_head(&w, false);
	roomy_ram(&w, list, BLOCKS);
	roomy_tail(&w);
	ck_assert_msg(roomy_land(&r, &w, &(struct land_opts){ 0 }) == 0, "%s", r.error);
	ck_assert_uint_eq(r.blocks, BLOCKS);
	stall_check(&r.seen, "4096 blocks");
	stall_check_cpu(&r.seen, "4096 blocks", w.len, NS_PER_BYTE_MAX);
	wire_fini(&w);
	free(list);
	roomy_end(&r);
}

/*
 * Each block is given twice, and the embedder's view is in as many pieces as there are blocks. So the list of mappings
 * that they are compared by is as long as it gets (memory/views.h).
 */
TEST(test_comparing_the_views_of_4096_blocks_does_not_hold_up_others)
{
	struct wire_block *list = roomy_names(BLOCKS, 250, WIRE_TPAGE_BYTES);
	struct roomy r = { .bytes = (uint64_t)BLOCKS * WIRE_TPAGE_BYTES, .backing = ROOMY_MEMFD, .guest_view = true };
	struct wire w = { 0 };

	roomy_begin(&r);
	for (unsigned i = 0; i < BLOCKS; i += 2)
		ck_assert_int_eq(mprotect(r.area + (size_t)i * WIRE_TPAGE_BYTES, WIRE_TPAGE_BYTES, PROT_READ), 0);
	roomy_head(&w, false);
	roomy_ram(&w, list, BLOCKS);
	roomy_tail(&w);
	ck_assert_msg(roomy_land(&r, &w, &(struct land_opts){ 0 }) == 0, "%s", r.error);
	ck_assert_uint_eq(r.blocks, BLOCKS);
	stall_check(&r.seen, "the views of 4096 blocks");
	stall_check_cpu(&r.seen, "the views of 4096 blocks", w.len, NS_PER_BYTE_OF_VIEWS);
	wire_fini(&w);
	free(list);
	roomy_end(&r);
}
