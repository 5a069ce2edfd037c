/* The small words of base/: list, be, clock, log. */
#include "base/be.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "tests/support/check_main.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- list ---------------------------------------------------------------------------------------------------- */

struct item {
	int before; /* so that container_of has something to subtract */
	struct list node;
};

static void assert_order(struct list *head, const int *want, int count)
{
	int n = 0;

	for (const struct list *node = head->next; node != head; node = node->next) {
		ck_assert_int_lt(n, count);
		ck_assert_int_eq(container_of(node, struct item, node)->before, want[n]);
		ck_assert_ptr_eq(node->next->prev, node);
		n++;
	}
	ck_assert_int_eq(n, count);
}

TEST_CASE("list", 4);

TEST(test_list_keeps_the_order_of_pushes)
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

TEST(test_list_unlink_needs_no_list_and_may_be_repeated)
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

TEST(test_list_pop_takes_from_the_head_until_null)
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

/* ---- be ------------------------------------------------------------------------------------------------------ */

TEST_CASE("be", 4);

TEST(test_be_loads_the_first_byte_as_the_highest_at_any_alignment)
{
	unsigned char buf[16];

	for (size_t at = 0; at < 8; at++) {
		memcpy(buf + at, "\x81\x02\x03\x04\x05\x06\x07\x08", 8);
		ck_assert_uint_eq(be16_load(buf + at), 0x8102);
		ck_assert_uint_eq(be32_load(buf + at), 0x81020304u);
		ck_assert(be64_load(buf + at) == 0x8102030405060708ull);
	}
}

TEST(test_be_stores_write_their_own_bytes_only)
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

/* ---- clock, log ---------------------------------------------------------------------------------------------- */

TEST_CASE("clock", 4);

TEST(test_clock_does_not_go_back)
{
	uint64_t before = clock_now_ns();

	for (int i = 0; i < 1000; i++) {
		uint64_t now = clock_now_ns();

		ck_assert(now >= before);
		before = now;
	}
}

TEST(test_clock_runs_in_nanoseconds)
{
	struct timespec nap = { .tv_nsec = 20 * 1000 * 1000 };
	uint64_t began = clock_now_ns(), took;

	nanosleep(&nap, NULL);
	took = clock_now_ns() - began;
	ck_assert(took >= 20 * NS_PER_MS);
	ck_assert(took < 60 * NS_PER_S);
}

TEST(test_clock_deadline_is_a_point_that_far_away)
{
	uint64_t before = clock_now_ns(), deadline = deadline_after_ns(5 * NS_PER_S), after = clock_now_ns();

	ck_assert(deadline >= before + 5 * NS_PER_S);
	ck_assert(deadline <= after + 5 * NS_PER_S);
}

TEST(test_clock_deadline_that_does_not_fit_is_never)
{
	ck_assert(deadline_after_ns(UINT64_MAX) == DEADLINE_NEVER);
	ck_assert(deadline_after_ns(UINT64_MAX - 1) == DEADLINE_NEVER);
}

static char said[1000];

static void say(void *opaque, enum log_level level, const char *text)
{
	snprintf(said, sizeof(said), "%s%d:%s", (const char *)opaque, (int)level, text);
}

TEST_CASE("log", 4);

TEST(test_log_above_the_level_is_not_said)
{
	struct log log = { .write = say, .opaque = (void *)"me", .level_max = LOG_WARN };

	log_info(&log, "no");
	ck_assert_str_eq(said, "");
	log_warn(&log, "yes %d", 7);
	ck_assert_str_eq(said, "me1:yes 7");
}

TEST(test_log_lines_are_printable_whatever_they_hold)
{
	struct log log = { .write = say, .opaque = (void *)"", .level_max = LOG_WARN };

	log_warn(&log, "block '%s' has moved", "x\x1b[31m'\nwarning: \xff\x7f");
	ck_assert_str_eq(said, "1:block 'x\\x1b[31m'\\x0awarning: \\xff\\x7f' has moved");
}

TEST(test_log_without_a_callback_is_silence)
{
	log_write(&(struct log){ .level_max = LOG_DEBUG }, LOG_ERROR, "nobody %s", "listens");
}
