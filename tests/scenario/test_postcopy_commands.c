/* A source that breaks the rules of the switch: the error names it, we tell it, and it keeps its guest
 * (doc/wire/stream.md 11). */
#include "tests/support/check_main.h"

#include <errno.h>
#include <string.h>

#include "tests/support/huge_pool.h"
#include "tests/support/postcopy_scene.h"

#define RAM "pc.ram" /* 64 pages */

/* ---- the tables -------------------------------------------------------------------------------------------------- */

/* What stands there: a discard, of RAM where it names nothing else, if it has a block or ranges; @put; or the bytes. */
struct lie {
	const char *name;
	enum pc_place at;
	struct wire_discard discard;
	void (*put)(struct wire *w);
	const char *bytes;
	size_t len;
	const char *words; /* one of them is in the error */
};

#define RANGES(n, ...) .ranges = (const struct wire_range[]){ __VA_ARGS__ }, .count = (n)
#define RANGE(start, length) RANGES(1, { start, length })
#define DISCARD(...) .discard = { __VA_ARGS__ }
#define RAW(text) .bytes = (text), .len = sizeof(text) - 1

#define ADVISE "\x08\0\3\0\x10\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\x10\0"
#define LISTEN "\x08\0\4\0\0"
#define RUN "\x08\0\5\0\0"
#define PACKAGE_OF_BOTH "\x08\0\7\0\4\0\0\0\x0a" LISTEN RUN
#define UNKNOWN "\x08\0\x0c\0\0"
#define PART "\2\0\0\0\2"
#define PART_END "\0\0\0\0\0\0\0\x10\x7e\0\0\0\2"

static void put_stray_device(struct wire *w)
{
	wire_device(w, 77, &(struct wire_device){ .name = "stray", .version_id = 1, .data = "x", .bytes = 1 });
}

static void put_list(struct wire *w)
{
	wire_part(w, WIRE_PART, 2);
	wire_mem_size(w, wire_standard_blocks, 1);
	wire_ram_end(w, 2);
}

static const struct lie lies[] = {
	{ "discard: version", PC_BEFORE_DISCARD, DISCARD(.version = 1, RANGE(0, PC_PAGE)), .words = "version 1" },
	{ "discard: byte after the name", PC_BEFORE_DISCARD, DISCARD(.zero = 1, RANGE(0, PC_PAGE)),
	  .words = "after the name" },
	{ "discard: unknown block", PC_BEFORE_DISCARD, DISCARD(.block = "nope", RANGE(0, PC_PAGE)),
	  .words = "unknown block 'nope'" },
	{ "discard: no name", PC_BEFORE_DISCARD, DISCARD(.block = "", RANGES(2, { 0, PC_PAGE }, { PC_PAGE, PC_PAGE })),
	  .words = "unknown block" },
	{ "discard: no range", PC_BEFORE_DISCARD, DISCARD(.block = "twenty bytes of name"),
	  .words = "no whole number of ranges" },
	{ "discard: half a range", PC_BEFORE_DISCARD,
	  DISCARD(RANGES(2, { 0, PC_PAGE }, { 0, PC_PAGE }), .tail_bytes = -8), .words = "no whole number of ranges" },
	{ "discard: a byte more", PC_BEFORE_DISCARD, DISCARD(RANGE(0, PC_PAGE), .tail_bytes = 1),
	  .words = "no whole number of ranges" },
	{ "discard: long name", PC_BEFORE_DISCARD, RAW("\x08\0\6\0\x14\0\xffp\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
	  .words = "no whole number of ranges" },
	{ "discard: start", PC_BEFORE_DISCARD, DISCARD(RANGE(1, PC_PAGE)), .words = "no whole pages" },
	{ "discard: length", PC_BEFORE_DISCARD, DISCARD(RANGE(0, PC_PAGE + 512)), .words = "no whole pages" },
	{ "discard: nothing", PC_BEFORE_DISCARD, DISCARD(RANGE(0, 0)), .words = "no whole pages" },
	{ "discard: past the end", PC_AFTER_DISCARD, DISCARD(RANGE(64 * PC_PAGE, PC_PAGE)),
	  .words = "no whole pages of block 'pc.ram'" },
	{ "discard: across the end", PC_AFTER_DISCARD, DISCARD(RANGE(63 * PC_PAGE, 2 * PC_PAGE)),
	  .words = "no whole pages" },
	{ "discard: wraps", PC_AFTER_DISCARD, DISCARD(RANGE(2 * PC_PAGE, UINT64_MAX - PC_PAGE + 1)),
	  .words = "no whole pages" },
	{ "discard: wraps to the block", PC_AFTER_DISCARD, DISCARD(RANGE(UINT64_MAX - PC_PAGE + 1, 2 * PC_PAGE)),
	  .words = "no whole pages" },
	{ "discard: second range", PC_AFTER_DISCARD, DISCARD(RANGES(2, { 0, PC_PAGE }, { 64 * PC_PAGE, PC_PAGE })),
	  .words = "no whole pages" },

	{ "ADVISE twice", PC_BEFORE_START, RAW(ADVISE), .words = "a second one" },
	{ "ADVISE without RAM", PC_BEFORE_ADVISE, RAW("\x08\0\3\0\0"), .words = "dirty-bitmaps" },
	{ "ADVISE of 8 bytes", PC_BEFORE_ADVISE, RAW("\x08\0\3\0\x08\0\0\0\0\0\0\x10\0"), .words = "8 bytes" },
	{ "ADVISE after the list", PC_BEFORE_DISCARD, RAW(ADVISE), .words = "after the list" },
	{ "DISCARD before ADVISE", PC_BEFORE_ADVISE, DISCARD(RANGE(0, PC_PAGE)), .words = "not advised" },
	{ "DISCARD before the list", PC_BEFORE_START, DISCARD(RANGE(0, PC_PAGE)), .words = "before the list" },
	{ "PACKAGED before ADVISE", PC_BEFORE_ADVISE, RAW(PACKAGE_OF_BOTH), .words = "not advised" },
	{ "PACKAGED before the list", PC_BEFORE_START, RAW(PACKAGE_OF_BOTH), .words = "before the list" },
	{ "LISTEN outside", PC_AFTER_DISCARD, RAW(LISTEN), .words = "outside a package" },
	{ "RUN outside", PC_AFTER_DISCARD, RAW(RUN), .words = "outside a package" },
	{ "unknown command", PC_AFTER_DISCARD, RAW(UNKNOWN), .words = "unknown" },

	{ "DISCARD before LISTEN", PC_BEFORE_LISTEN, DISCARD(RANGE(0, PC_PAGE)), .words = "package" },
	{ "RUN before LISTEN", PC_BEFORE_LISTEN, RAW(RUN), .words = "package" },
	{ "two LISTENs", PC_AFTER_LISTEN, RAW(LISTEN), .words = "package" },
	{ "DISCARD in the package", PC_AFTER_LISTEN, DISCARD(RANGE(0, PC_PAGE)), .words = "package" },
	{ "a package in a package", PC_BEFORE_RUN, RAW(PACKAGE_OF_BOTH), .words = "package" },
	{ "two RUNs", PC_BEFORE_RUN, RAW(RUN), .words = "package" },
	{ "EOF in the package", PC_BEFORE_RUN, RAW("\0"), .words = "package" },
	{ "PART in the package", PC_BEFORE_RUN, RAW(PART PART_END), .words = "package" },
	{ "unknown command in the package", PC_BEFORE_RUN, RAW(UNKNOWN), .words = "package" },
	{ "a byte after RUN", PC_AFTER_RUN, RAW("\0"), .words = "package" },
	{ "a section after RUN", PC_AFTER_RUN, .put = put_stray_device, .words = "package" },
};

/* After the package, before RUN: a callback waits meanwhile. */
static const struct lie late_lies[] = {
	{ "DISCARD after LISTEN", PC_AFTER_PACKAGE_END, DISCARD(RANGE(0, PC_PAGE)), .words = "after LISTEN" },
	{ "second package", PC_AFTER_PACKAGE_END, RAW(PACKAGE_OF_BOTH), .words = "after LISTEN" },
	{ "LISTEN", PC_AFTER_PACKAGE_END, RAW(LISTEN), .words = "outside a package" },
	{ "RUN", PC_AFTER_PACKAGE_END, RAW(RUN), .words = "outside a package" },
	{ "ADVISE", PC_AFTER_PACKAGE_END, RAW(ADVISE), .words = "ADVISE" },
	{ "device state", PC_AFTER_PACKAGE_END, .put = put_stray_device, .words = "outside the package" },
	{ "xbzrle", PC_AFTER_PACKAGE_END, RAW(PART "\0\0\0\0\0\0\0\x40\6" RAM "\1\0\3\0\1x" PART_END),
	  .words = "xbzrle page in postcopy" },
	{ "flush", PC_AFTER_PACKAGE_END, RAW(PART "\0\0\0\0\0\0\2\0" PART_END), .words = "flush in postcopy" },
	{ "list", PC_AFTER_PACKAGE_END, .put = put_list, .words = "second list" },
	{ "RDMA", PC_AFTER_PACKAGE_END, RAW(PART "\0\0\0\0\0\0\0\x80" PART_END), .words = "RDMA" },
	{ "no such offset", PC_AFTER_PACKAGE_END, RAW(PART "\0\0\0\0\0\4\0\2\6" RAM "\0" PART_END),
	  .words = "no offset" },
	{ "no zeros", PC_AFTER_PACKAGE_END, RAW(PART "\0\0\0\0\0\0\0\2\6" RAM "\1" PART_END), .words = "only zeros" },
	{ "unknown block", PC_AFTER_PACKAGE_END, RAW(PART "\0\0\0\0\0\0\0\2\4nope\0" PART_END),
	  .words = "unknown block" },
};
#define LATE_LIES ((int)(sizeof(late_lies) / sizeof(late_lies[0])))

static void discard(struct wire *w, struct wire_discard d)
{
	if (!d.block)
		d.block = RAM;
	wire_discard_n(w, &d);
}

static const struct lie *lie; /* that is put */

static void put_lie(struct pc *s, struct wire *w)
{
	(void)s;
	if (lie->discard.block || lie->discard.count)
		discard(w, lie->discard);
	else if (lie->put)
		lie->put(w);
	else
		wire_bytes(w, lie->bytes, lie->len);
}

/* ---- before the package has come --------------------------------------------------------------------------------- */

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

TEST_ROWS(test_what_does_not_belong_there_is_named_and_told, lies)
{
	lie = &lies[_i];
	is_refused(&(struct pc_opts){ .precopied = 50, .inject_at = lie->at, .inject = put_lie }, -EPROTO, lie->words);
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

/* From a source that has the guest until it hears PONG 0x42. */
TEST_ROWS(test_a_lie_behind_the_package_ends_it_as_long_as_the_source_can_go_on, late_lies)
{
	struct pc s;

	lie = &late_lies[_i];
	pc_begin(&s, &(struct pc_opts){ .quiet = true,
	                                .unanswered = true,
	                                .modern = true,
	                                .device = pc_device_waits,
	                                .inject_at = lie->at,
	                                .inject = put_lie });
	pc_switch(&s);
	pc_allow(&s, s.package_end); /* the device waits when the lie comes */
	ck_assert(pc_until(&s, pc_asked, 5000));
	pc_allow(&s, PC_ALL);
	pc_run(&s, 5000);
	pc_check_failed(&s, -EPROTO, lie->words);
	ck_assert(s.device_ended);
	ck_assert_int_eq(s.device_result, -ECANCELED);
	ck_assert_uint_eq(s.request_count, 1);
	pc_end(&s);
}

/* When the devices are here, the guest is in two halves and nobody but the embedder gives it up. */
TEST_EACH(test_a_lie_behind_the_package_is_a_pause_where_the_source_cannot_go_on, 2 * LATE_LIES)
{
	bool runs = _i % 2;
	struct pc s;

	lie = &late_lies[_i / 2];
	pc_begin(&s, &(struct pc_opts){ .quiet = true, .unanswered = true, .device = runs ? NULL : pc_device_waits });
	pc_switch(&s);
	ck_assert(pc_until(&s, runs ? pc_vcpus_started : pc_asked, 5000));
	put_lie(&s, &s.lines[PC_MAIN].out);
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
		discard(w, (struct wire_discard){ RANGE(i * PC_PAGE, PC_PAGE) });
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

static const struct lie huge_lies[] = {
	{ "half a page", PC_AFTER_DISCARD, DISCARD(RANGE(0, PC_HUGE_BYTES / 2)), .words = "no whole pages" },
	{ "from the middle", PC_AFTER_DISCARD, DISCARD(RANGE(PC_PAGE, PC_HUGE_BYTES)), .words = "no whole pages" },
};

TEST(test_huge_pages_are_discarded_whole)
{
	static const struct pc_block blocks[] = { { RAM, 1024, EMB_HUGETLB } };

	huge_pool_need(2);
	for (unsigned i = 0; i < 2; i++) {
		lie = &huge_lies[i];
		is_refused(
		        &(struct pc_opts){
		                .blocks = blocks, .block_count = 1, .inject_at = lie->at, .inject = put_lie },
		        -EPROTO, lie->words);
	}
	is_refused(&(struct pc_opts){ .blocks = blocks, .block_count = 1, .summary = PC_PAGE }, -EINVAL, "page sizes");
}
