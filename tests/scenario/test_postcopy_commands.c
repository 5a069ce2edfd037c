/* A source that breaks the rules of the switch: the error names it, we tell it, and it keeps its guest
 * (doc/wire/stream.md 11). */
#include "tests/support/check_main.h"

#include <errno.h>
#include <string.h>

#include "tests/support/huge_pool.h"
#include "tests/support/postcopy_scene.h"

/* ---- discards ---------------------------------------------------------------------------------------------------- */

#define RAM "pc.ram" /* 64 pages */

static void discard(struct wire *w, struct wire_discard d)
{
	if (!d.block)
		d.block = RAM;
	wire_discard_n(w, &d);
}

static void discard_range(struct wire *w, uint64_t start, uint64_t length)
{
	discard(w, (struct wire_discard){ .ranges = &(struct wire_range){ start, length }, .count = 1 });
}

static void bad_version(struct pc *s, struct wire *w)
{
	(void)s;
	discard(w, (struct wire_discard){ .version = 1, .ranges = &(struct wire_range){ 0, PC_PAGE }, .count = 1 });
}

static void bad_zero(struct pc *s, struct wire *w)
{
	(void)s;
	discard(w, (struct wire_discard){ .zero = 1, .ranges = &(struct wire_range){ 0, PC_PAGE }, .count = 1 });
}

static void unknown_block(struct pc *s, struct wire *w)
{
	(void)s;
	discard(w, (struct wire_discard){ .block = "nope", .ranges = &(struct wire_range){ 0, PC_PAGE }, .count = 1 });
}

static void no_name(struct pc *s, struct wire *w)
{
	static const struct wire_range ranges[2] = { { 0, PC_PAGE }, { PC_PAGE, PC_PAGE } };

	(void)s;
	discard(w, (struct wire_discard){ .block = "", .ranges = ranges, .count = 2 });
}

static void no_range(struct pc *s, struct wire *w)
{
	(void)s;
	discard(w, (struct wire_discard){ .block = "twenty bytes of name" });
}

static void half_a_range(struct pc *s, struct wire *w)
{
	static const struct wire_range ranges[2] = { { 0, PC_PAGE }, { 0, PC_PAGE } };

	(void)s;
	discard(w, (struct wire_discard){ .ranges = ranges, .count = 2, .tail_bytes = -8 });
}

static void a_byte_more(struct pc *s, struct wire *w)
{
	(void)s;
	discard(w, (struct wire_discard){ .ranges = &(struct wire_range){ 0, PC_PAGE }, .count = 1, .tail_bytes = 1 });
}

static void name_beyond_the_end(struct pc *s, struct wire *w)
{
	uint8_t payload[20] = { 0, 255, 'p' };

	(void)s;
	wire_command(w, WIRE_CMD_DISCARD, payload, sizeof(payload));
}

static void unaligned_start(struct pc *s, struct wire *w)
{
	(void)s;
	discard_range(w, 1, PC_PAGE);
}

static void unaligned_length(struct pc *s, struct wire *w)
{
	(void)s;
	discard_range(w, 0, PC_PAGE + 512);
}

static void no_length(struct pc *s, struct wire *w)
{
	(void)s;
	discard_range(w, 0, 0);
}

static void behind_the_end(struct pc *s, struct wire *w)
{
	(void)s;
	discard_range(w, 64 * PC_PAGE, PC_PAGE);
}

static void across_the_end(struct pc *s, struct wire *w)
{
	(void)s;
	discard_range(w, 63 * PC_PAGE, 2 * PC_PAGE);
}

static void wraps_round(struct pc *s, struct wire *w)
{
	(void)s;
	discard_range(w, 2 * PC_PAGE, UINT64_MAX - PC_PAGE + 1);
}

static void wraps_to_the_block(struct pc *s, struct wire *w)
{
	(void)s;
	discard_range(w, UINT64_MAX - PC_PAGE + 1, 2 * PC_PAGE);
}

static void second_range_is_bad(struct pc *s, struct wire *w)
{
	static const struct wire_range ranges[2] = { { 0, PC_PAGE }, { 64 * PC_PAGE, PC_PAGE } };

	(void)s;
	discard(w, (struct wire_discard){ .ranges = ranges, .count = 2 });
}

/* ---- commands ---------------------------------------------------------------------------------------------------- */

static void put_advise(struct pc *s, struct wire *w)
{
	(void)s;
	wire_advise(w, PC_PAGE, PC_PAGE);
}

static void put_advise_empty(struct pc *s, struct wire *w)
{
	(void)s;
	wire_advise_empty(w);
}

static void put_advise_8(struct pc *s, struct wire *w)
{
	(void)s;
	wire_command(w, WIRE_CMD_ADVISE, "\0\0\0\0\0\0\x10\0", 8);
}

static void put_listen(struct pc *s, struct wire *w)
{
	(void)s;
	wire_listen(w);
}

static void put_run(struct pc *s, struct wire *w)
{
	(void)s;
	wire_run(w);
}

static void put_discard(struct pc *s, struct wire *w)
{
	(void)s;
	discard_range(w, 0, PC_PAGE);
}

static void put_packaged(struct pc *s, struct wire *w)
{
	size_t begun = wire_package_begin(w);

	(void)s;
	wire_listen(w);
	wire_run(w);
	wire_package_end(w, begun);
}

static void put_byte(struct pc *s, struct wire *w)
{
	(void)s;
	wire_u8(w, 0);
}

static void put_eof(struct pc *s, struct wire *w)
{
	(void)s;
	wire_eof(w);
}

static void put_part(struct pc *s, struct wire *w)
{
	(void)s;
	wire_part(w, WIRE_PART, 2);
	wire_eos(w);
	wire_footer(w, 2);
}

static void put_unknown(struct pc *s, struct wire *w)
{
	(void)s;
	wire_command(w, 12, "", 0);
}

static void put_full(struct pc *s, struct wire *w)
{
	(void)s;
	wire_device(w, 77, &(struct wire_device){ .name = "stray", .version_id = 1, .data = "x", .bytes = 1 });
}

/* ---- records ----------------------------------------------------------------------------------------------------- */

static void in_part(struct wire *w, void (*put)(struct wire *w))
{
	wire_part(w, WIRE_PART, 2);
	put(w);
	wire_eos(w);
	wire_footer(w, 2);
}

static void xbzrle_record(struct wire *w)
{
	wire_xbzrle_n(w, RAM, 0, 1, 3, "\0\1x", 3);
}

static void flush_record(struct wire *w)
{
	wire_flush(w);
}

static void list_record(struct wire *w)
{
	wire_mem_size(w, wire_standard_blocks, 1);
}

static void hook_record(struct wire *w)
{
	wire_word(w, 0, WIRE_RAM_HOOK);
}

static void beyond_record(struct wire *w)
{
	wire_zero(w, RAM, 64 * PC_PAGE, 0);
}

static void fill_record(struct wire *w)
{
	wire_zero(w, RAM, 0, 1);
}

static void unnamed_record(struct wire *w)
{
	wire_zero(w, "nope", 0, 0);
}

#define PUT_RECORD(name) \
	static void put_##name(struct pc *s, struct wire *w) \
	{ \
		(void)s; \
		in_part(w, name##_record); \
	}
PUT_RECORD(xbzrle)
PUT_RECORD(flush)
PUT_RECORD(list)
PUT_RECORD(hook)
PUT_RECORD(beyond)
PUT_RECORD(fill)
PUT_RECORD(unnamed)

/* ---- the table --------------------------------------------------------------------------------------------------- */

static const struct lie {
	const char *name;
	enum pc_place at;
	pc_inject_fn *put;
	int code;
	const char *words; /* one of them is in the error */
} lies[] = {
	{ "discard: version", PC_BEFORE_DISCARD, bad_version, -EPROTO, "version 1" },
	{ "discard: byte after the name", PC_BEFORE_DISCARD, bad_zero, -EPROTO, "after the name" },
	{ "discard: unknown block", PC_BEFORE_DISCARD, unknown_block, -EPROTO, "unknown block 'nope'" },
	{ "discard: no name", PC_BEFORE_DISCARD, no_name, -EPROTO, "unknown block" },
	{ "discard: no range", PC_BEFORE_DISCARD, no_range, -EPROTO, "no whole number of ranges" },
	{ "discard: half a range", PC_BEFORE_DISCARD, half_a_range, -EPROTO, "no whole number of ranges" },
	{ "discard: a byte more", PC_BEFORE_DISCARD, a_byte_more, -EPROTO, "no whole number of ranges" },
	{ "discard: long name", PC_BEFORE_DISCARD, name_beyond_the_end, -EPROTO, "no whole number of ranges" },
	{ "discard: start", PC_BEFORE_DISCARD, unaligned_start, -EPROTO, "no whole pages" },
	{ "discard: length", PC_BEFORE_DISCARD, unaligned_length, -EPROTO, "no whole pages" },
	{ "discard: nothing", PC_BEFORE_DISCARD, no_length, -EPROTO, "no whole pages" },
	{ "discard: behind the end", PC_AFTER_DISCARD, behind_the_end, -EPROTO, "no whole pages of block 'pc.ram'" },
	{ "discard: across the end", PC_AFTER_DISCARD, across_the_end, -EPROTO, "no whole pages" },
	{ "discard: wraps", PC_AFTER_DISCARD, wraps_round, -EPROTO, "no whole pages" },
	{ "discard: wraps to the block", PC_AFTER_DISCARD, wraps_to_the_block, -EPROTO, "no whole pages" },
	{ "discard: second range", PC_AFTER_DISCARD, second_range_is_bad, -EPROTO, "no whole pages" },

	{ "ADVISE twice", PC_BEFORE_START, put_advise, -EPROTO, "a second one" },
	{ "ADVISE without RAM", PC_BEFORE_ADVISE, put_advise_empty, -EPROTO, "dirty-bitmaps" },
	{ "ADVISE of 8 bytes", PC_BEFORE_ADVISE, put_advise_8, -EPROTO, "8 bytes" },
	{ "ADVISE behind the list", PC_BEFORE_DISCARD, put_advise, -EPROTO, "after the list" },
	{ "DISCARD before ADVISE", PC_BEFORE_ADVISE, put_discard, -EPROTO, "not advised" },
	{ "DISCARD before the list", PC_BEFORE_START, put_discard, -EPROTO, "before the list" },
	{ "PACKAGED before ADVISE", PC_BEFORE_ADVISE, put_packaged, -EPROTO, "not advised" },
	{ "PACKAGED before the list", PC_BEFORE_START, put_packaged, -EPROTO, "before the list" },
	{ "LISTEN outside", PC_AFTER_DISCARD, put_listen, -EPROTO, "outside a package" },
	{ "RUN outside", PC_AFTER_DISCARD, put_run, -EPROTO, "outside a package" },
	{ "unknown command", PC_AFTER_DISCARD, put_unknown, -EPROTO, "unknown" },

	{ "DISCARD before LISTEN", PC_BEFORE_LISTEN, put_discard, -EPROTO, "package" },
	{ "RUN before LISTEN", PC_BEFORE_LISTEN, put_run, -EPROTO, "package" },
	{ "two LISTENs", PC_AFTER_LISTEN, put_listen, -EPROTO, "package" },
	{ "DISCARD in the package", PC_AFTER_LISTEN, put_discard, -EPROTO, "package" },
	{ "a package in a package", PC_BEFORE_RUN, put_packaged, -EPROTO, "package" },
	{ "two RUNs", PC_BEFORE_RUN, put_run, -EPROTO, "package" },
	{ "EOF in the package", PC_BEFORE_RUN, put_eof, -EPROTO, "package" },
	{ "PART in the package", PC_BEFORE_RUN, put_part, -EPROTO, "package" },
	{ "unknown command in the package", PC_BEFORE_RUN, put_unknown, -EPROTO, "package" },
	{ "a byte behind RUN", PC_AFTER_RUN, put_byte, -EPROTO, "package" },
	{ "a section behind RUN", PC_AFTER_RUN, put_full, -EPROTO, "package" },
};
#define LIES ((int)(sizeof(lies) / sizeof(lies[0])))

/* Once everything has come at once, once byte by byte up to where it matters. */
static void is_refused(const struct pc_opts *o, int code, const char *words)
{
	struct pc s;

	pc_begin(&s, o);
	pc_switch(&s);
	pc_run(&s, 5000);
	pc_check_failed(&s, code, words);
	ck_assert_uint_eq(s.request_count, 0);
	pc_end(&s);
}

TEST_CASE("refused", 20);

TEST_EACH(test_what_does_not_belong_there_is_named_and_told, LIES)
{
	const struct lie *lie = &lies[_i];

	is_refused(&(struct pc_opts){ .precopied = 50, .inject_at = lie->at, .inject = lie->put }, lie->code,
	           lie->words);
}

TEST(test_advise_must_fit_this_side)
{
	is_refused(&(struct pc_opts){ .summary = 0x201000 }, -EINVAL, "page sizes 0x201000");
	is_refused(&(struct pc_opts){ .summary = 0x2000 }, -EINVAL, "page sizes 0x2000");
	is_refused(&(struct pc_opts){ .advised_tpage_bytes = 0x2000 }, -EPROTO, "target pages of 0x2000");
	is_refused(&(struct pc_opts){ .no_advise = true }, -EPROTO, "not advised");
}

TEST(test_a_package_has_a_length_a_beginning_and_an_end)
{
	is_refused(&(struct pc_opts){ .package_lies = true, .package_bytes = 0 }, -EPROTO, "a package of 0 bytes");
	is_refused(&(struct pc_opts){ .package_lies = true, .package_bytes = UINT32_MAX }, -EPROTO,
	           "a package of 4294967295 bytes");
	is_refused(&(struct pc_opts){ .package_lies = true, .package_bytes = 3 }, -EPROTO, "package");
	is_refused(&(struct pc_opts){ .no_listen = true }, -EPROTO, "does not begin with LISTEN");
	is_refused(&(struct pc_opts){ .no_run = true }, -EPROTO, "package");
	is_refused(&(struct pc_opts){ .no_run = true, .no_listen = true, .no_devices = true }, -EPROTO, "package");
}

/* It says that more comes than does: nothing is allocated in advance, and its end is an end of the stream. */
TEST(test_a_package_that_ends_early_is_an_end_of_the_stream)
{
	struct pc s;

	pc_begin(&s, &(struct pc_opts){ .package_lies = true, .package_bytes = 128u << 20, .quiet = true });
	pc_switch(&s);
	pc_settle(&s);
	ck_assert_int_eq(s.result, 1);
	ck_assert_uint_lt(census_rss_kib(), 100000);
	pc_close_line(&s, PC_MAIN);
	pc_run(&s, 5000);
	ck_assert_int_eq(s.result, -ENODATA);
	pc_free(&s);
	ck_assert_uint_eq(s.vcpu_starts, 0);
	pc_end(&s);
}

/* ---- after the package, before RUN: a callback waits meanwhile -------------------------------------------------- */

static const struct lie late_lies[] = {
	{ "DISCARD after LISTEN", PC_AFTER_PACKAGE_END, put_discard, -EPROTO, "after LISTEN" },
	{ "second package", PC_AFTER_PACKAGE_END, put_packaged, -EPROTO, "after LISTEN" },
	{ "LISTEN", PC_AFTER_PACKAGE_END, put_listen, -EPROTO, "outside a package" },
	{ "RUN", PC_AFTER_PACKAGE_END, put_run, -EPROTO, "outside a package" },
	{ "ADVISE", PC_AFTER_PACKAGE_END, put_advise, -EPROTO, "ADVISE" },
	{ "device state", PC_AFTER_PACKAGE_END, put_full, -EPROTO, "outside the package" },
	{ "xbzrle", PC_AFTER_PACKAGE_END, put_xbzrle, -EPROTO, "xbzrle page in postcopy" },
	{ "flush", PC_AFTER_PACKAGE_END, put_flush, -EPROTO, "flush in postcopy" },
	{ "list", PC_AFTER_PACKAGE_END, put_list, -EPROTO, "second list" },
	{ "RDMA", PC_AFTER_PACKAGE_END, put_hook, -EPROTO, "RDMA" },
	{ "no such offset", PC_AFTER_PACKAGE_END, put_beyond, -EPROTO, "no offset" },
	{ "no zeros", PC_AFTER_PACKAGE_END, put_fill, -EPROTO, "only zeros" },
	{ "unknown block", PC_AFTER_PACKAGE_END, put_unnamed, -EPROTO, "unknown block" },
};
#define LATE_LIES ((int)(sizeof(late_lies) / sizeof(late_lies[0])))

/* From a source that has the guest until it hears PONG 0x42. */
TEST_EACH(test_a_lie_behind_the_package_ends_it_as_long_as_the_source_can_go_on, LATE_LIES)
{
	const struct lie *lie = &late_lies[_i];
	struct pc s;

	pc_begin(&s, &(struct pc_opts){ .quiet = true,
	                                .unanswered = true,
	                                .modern = true,
	                                .device = pc_device_waits,
	                                .inject_at = lie->at,
	                                .inject = lie->put });
	pc_switch(&s);
	pc_allow(&s, s.package_end); /* the device waits when the lie comes */
	ck_assert(pc_until(&s, pc_asked, 5000));
	pc_allow(&s, PC_ALL);
	pc_run(&s, 5000);
	pc_check_failed(&s, lie->code, lie->words);
	ck_assert(s.device_ended);
	ck_assert_int_eq(s.device_result, -ECANCELED);
	ck_assert_uint_eq(s.request_count, 1);
	pc_end(&s);
}

/* When the devices are here, the guest is in two halves and nobody but the embedder gives it up. */
TEST_EACH(test_a_lie_behind_the_package_is_a_pause_where_the_source_cannot_go_on, 2 * LATE_LIES)
{
	const struct lie *lie = &late_lies[_i / 2];
	bool runs = _i % 2;
	struct pc s;

	pc_begin(&s, &(struct pc_opts){ .quiet = true, .unanswered = true, .device = runs ? NULL : pc_device_waits });
	pc_switch(&s);
	ck_assert(pc_until(&s, runs ? pc_vcpus_started : pc_asked, 5000));
	lie->put(&s, &s.lines[PC_MAIN].out);
	ck_assert_msg(pc_until(&s, pc_paused, 5000), "%s: not paused", lie->name);
	ck_assert_msg(strcasestr(inm_error(s.e.inm), lie->words), "no '%s' in: %s", lie->words, inm_error(s.e.inm));
	pc_settle(&s);
	ck_assert_uint_eq(pc_reply_count(&s, WIRE_RP_SHUT), 0);
	inm_cancel(s.e.inm);
	pc_run(&s, 5000);
	pc_check_cancelled(&s);
	pc_end(&s);
}

/* ---- honest discards --------------------------------------------------------------------------------------------- */

/* As many ranges as a command holds: 65535 bytes, less what is no whole range. */
static void many_ranges(struct pc *s, struct wire *w)
{
	static struct wire_range ranges[4095];
	unsigned count = (65535 - 3 - 6) / 16;

	(void)s;
	for (unsigned i = 0; i < count; i++)
		ranges[i] = (struct wire_range){ i % 64 * PC_PAGE, PC_PAGE };
	discard(w, (struct wire_discard){ .ranges = ranges, .count = count });
}

static void whole_blocks(struct pc *s, struct wire *w)
{
	for (unsigned b = 0; b < s->ram_count; b++)
		discard(w, (struct wire_discard){ .block = s->ram[b].said.name,
		                                  .ranges = &(struct wire_range){ 0, s->ram[b].bytes },
		                                  .count = 1 });
}

static void overlapping_ranges(struct pc *s, struct wire *w)
{
	static const struct wire_range ranges[] = { { 0, 8 * PC_PAGE }, { 4 * PC_PAGE, 60 * PC_PAGE }, { 0, PC_PAGE } };

	(void)s;
	discard(w, (struct wire_discard){ .ranges = ranges, .count = 3 });
}

static void page_by_page(struct pc *s, struct wire *w)
{
	(void)s;
	for (uint64_t i = 64; i-- > 0;)
		discard_range(w, i * PC_PAGE, PC_PAGE);
}

TEST_CASE("discards", 20, HUGE_POOL);

/* More than the source's own: what is discarded comes again, so all of it is sent here. */
TEST_EACH(test_discards_of_every_form_land, 4)
{
	static pc_inject_fn *const forms[] = { many_ranges, whole_blocks, overlapping_ranges, page_by_page };
	struct pc s;

	for (unsigned stale = 0; stale < 2; stale++) {
		pc_begin(&s,
		         &(struct pc_opts){ .precopied = stale, .inject_at = PC_AFTER_DISCARD, .inject = forms[_i] });
		for (unsigned b = 0; b < s.ram_count; b++)
			memset(s.ram[b].precopied, 0, s.ram[b].units);
		pc_finish(&s);
		pc_check_landed(&s);
		pc_end(&s);
	}
}

/* ---- pages larger than the wire's -------------------------------------------------------------------------------- */

static void half_a_huge_page(struct pc *s, struct wire *w)
{
	(void)s;
	discard_range(w, 0, PC_HUGE_BYTES / 2);
}

static void from_the_middle(struct pc *s, struct wire *w)
{
	(void)s;
	discard_range(w, PC_PAGE, PC_HUGE_BYTES);
}

TEST(test_huge_pages_are_discarded_whole)
{
	static const struct pc_block blocks[] = { { RAM, 1024, EMB_HUGETLB } };

	huge_pool_need(2);
	is_refused(
	        &(struct pc_opts){
	                .blocks = blocks, .block_count = 1, .inject_at = PC_AFTER_DISCARD, .inject = half_a_huge_page },
	        -EPROTO, "no whole pages");
	is_refused(
	        &(struct pc_opts){
	                .blocks = blocks, .block_count = 1, .inject_at = PC_AFTER_DISCARD, .inject = from_the_middle },
	        -EPROTO, "no whole pages");
	is_refused(&(struct pc_opts){ .blocks = blocks, .block_count = 1, .summary = PC_PAGE }, -EINVAL, "page sizes");
}
