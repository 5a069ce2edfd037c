/* Guests of terabytes: announced, discarded, listened for. */
#include "tests/support/check_main.h"
#include "tests/support/roomy.h"

#include <stdlib.h>
#include <string.h>

#define TIB (1ull << 40)
#define GIB (1ull << 30)
#define RANGES 4095u /* that one command holds */

static const char *const postcopy[] = { "postcopy-ram", NULL };

/* Measures what has been played; then the source goes away. */
static void play(struct roomy *r, struct wire *w, const char *what)
{
	static const struct land_opts o = {
		.caps = postcopy, .return_path = true, .end = SOURCE_END_CLOSE, .deadline_ms = 8000
	};

	ck_assert_int_lt(roomy_land(r, w, &o), 0);
	ck_assert_msg(strstr(r->error, "closed") || r->stats.state == INM_STATE_POSTCOPY_PAUSED, "%d, state %d: %s",
	              r->result, (int)r->stats.state, r->error);
	stall_check(&r->seen, what);
}

static void begin(struct roomy *r, struct wire *w, uint64_t bytes)
{
	struct wire_block *list = roomy_names(1, 4, bytes);

	*r = (struct roomy){ .bytes = bytes, .backing = ROOMY_MEMFD, .guest_view = true };
	roomy_begin(r);
	roomy_head(w, true);
	wire_advise(w, WIRE_TPAGE_BYTES, WIRE_TPAGE_BYTES);
	roomy_ram(w, list, 1);
	free(list);
}

static void end(struct roomy *r, struct wire *w)
{
	wire_fini(w);
	roomy_end(r);
}

TEST_CASE("ram", 120);

TEST(test_ranges_that_overlap_are_discarded_once_and_do_not_hold_up_others)
{
	struct wire_range *ranges = calloc(RANGES, sizeof(*ranges));
	struct wire w = { 0 };
	struct roomy r;

	ck_assert_ptr_nonnull(ranges);
	begin(&r, &w, 64 * GIB);
	for (unsigned i = 0; i < RANGES; i++)
		ranges[i].length = 64 * GIB - (uint64_t)(RANGES - i) * WIRE_TPAGE_BYTES;
	wire_discard(&w, "aaaa", ranges, RANGES);
	play(&r, &w, "4095 ranges, each a page longer");
	ck_assert_uint_eq(r.stats.discarded_pages, 64 * GIB / WIRE_TPAGE_BYTES - 1);
	/* The pages once, a system call for each range: nothing like 16 million pages for each of them. */
	ck_assert_uint_lt(r.seen.cpu_ns, 300 * NS_PER_MS);
	free(ranges);
	end(&r, &w);
}

/* All but one page, again and again: each time some thirty bytes. */
TEST(test_a_range_that_is_named_again_costs_a_look)
{
	const struct wire_range all = { 0, TIB - WIRE_TPAGE_BYTES };
	struct wire w = { 0 };
	struct roomy r;

	begin(&r, &w, TIB);
	for (unsigned i = 0; i < 20000; i++)
		wire_discard(&w, "aaaa", &all, 1);
	play(&r, &w, "20000 times a terabyte");
	ck_assert_uint_eq(r.stats.discarded_pages, TIB / WIRE_TPAGE_BYTES - 1);
	ck_assert_uint_lt(r.seen.cpu_ns, 300 * NS_PER_MS);
	end(&r, &w);
}

TEST(test_announced_discarded_and_listened_for_a_large_guest_does_not_hold_up_others)
{
	const struct wire_range all = { 0, 16 * TIB - WIRE_TPAGE_BYTES };
	struct wire w = { 0 };
	struct roomy r;
	size_t package;

	begin(&r, &w, 16 * TIB - WIRE_TPAGE_BYTES);
	wire_discard(&w, "aaaa", &all, 1);
	package = wire_package_begin(&w);
	wire_listen(&w);
	wire_device(&w, 5, &wire_standard_devices[0]);
	wire_ping(&w, 3);
	wire_run(&w);
	wire_package_end(&w, package);
	play(&r, &w, "16 TiB");
	end(&r, &w);
}

/* What is given back is there: the kernel's work goes with the pages. */
TEST(test_giving_back_what_has_come_does_not_hold_up_others)
{
	const uint64_t bytes = 256ull << 20;
	const struct wire_range all = { 0, bytes };
	static uint8_t page[WIRE_TPAGE_BYTES] = { 1 };
	struct wire w = { 0 };
	struct roomy r;

	begin(&r, &w, bytes);
	wire_part(&w, WIRE_PART, 2);
	for (uint64_t off = 0; off < bytes; off += WIRE_TPAGE_BYTES)
		wire_page(&w, off ? NULL : "aaaa", off, page);
	wire_ram_end(&w, 2);
	wire_discard(&w, "aaaa", &all, 1);
	play(&r, &w, "256 MiB, received and discarded");
	ck_assert_uint_eq(r.stats.discarded_pages, bytes / WIRE_TPAGE_BYTES);
	end(&r, &w);
}
