/* Which connection is which: any order, any pieces (doc/wire/channels.md 4). */
#include "tests/support/check_main.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/support/order.h"

/* In @order, each speaks as soon as it has connected, and is heard before the next one connects. */
static void play_one_by_one(struct several *s, const unsigned *order)
{
	for (unsigned i = 0; i <= s->h.count; i++) {
		unsigned line = several_connect(s, several_wire(s, order[i]));

		s->lines[line].return_path = s->return_path && order[i] == SEVERAL_MAIN;
		several_allow(s, line, order[i] == SEVERAL_MAIN ? SEVERAL_ALL : 64);
		several_settle(s);
	}
}

/* All connect in @order and are silent; then they speak in the opposite order, main with @main_last last of all. */
static void play_after_all(struct several *s, const unsigned *order, bool main_last, size_t step_bytes)
{
	unsigned main_line = 0;

	for (unsigned i = 0; i <= s->h.count; i++) {
		unsigned line = several_connect(s, several_wire(s, order[i]));

		s->lines[line].return_path = s->return_path && order[i] == SEVERAL_MAIN;
		main_line = order[i] == SEVERAL_MAIN ? line : main_line;
	}
	several_settle(s);
	for (size_t upto = step_bytes; upto < 8 + step_bytes; upto += step_bytes)
		for (unsigned i = s->h.count + 1; i-- > 0;) {
			if (i == main_line && main_last)
				continue;
			several_allow(s, i, upto);
			several_settle(s);
		}
	for (size_t upto = step_bytes; main_last && upto < 8 + step_bytes; upto += step_bytes) {
		several_allow(s, main_line, upto);
		several_settle(s);
	}
}

static void finish_in_order(struct several *s, const unsigned *order)
{
	for (unsigned i = 0; i <= s->h.count; i++) {
		several_allow(s, i, SEVERAL_ALL);
		s->lines[i].end = order[i] == SEVERAL_MAIN ? PUMP_HONEST : s->return_path ? PUMP_HOLD : PUMP_CLOSE;
	}
	several_run(s, 10000);
	several_check_landed(s);
}

enum manner { ONE_BY_ONE, REVERSED, MAIN_LAST, BYTES, BYTES_MAIN_LAST, MANNERS };

static void lands_in_order(const struct multifd_opts *m, const struct several_opts *o, const unsigned *order,
                           enum manner manner)
{
	struct several s;

	several_begin(&s, m, o);
	s.quiet_ms = 1;
	if (manner == ONE_BY_ONE)
		play_one_by_one(&s, order);
	else
		play_after_all(&s, order, manner == MAIN_LAST || manner == BYTES_MAIN_LAST,
		               manner == BYTES || manner == BYTES_MAIN_LAST ? 1 : 8);
	finish_in_order(&s, order);
	several_end(&s);
}

TEST_CASE("order", 120);

TEST_EACH(test_every_order_of_main_and_up_to_three_channels_lands, MANNERS)
{
	for (unsigned channels = 1; channels <= 3; channels++)
		for (unsigned nth = 0; nth < order_count(channels + 1); nth++)
			for (unsigned rp = 0; rp < 2; rp++) {
				const struct multifd_opts m = { .channels = channels, .return_path = rp };
				unsigned order[ORDER_MAX];

				order_nth(nth, channels + 1, order);
				lands_in_order(&m, NULL, order, (enum manner)_i);
			}
}

TEST(test_every_order_lands_over_tcp)
{
	for (unsigned nth = 0; nth < order_count(4); nth++) {
		const struct multifd_opts m = {
			.channels = 3, .return_path = true, .per_section = true, .old = true, .zero_in_main = true
		};
		unsigned order[ORDER_MAX];

		order_nth(nth, 4, order);
		lands_in_order(&m, &(struct several_opts){ .tcp = true }, order, (enum manner)(nth % MANNERS));
	}
}

TEST(test_random_orders_of_eight_channels_land)
{
	unsigned long seed = scene_env("TEST_SEED", 20240704);

	srand((unsigned)seed);
	printf("TEST_SEED=%lu\n", seed);
	for (unsigned i = 0; i < 30; i++) {
		const struct multifd_opts m = { .channels = 8, .return_path = i % 2 };
		unsigned order[ORDER_MAX];

		order_nth((unsigned)rand() % order_count(9), 9, order);
		lands_in_order(&m, NULL, order, (enum manner)(i % MANNERS));
	}
}
