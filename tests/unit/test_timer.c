#include "base/clock.h"
#include "coroutine/timer.h"
#include "tests/support/check_main.h"

#include <stdlib.h>

/* Every link of the heap, seen from both ends; returns the number of timers below. The depth of a heap is not bounded,
 * so this walks it with a stack of its own. */
static size_t check_heap(const struct timer_heap *heap)
{
	static const struct timer *todo[200000];
	size_t n = 0, count = 0;

	if (!heap->root)
		return 0;
	ck_assert_ptr_eq(heap->root->prev, heap->root);
	ck_assert_ptr_null(heap->root->sibling);
	todo[n++] = heap->root;
	while (n > 0) {
		const struct timer *t = todo[--n], *left = t;

		count++;
		for (const struct timer *c = t->child; c; left = c, c = c->sibling) {
			/* Check's own assertions make a system call each. */
			if (c->prev != left || c->deadline_ns < t->deadline_ns)
				ck_abort_msg("a link or the order is broken");
			todo[n++] = c;
		}
	}
	return count;
}

#define TIMERS 64

/* The model: an array of deadlines. */
static uint64_t earliest(const struct timer *t)
{
	uint64_t min = DEADLINE_NEVER;

	for (int i = 0; i < TIMERS; i++) {
		if (timer_armed(&t[i]) && t[i].deadline_ns < min)
			min = t[i].deadline_ns;
	}
	return min;
}

TEST_CASE("timer", 120);

TEST(test_timer_heap_agrees_with_a_list_whatever_is_disarmed)
{
	for (unsigned seed = 0; seed < 300; seed++) {
		struct timer t[TIMERS] = { 0 }, *due;
		struct timer_heap heap = { 0 };
		size_t armed = 0;

		srandom(seed);
		for (int step = 0; step < 400; step++) {
			struct timer *one = &t[random() % TIMERS];
			uint64_t now = (uint64_t)random() % 100;

			switch (random() % 4) {
			case 0:
			case 1:
				if (timer_armed(one))
					break;
				timer_arm(&heap, one, (uint64_t)random() % 100 + 1);
				armed++;
				break;
			case 2: /* root, inner or leaf, whatever it is; and the idle ones are left alone */
				armed -= timer_armed(one);
				timer_disarm(&heap, one);
				ck_assert(!timer_armed(one));
				break;
			case 3:
				if ((due = timer_pop_due(&heap, now))) {
					ck_assert(!timer_armed(due));
					ck_assert_uint_le(due->deadline_ns, now);
					ck_assert(due->deadline_ns <= earliest(t));
					armed--;
				} else {
					ck_assert(earliest(t) > now);
				}
				break;
			}
			ck_assert_uint_eq(timer_next_ns(&heap), earliest(t));
			ck_assert_uint_eq(check_heap(&heap), armed);
		}
	}
}

TEST(test_timer_many_come_out_in_order)
{
	const size_t n = 100000;
	struct timer *t = calloc(n, sizeof(*t)), *due;
	struct timer_heap heap = { 0 };
	uint64_t last = 0;
	size_t popped = 0;

	/* Ascending makes the root wide, descending makes the heap deep: neither may cost a stack or a lifetime. */
	for (size_t i = 0; i < n; i++)
		timer_arm(&heap, &t[i], i % 2 ? i + 1 : 2 * n - i);
	ck_assert_uint_eq(check_heap(&heap), n);
	for (size_t i = 0; i < n; i += 3)
		timer_disarm(&heap, &t[i]);
	while ((due = timer_pop_due(&heap, DEADLINE_NEVER))) {
		ck_assert(due->deadline_ns >= last);
		last = due->deadline_ns;
		popped++;
	}
	ck_assert_uint_eq(popped, n - (n + 2) / 3);
	ck_assert_uint_eq(timer_next_ns(&heap), DEADLINE_NEVER);
	free(t);
}

TEST(test_timer_is_due_at_its_deadline_and_not_before)
{
	struct timer_heap heap = { 0 };
	struct timer t = { 0 };

	ck_assert_uint_eq(timer_next_ns(&heap), DEADLINE_NEVER);
	timer_arm(&heap, &t, 50);
	ck_assert_uint_eq(timer_next_ns(&heap), 50);
	ck_assert_ptr_null(timer_pop_due(&heap, 49));
	ck_assert_ptr_eq(timer_pop_due(&heap, 50), &t);
	ck_assert_ptr_null(timer_pop_due(&heap, 50));
}
