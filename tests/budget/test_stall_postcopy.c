/* As many blocks as there may be, in postcopy; pages that are scattered over huge ones; floods of commands. */
#include "tests/support/check_main.h"
#include "tests/support/roomy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MIB (1ull << 20)
#define BLOCKS 4096u

static const char *const postcopy[] = { "postcopy-ram", NULL };

static void put_package(struct wire *w)
{
	size_t package = wire_package_begin(w);

	wire_listen(w);
	wire_device(w, 5, &wire_standard_devices[0]);
	wire_ping(w, 3);
	wire_run(w);
	wire_package_end(w, package);
}

TEST_CASE("postcopy", 120);

/* Discarded, listened for, half of them sent, and the source goes away: a pause, and then the embedder's patience. */
TEST(test_postcopy_of_4096_blocks_does_not_hold_up_others)
{
	static const struct land_opts o = {
		.caps = postcopy, .return_path = true, .end = SOURCE_END_CLOSE, .deadline_ms = 3000
	};
	struct wire_block *list = roomy_names(BLOCKS, 250, 4 * WIRE_TPAGE_BYTES);
	struct roomy r = { .bytes = BLOCKS * 4ull * WIRE_TPAGE_BYTES, .backing = ROOMY_MEMFD, .guest_view = true };
	const struct wire_range all = { 0, 4 * WIRE_TPAGE_BYTES };
	static uint8_t page[WIRE_TPAGE_BYTES] = { 1 };
	struct wire w = { 0 };

	roomy_begin(&r);
	roomy_head(&w, true);
	wire_advise(&w, WIRE_TPAGE_BYTES, WIRE_TPAGE_BYTES);
	roomy_ram(&w, list, BLOCKS);
	for (unsigned i = 0; i < BLOCKS; i++)
		wire_discard(&w, list[i].name, &all, 1);
	put_package(&w);
	wire_part(&w, WIRE_PART, 2);
	for (unsigned i = 0; i < BLOCKS; i += 2)
		wire_page(&w, list[BLOCKS - 1 - i].name, 0, page);
	wire_ram_end(&w, 2);
	roomy_land(&r, &w, &o);
	ck_assert_int_eq(r.stats.state, INM_STATE_POSTCOPY_PAUSED);
	ck_assert_uint_eq(r.stats.postcopy_pages, BLOCKS / 2);
	stall_check(&r.seen, "4096 blocks in postcopy");
	stall_check_cpu(&r.seen, "4096 blocks in postcopy", w.len, 100);
	wire_fini(&w);
	free(list);
	roomy_end(&r);
}

/* The longest that the kernel takes to make one of @count huge pages, when it is touched. */
static uint64_t first_touch_ns(uint8_t *area, uint64_t count)
{
	uint64_t worst_ns = 0, began_ns, took_ns;

	for (uint64_t i = 0; i < count; i++) {
		began_ns = stall_cpu_ns();
		*(volatile uint8_t *)(area + i * 2 * MIB) = 1;
		took_ns = stall_cpu_ns() - began_ns;
		worst_ns = took_ns > worst_ns ? took_ns : worst_ns;
	}
	return worst_ns;
}

/*
 * One page for each huge one. What the kernel takes to make a huge page of zeros is a figure that we cannot change: 0.1
 * to 9 ms for 2 MiB, and the embedder has chosen it. No turn may have more than one of them.
 */
TEST(test_pages_scattered_over_huge_ones_do_not_hold_up_others)
{
	const uint64_t count = 128, spare = 64; /* the spare ones are for us */
	struct wire_block *list = roomy_names(1, 4, count * 2 * MIB);
	struct roomy r = { .bytes = (count + spare + 1) * 2 * MIB };
	static uint8_t page[WIRE_TPAGE_BYTES] = { 1 };
	struct wire w = { 0 };
	uint64_t touch_ns;

	roomy_begin(&r);
	madvise(r.area, r.bytes, MADV_HUGEPAGE);
	roomy_head(&w, false);
	roomy_ram(&w, list, 1);
	wire_part(&w, WIRE_PART, 2);
	for (uint64_t i = 0; i < count; i++)
		wire_page(&w, i ? NULL : "aaaa", i * 2 * MIB, page);
	wire_ram_end(&w, 2);
	roomy_tail(&w);
	ck_assert_msg(roomy_land(&r, &w, &(struct land_opts){ 0 }) == 0, "%s", r.error);
	touch_ns = first_touch_ns(r.area + r.bytes - spare * 2 * MIB, spare - 1);
	stall_check_beside(&r.seen, "a page for each huge page", touch_ns);
	printf("%.2f ms of CPU a page; a first touch takes up to %.2f\n", (double)r.seen.cpu_ns / 1e6 / (double)count,
	       (double)touch_ns / 1e6);
	wire_fini(&w);
	free(list);
	roomy_end(&r);
}

/* Elements that say nothing, as many as fit into a megabyte: commands, empty sections, flushes. */
TEST(test_floods_of_small_elements_do_not_hold_up_others)
{
	struct wire_block *list = roomy_names(1, 4, MIB);
	struct roomy r = { .bytes = MIB };
	struct wire w = { 0 };

	roomy_begin(&r);
	roomy_head(&w, true);
	roomy_ram(&w, list, 1);
	for (unsigned i = 0; i < 20000; i++)
		wire_open_return_path(&w);
	for (unsigned i = 0; i < 20000; i++)
		wire_command(&w, WIRE_CMD_RESUME, NULL, 0);
	for (unsigned i = 0; i < 50000; i++) {
		wire_part(&w, WIRE_PART, 2);
		wire_ram_end(&w, 2);
	}
	wire_part(&w, WIRE_PART, 2);
	for (unsigned i = 0; i < 100000; i++)
		wire_flush(&w);
	wire_ram_end(&w, 2);
	roomy_tail(&w);
	ck_assert_msg(roomy_land(&r, &w, &(struct land_opts){ .return_path = true }) == 0, "%s", r.error);
	stall_check(&r.seen, "floods");
	stall_check_cpu(&r.seen, "floods", w.len, 100);
	wire_fini(&w);
	free(list);
	roomy_end(&r);
}
