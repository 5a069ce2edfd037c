/* The words of base/: what their headers promise. */
#include "base/be.h"
#include "base/bitmap.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/list.h"
#include "base/log.h"
#include "base/text.h"
#include "tests/support/check_main.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- bitmap: three words and a bit, so that every kind of border is there ------------------------------------ */

enum { NBITS = 3 * 64 + 1 };

static struct bitmap bm;

static void bitmap_setup(void)
{
	ck_assert_int_eq(bitmap_init(&bm, NBITS), 0);
}

static void bitmap_teardown(void)
{
	bitmap_fini(&bm);
}

/* Exactly [first, first + count) is @value, all else is not. */
static void assert_only(size_t first, size_t count, bool value)
{
	for (size_t i = 0; i < NBITS; i++) {
		bool inside = i >= first && i - first < count;

		/* Not an assertion for each bit: Check does some work for every one it sees. */
		if (bitmap_test(&bm, i) != (inside ? value : !value))
			ck_abort_msg("bit %zu after range %zu+%zu", i, first, count);
	}
}

START_TEST(test_bitmap_begins_clear)
{
	ck_assert_uint_eq(bitmap_count(&bm), 0);
	ck_assert_uint_eq(bitmap_find_set(&bm, 0), NBITS);
	ck_assert_uint_eq(bitmap_find_clear(&bm, 0), 0);
}
END_TEST

START_TEST(test_bitmap_set_and_clear_touch_one_bit)
{
	for (size_t i = 0; i < NBITS; i++) {
		bitmap_set(&bm, i);
		assert_only(i, 1, true);
		bitmap_clear(&bm, i);
		ck_assert_uint_eq(bitmap_count(&bm), 0);
	}
}
END_TEST

START_TEST(test_bitmap_set_range_sets_these_and_no_others)
{
	for (size_t first = 0; first <= NBITS; first++) {
		for (size_t count = 0; count <= NBITS - first; count += count < 3 ? 1 : 13) {
			bitmap_set_range(&bm, first, count);
			assert_only(first, count, true);
			ck_assert_uint_eq(bitmap_count(&bm), count);
			bitmap_clear_range(&bm, 0, NBITS);
			ck_assert_uint_eq(bitmap_count(&bm), 0);
		}
	}
}
END_TEST

START_TEST(test_bitmap_clear_range_clears_these_and_no_others)
{
	for (size_t first = 0; first <= NBITS; first++) {
		for (size_t count = 0; count <= NBITS - first; count += count < 3 ? 1 : 13) {
			bitmap_set_range(&bm, 0, NBITS);
			bitmap_clear_range(&bm, first, count);
			assert_only(first, count, false);
		}
	}
}
END_TEST

START_TEST(test_bitmap_ranges_meet_word_borders_exactly)
{
	static const size_t ranges[][2] = { { 0, 64 },   { 64, 64 }, { 63, 1 },   { 63, 2 },   { 64, 1 },
					    { 0, 65 },   { 1, 63 },  { 1, 127 },  { 127, 66 }, { 128, 65 },
					    { 192, 1 },  { 191, 2 }, { 0, NBITS }, { 0, 192 } };

	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
		bitmap_set_range(&bm, ranges[i][0], ranges[i][1]);
		assert_only(ranges[i][0], ranges[i][1], true);
		bitmap_clear_range(&bm, ranges[i][0], ranges[i][1]);
		ck_assert_uint_eq(bitmap_count(&bm), 0);
	}
}
END_TEST

START_TEST(test_bitmap_find_set_at_the_last_bit)
{
	bitmap_set(&bm, NBITS - 1);
	ck_assert_uint_eq(bitmap_find_set(&bm, 0), NBITS - 1);
	ck_assert_uint_eq(bitmap_find_set(&bm, NBITS - 1), NBITS - 1);
	ck_assert_uint_eq(bitmap_find_set(&bm, NBITS), NBITS);
}
END_TEST

START_TEST(test_bitmap_find_clear_at_the_last_bit)
{
	bitmap_set_range(&bm, 0, NBITS - 1);
	ck_assert_uint_eq(bitmap_find_clear(&bm, 0), NBITS - 1);
	ck_assert_uint_eq(bitmap_find_clear(&bm, NBITS - 1), NBITS - 1);
}
END_TEST

START_TEST(test_bitmap_find_clear_does_not_see_past_the_end)
{
	/* The last word has 63 bits that are nobody's, and clear. */
	bitmap_set_range(&bm, 0, NBITS);
	ck_assert_uint_eq(bitmap_find_clear(&bm, 0), NBITS);
	ck_assert_uint_eq(bitmap_find_clear(&bm, NBITS - 1), NBITS);
}
END_TEST

START_TEST(test_bitmap_find_starts_at_from_inclusive)
{
	bitmap_set(&bm, 10);
	bitmap_set(&bm, 64);
	bitmap_set(&bm, 130);
	ck_assert_uint_eq(bitmap_find_set(&bm, 10), 10);
	ck_assert_uint_eq(bitmap_find_set(&bm, 11), 64);
	ck_assert_uint_eq(bitmap_find_set(&bm, 64), 64);
	ck_assert_uint_eq(bitmap_find_set(&bm, 65), 130);
	ck_assert_uint_eq(bitmap_find_clear(&bm, 10), 11);
	ck_assert_uint_eq(bitmap_find_clear(&bm, 63), 63);
	ck_assert_uint_eq(bitmap_find_clear(&bm, 64), 65);
}
END_TEST

START_TEST(test_bitmap_of_nothing_finds_nothing)
{
	struct bitmap none;

	ck_assert_int_eq(bitmap_init(&none, 0), 0);
	ck_assert_uint_eq(bitmap_find_set(&none, 0), 0);
	ck_assert_uint_eq(bitmap_find_clear(&none, 0), 0);
	ck_assert_uint_eq(bitmap_count(&none), 0);
	bitmap_fini(&none);
}
END_TEST

START_TEST(test_bitmap_find_clear_stops_at_the_end_of_a_full_last_word)
{
	struct bitmap whole;

	ck_assert_int_eq(bitmap_init(&whole, 128), 0);
	bitmap_set_range(&whole, 0, 128);
	ck_assert_uint_eq(bitmap_find_clear(&whole, 0), 128);
	ck_assert_uint_eq(bitmap_count(&whole), 128);
	bitmap_fini(&whole);
}
END_TEST

START_TEST(test_bitmap_fini_twice_is_harmless)
{
	struct bitmap b;

	ck_assert_int_eq(bitmap_init(&b, 100), 0);
	bitmap_fini(&b);
	ck_assert_ptr_null(b.words);
	bitmap_fini(&b);
}
END_TEST

START_TEST(test_bitmap_that_fits_no_address_space_is_enomem)
{
	struct bitmap b;

	ck_assert_int_eq(bitmap_init(&b, SIZE_MAX / 2), -ENOMEM);
	ck_assert_ptr_null(b.words);
	bitmap_fini(&b);
}
END_TEST

/* ---- list ---------------------------------------------------------------------------------------------------- */

struct item {
	int before; /* so that container_of has something to subtract */
	struct list node;
};

static void assert_order(struct list *head, const int *want, int count)
{
	struct list *node, *tmp;
	int n = 0;

	LIST_FOR_EACH_SAFE(node, tmp, head) {
		ck_assert_int_lt(n, count);
		ck_assert_int_eq(container_of(node, struct item, node)->before, want[n]);
		ck_assert_ptr_eq(node->next->prev, node);
		n++;
	}
	ck_assert_int_eq(n, count);
}

START_TEST(test_list_keeps_the_order_of_pushes)
{
	struct item items[3] = { { .before = 0 }, { .before = 1 }, { .before = 2 } };
	struct list head;

	list_init(&head);
	ck_assert(list_empty(&head));
	list_push_tail(&head, &items[1].node);
	list_push_tail(&head, &items[2].node);
	list_push_head(&head, &items[0].node);
	ck_assert(!list_empty(&head));
	assert_order(&head, (int[]){ 0, 1, 2 }, 3);
}
END_TEST

START_TEST(test_list_unlink_needs_no_list_and_may_be_repeated)
{
	struct item items[3] = { { .before = 0 }, { .before = 1 }, { .before = 2 } };
	struct list head;

	list_init(&head);
	for (int i = 0; i < 3; i++)
		list_push_tail(&head, &items[i].node);
	list_unlink(&items[1].node);
	ck_assert(!list_linked(&items[1].node));
	list_unlink(&items[1].node);
	assert_order(&head, (int[]){ 0, 2 }, 2);
	list_push_tail(&head, &items[1].node);
	assert_order(&head, (int[]){ 0, 2, 1 }, 3);
}
END_TEST

START_TEST(test_list_pop_takes_from_the_head_until_null)
{
	struct item items[2] = { { .before = 0 }, { .before = 1 } };
	struct list head;

	list_init(&head);
	list_push_tail(&head, &items[0].node);
	list_push_tail(&head, &items[1].node);
	ck_assert_ptr_eq(list_pop_head(&head), &items[0].node);
	ck_assert(!list_linked(&items[0].node));
	ck_assert_ptr_eq(list_pop_head(&head), &items[1].node);
	ck_assert_ptr_null(list_pop_head(&head));
	ck_assert(list_empty(&head));
}
END_TEST

START_TEST(test_list_elements_may_be_freed_while_visited)
{
	struct list head, *node, *tmp;

	list_init(&head);
	for (int i = 0; i < 5; i++) {
		struct item *item = malloc(sizeof(*item));

		ck_assert_ptr_nonnull(item);
		list_push_tail(&head, &item->node);
	}
	LIST_FOR_EACH_SAFE(node, tmp, &head) {
		list_unlink(node);
		free(container_of(node, struct item, node));
	}
	ck_assert(list_empty(&head));
}
END_TEST

/* ---- be ------------------------------------------------------------------------------------------------------ */

START_TEST(test_be_loads_the_first_byte_as_the_highest_at_any_alignment)
{
	unsigned char buf[16];

	for (size_t at = 0; at < 8; at++) {
		memcpy(buf + at, "\x81\x02\x03\x04\x05\x06\x07\x08", 8);
		ck_assert_uint_eq(be16_load(buf + at), 0x8102);
		ck_assert_uint_eq(be32_load(buf + at), 0x81020304u);
		ck_assert(be64_load(buf + at) == 0x8102030405060708ull);
	}
}
END_TEST

START_TEST(test_be_stores_write_their_own_bytes_only)
{
	unsigned char buf[12];

	memset(buf, 0xee, sizeof(buf));
	be16_store(buf + 1, 0x8102);
	ck_assert_mem_eq(buf, "\xee\x81\x02\xee", 4);
	memset(buf, 0xee, sizeof(buf));
	be32_store(buf + 1, 0x81020304u);
	ck_assert_mem_eq(buf, "\xee\x81\x02\x03\x04\xee", 6);
	memset(buf, 0xee, sizeof(buf));
	be64_store(buf + 1, 0x8102030405060708ull);
	ck_assert_mem_eq(buf, "\xee\x81\x02\x03\x04\x05\x06\x07\x08\xee", 10);
}
END_TEST

/* ---- err ----------------------------------------------------------------------------------------------------- */

START_TEST(test_err_set_returns_its_code_and_keeps_the_text)
{
	struct err err = ERR_NONE;

	ck_assert_int_eq(err_set(&err, -EPROTO, "block '%s' has no offset 0x%x", "pc.ram", 0x80), -EPROTO);
	ck_assert_int_eq(err.code, -EPROTO);
	ck_assert_str_eq(err.text, "block 'pc.ram' has no offset 0x80");
}
END_TEST

START_TEST(test_err_up_puts_context_in_front)
{
	struct err err = ERR_NONE;

	err_set(&err, -EPROTO, "cause");
	ck_assert_int_eq(err_up(&err, -EPROTO, "section '%s'", "ram"), -EPROTO);
	ck_assert_int_eq(err_up(&err, -EPROTO, "incoming"), -EPROTO);
	ck_assert_str_eq(err.text, "incoming: section 'ram': cause");
	ck_assert_int_eq(err.code, -EPROTO);
}
END_TEST

START_TEST(test_err_cancelled_never_has_a_text)
{
	struct err err = ERR_NONE;

	ck_assert_int_eq(err_set(&err, -ECANCELED, "told"), -ECANCELED);
	ck_assert_str_eq(err.text, "");
	ck_assert_int_eq(err_up(&err, -ECANCELED, "more"), -ECANCELED);
	ck_assert_str_eq(err.text, "");
}
END_TEST

START_TEST(test_err_that_overflows_keeps_the_cause_and_the_newest_context)
{
	static const char cause[] = "the cause at the end";
	struct err err = ERR_NONE;
	size_t len;

	err_set(&err, -EIO, "%s", cause);
	for (int i = 0; i < 100; i++) {
		err_up(&err, -EIO, "context %d", i);
		len = strlen(err.text);
		ck_assert_uint_lt(len, sizeof(err.text));
		ck_assert_str_eq(err.text + len - strlen(cause), cause);
		ck_assert_int_eq(strncmp(err.text, "context ", 8), 0);
		ck_assert_int_eq(atoi(err.text + 8), i);
	}
	/* It is full: what was dropped was dropped because it had to be. */
	ck_assert_uint_eq(len, sizeof(err.text) - 1);
}
END_TEST

START_TEST(test_err_context_that_just_fits_loses_nothing)
{
	struct err err = ERR_NONE;
	char cause[sizeof(err.text)], want[sizeof(err.text)];

	/* "up: " and the cause fill the text to its last byte. */
	memset(cause, 'c', sizeof(cause));
	cause[sizeof(err.text) - 1 - strlen("up: ")] = '\0';
	err_set(&err, -EIO, "%s", cause);
	err_up(&err, -EIO, "up");
	memcpy(want, "up: ", 4);
	strcpy(want + 4, cause);
	ck_assert_str_eq(err.text, want);
	err_up(&err, -EIO, "x");
	ck_assert_uint_eq(strlen(err.text), sizeof(err.text) - 1);
	ck_assert_int_eq(strncmp(err.text, "x: ", 3), 0);
}
END_TEST

START_TEST(test_err_long_context_is_cut_not_the_cause)
{
	char context[1000];
	struct err err = ERR_NONE;

	memset(context, 'x', sizeof(context) - 1);
	context[sizeof(context) - 1] = '\0';
	err_set(&err, -EIO, "cause");
	err_up(&err, -EIO, "%s", context);
	ck_assert_ptr_nonnull(strstr(err.text, "x: cause"));
	ck_assert_uint_lt(strlen(err.text), sizeof(err.text));
}
END_TEST

START_TEST(test_err_set_text_that_is_too_long_is_cut)
{
	struct err err = ERR_NONE;

	err_set(&err, -EIO, "%2000s", "end");
	ck_assert_uint_eq(strlen(err.text), sizeof(err.text) - 1);
}
END_TEST

START_TEST(test_err_name_is_the_symbol)
{
	ck_assert_str_eq(err_name(-EPROTO), "EPROTO");
	ck_assert_ptr_nonnull(err_name(-100000));
}
END_TEST

/* ---- text ---------------------------------------------------------------------------------------------------- */

START_TEST(test_text_quote_escapes_what_is_not_plain)
{
	char buf[TEXT_QUOTE_BYTES];

	ck_assert_str_eq(text_quote(buf, "pc.ram ~", 8), "pc.ram ~");
	ck_assert_str_eq(text_quote(buf, "a\n\0\x7f\xff", 5), "a\\x0a\\x00\\x7f\\xff");
	ck_assert_str_eq(text_quote(buf, "'\"\\", 3), "\\x27\\x22\\x5c");
	ck_assert_str_eq(text_quote(buf, "", 0), "");
}
END_TEST

/* @len times @byte, each of which becomes @unit: all of them, or as many as fit and dots. */
static void assert_quoted_or_cut(int byte, size_t len, const char *unit)
{
	char *buf = malloc(TEXT_QUOTE_BYTES); /* on the heap, where a sanitizer sees each byte too many */
	size_t unit_len = strlen(unit), units = 0;
	unsigned char bytes[300];

	ck_assert_ptr_nonnull(buf);
	memset(bytes, byte, sizeof(bytes));
	text_quote(buf, bytes, len);
	ck_assert_uint_lt(strlen(buf), TEXT_QUOTE_BYTES);
	while (strncmp(buf + units * unit_len, unit, unit_len) == 0)
		units++;
	ck_assert_str_eq(buf + units * unit_len, units == len ? "" : "...");
	/* Cut only for want of room. */
	ck_assert(units == len || strlen(buf) + unit_len + strlen("...") >= TEXT_QUOTE_BYTES - 1);
	free(buf);
}

START_TEST(test_text_quote_of_any_length_fits_and_is_cut_with_dots)
{
	for (size_t len = 0; len <= 300; len++) {
		assert_quoted_or_cut('a', len, "a");
		assert_quoted_or_cut(0xff, len, "\\xff");
	}
}
END_TEST

START_TEST(test_text_quote_escape_at_any_place_fits)
{
	unsigned char bytes[TEXT_QUOTE_BYTES + 20];
	char *buf = malloc(TEXT_QUOTE_BYTES);

	ck_assert_ptr_nonnull(buf);
	for (size_t plain = 0; plain <= TEXT_QUOTE_BYTES; plain++) {
		memset(bytes, 'a', plain);
		memset(bytes + plain, 0xff, sizeof(bytes) - plain);
		text_quote(buf, bytes, sizeof(bytes));
		ck_assert_uint_lt(strlen(buf), TEXT_QUOTE_BYTES);
		ck_assert_str_eq(buf + strlen(buf) - 3, "...");
	}
	free(buf);
}
END_TEST

START_TEST(test_text_quote_in_an_argument_list)
{
	char line[64];

	snprintf(line, sizeof(line), "'%s' '%s'", TEXT_QUOTE("a\t", 2), TEXT_QUOTE("b", 1));
	ck_assert_str_eq(line, "'a\\x09' 'b'");
}
END_TEST

/* ---- clock, log ---------------------------------------------------------------------------------------------- */

START_TEST(test_clock_does_not_go_back)
{
	uint64_t before = clock_now_ns();

	for (int i = 0; i < 1000; i++) {
		uint64_t now = clock_now_ns();

		ck_assert(now >= before);
		before = now;
	}
}
END_TEST

START_TEST(test_clock_runs_in_nanoseconds)
{
	struct timespec nap = { .tv_nsec = 20 * 1000 * 1000 };
	uint64_t began = clock_now_ns(), took;

	nanosleep(&nap, NULL);
	took = clock_now_ns() - began;
	ck_assert(took >= 20 * NS_PER_MS);
	ck_assert(took < 60 * NS_PER_S);
}
END_TEST

START_TEST(test_clock_deadline_is_a_point_that_far_away)
{
	uint64_t before = clock_now_ns(), deadline = deadline_after_ns(5 * NS_PER_S), after = clock_now_ns();

	ck_assert(deadline >= before + 5 * NS_PER_S);
	ck_assert(deadline <= after + 5 * NS_PER_S);
}
END_TEST

START_TEST(test_clock_deadline_that_does_not_fit_is_never)
{
	ck_assert(deadline_after_ns(UINT64_MAX) == DEADLINE_NEVER);
	ck_assert(deadline_after_ns(UINT64_MAX - 1) == DEADLINE_NEVER);
}
END_TEST

static char said[1000];

static void say(void *opaque, enum log_level level, const char *text)
{
	snprintf(said, sizeof(said), "%s%d:%s", (const char *)opaque, (int)level, text);
}

START_TEST(test_log_above_the_level_is_not_said)
{
	struct log log = { .write = say, .opaque = (void *)"me", .level_max = LOG_WARN };

	log_info(&log, "no");
	ck_assert_str_eq(said, "");
	log_warn(&log, "yes %d", 7);
	ck_assert_str_eq(said, "me1:yes 7");
}
END_TEST

START_TEST(test_log_without_a_callback_is_silence)
{
	log_write(&(struct log){ .level_max = LOG_DEBUG }, LOG_ERROR, "nobody %s", "listens");
}
END_TEST

static void add_bitmap(Suite *s)
{
	TCase *tc = tcase_create("bitmap");

	tcase_add_checked_fixture(tc, bitmap_setup, bitmap_teardown);
	tcase_add_test(tc, test_bitmap_begins_clear);
	tcase_add_test(tc, test_bitmap_set_and_clear_touch_one_bit);
	tcase_add_test(tc, test_bitmap_set_range_sets_these_and_no_others);
	tcase_add_test(tc, test_bitmap_clear_range_clears_these_and_no_others);
	tcase_add_test(tc, test_bitmap_ranges_meet_word_borders_exactly);
	tcase_add_test(tc, test_bitmap_find_set_at_the_last_bit);
	tcase_add_test(tc, test_bitmap_find_clear_at_the_last_bit);
	tcase_add_test(tc, test_bitmap_find_clear_does_not_see_past_the_end);
	tcase_add_test(tc, test_bitmap_find_starts_at_from_inclusive);
	tcase_add_test(tc, test_bitmap_of_nothing_finds_nothing);
	tcase_add_test(tc, test_bitmap_find_clear_stops_at_the_end_of_a_full_last_word);
	tcase_add_test(tc, test_bitmap_fini_twice_is_harmless);
	tcase_add_test(tc, test_bitmap_that_fits_no_address_space_is_enomem);
	suite_add_tcase(s, tc);
}

static void add_list_and_be(Suite *s)
{
	TCase *tc = tcase_create("list");

	tcase_add_test(tc, test_list_keeps_the_order_of_pushes);
	tcase_add_test(tc, test_list_unlink_needs_no_list_and_may_be_repeated);
	tcase_add_test(tc, test_list_pop_takes_from_the_head_until_null);
	tcase_add_test(tc, test_list_elements_may_be_freed_while_visited);
	suite_add_tcase(s, tc);

	tc = tcase_create("be");
	tcase_add_test(tc, test_be_loads_the_first_byte_as_the_highest_at_any_alignment);
	tcase_add_test(tc, test_be_stores_write_their_own_bytes_only);
	suite_add_tcase(s, tc);
}

static void add_err_and_text(Suite *s)
{
	TCase *tc = tcase_create("err");

	tcase_add_test(tc, test_err_set_returns_its_code_and_keeps_the_text);
	tcase_add_test(tc, test_err_up_puts_context_in_front);
	tcase_add_test(tc, test_err_cancelled_never_has_a_text);
	tcase_add_test(tc, test_err_that_overflows_keeps_the_cause_and_the_newest_context);
	tcase_add_test(tc, test_err_context_that_just_fits_loses_nothing);
	tcase_add_test(tc, test_err_long_context_is_cut_not_the_cause);
	tcase_add_test(tc, test_err_set_text_that_is_too_long_is_cut);
	tcase_add_test(tc, test_err_name_is_the_symbol);
	suite_add_tcase(s, tc);

	tc = tcase_create("text");
	tcase_add_test(tc, test_text_quote_escapes_what_is_not_plain);
	tcase_add_test(tc, test_text_quote_of_any_length_fits_and_is_cut_with_dots);
	tcase_add_test(tc, test_text_quote_escape_at_any_place_fits);
	tcase_add_test(tc, test_text_quote_in_an_argument_list);
	suite_add_tcase(s, tc);
}

static void add_clock_and_log(Suite *s)
{
	TCase *tc = tcase_create("clock");

	tcase_add_test(tc, test_clock_does_not_go_back);
	tcase_add_test(tc, test_clock_runs_in_nanoseconds);
	tcase_add_test(tc, test_clock_deadline_is_a_point_that_far_away);
	tcase_add_test(tc, test_clock_deadline_that_does_not_fit_is_never);
	suite_add_tcase(s, tc);

	tc = tcase_create("log");
	tcase_add_test(tc, test_log_above_the_level_is_not_said);
	tcase_add_test(tc, test_log_without_a_callback_is_silence);
	suite_add_tcase(s, tc);
}

Suite *suite(void)
{
	Suite *s = suite_create("base");

	add_bitmap(s);
	add_list_and_be(s);
	add_err_and_text(s);
	add_clock_and_log(s);
	return s;
}
