/* Cancelled, or freed, at every park of the set-up: everything is released. */
#include "tests/support/check_main.h"

#include <errno.h>
#include <stdint.h>

#include "tests/support/order.h"

/* Every dispatch of the set-up: small pieces make many of them. Lines connect in @order, @batch at a time. */
static void cancel_at(unsigned k, unsigned nth, bool by_free, size_t chunk_bytes)
{
	const struct multifd_opts m = { .channels = 3 };
	unsigned order[ORDER_MAX];
	struct several s;

	order_nth(nth, 4, order);
	several_begin(&s, &m, NULL);
	s.cancel_at = by_free ? UINT32_MAX : k;
	for (unsigned i = 0; i < 4; i++) {
		unsigned line = several_connect(&s, several_wire(&s, order[i]));

		several_allow(&s, line,
		              order[i] ? wire_find(several_wire(&s, order[i]), "interval", 0) :
		                         wire_find(&s.h.main, "PART", 0));
		s.lines[line].chunk_bytes = chunk_bytes;
		if (nth % 2 && s.dispatches < k)
			several_turn(&s);
		else
			pump_step(&s.lines[line]); /* there is something to read when it is accepted */
	}
	while (s.dispatches <= k && s.result == 1)
		several_turn(&s);
	if (!by_free) {
		several_run(&s, 3000);
		several_check_failed(&s, -ECANCELED, NULL);
	}
	several_end(&s);
}

TEST_CASE("cancel", 120);

TEST_EACH(test_cancel_at_any_dispatch_of_the_set_up_gives_everything_back, 2)
{
	for (unsigned k = 0; k < 40; k++)
		for (unsigned nth = 0; nth < 24; nth += 5)
			cancel_at(k, nth, false, _i ? 17 : 4);
}

TEST_EACH(test_free_at_any_dispatch_of_the_set_up_gives_everything_back, 2)
{
	for (unsigned k = 0; k < 40; k++)
		for (unsigned nth = 0; nth < 24; nth += 5)
			cancel_at(k, nth, true, _i ? 17 : 4);
}

/* The bytes that complete a connection and the end of the migration come in the same turn. */
TEST(test_a_channel_that_is_being_handed_over_while_all_ends_is_given_back)
{
	for (unsigned last = 0; last < 3; last++)
		for (unsigned turns = 0; turns < 6; turns++)
			for (unsigned by_free = 0; by_free < 2; by_free++) {
				const struct multifd_opts m = { .channels = 2 };
				struct several s;

				several_begin(&s, &m, NULL);
				for (unsigned i = 0; i < 3; i++) {
					several_connect(&s, several_wire(&s, i));
					if (i != last)
						several_allow(&s, i, 64);
				}
				several_settle(&s);
				several_allow(&s, last, last ? 4 : 3);
				several_settle(&s);
				/* Written to the socket; the library has had no turn to look at it. */
				several_allow(&s, last, 64);
				pump_step(&s.lines[last]);
				for (unsigned i = 0; i < turns; i++)
					several_turn(&s);
				if (!by_free) {
					inm_cancel(s.scene.e.inm);
					several_run(&s, 3000);
					several_check_failed(&s, -ECANCELED, NULL);
				}
				several_end(&s);
			}
}
