#include "tests/support/order.h"

#include <string.h>

void order_nth(unsigned nth, unsigned count, unsigned *ret_order)
{
	unsigned left[ORDER_MAX];

	for (unsigned i = 0; i < count; i++)
		left[i] = i;
	for (unsigned n = count; n > 0; n--) {
		unsigned at = nth % n;

		nth /= n;
		ret_order[count - n] = left[at];
		memmove(left + at, left + at + 1, (n - 1 - at) * sizeof(*left));
	}
}

unsigned order_count(unsigned count)
{
	return count < 2 ? 1 : count * order_count(count - 1);
}

void order_connect(struct several *s, struct order_real *r, unsigned which, size_t upto)
{
	r->line[which] = several_connect(s, several_wire(s, which));
	s->lines[r->line[which]].return_path = s->return_path && which == SEVERAL_MAIN;
	several_allow(s, r->line[which], upto);
	several_settle(s);
}

void order_finish(struct several *s, const struct order_real *r)
{
	for (unsigned i = 0; i < 3; i++) {
		several_allow(s, r->line[i], SEVERAL_ALL);
		s->lines[r->line[i]].end = i == SEVERAL_MAIN ? PUMP_HONEST : PUMP_HOLD;
	}
	several_run(s, 10000);
}

void order_lands(struct several *s, const struct order_real *r)
{
	order_finish(s, r);
	several_check_landed(s);
	several_end(s);
}
