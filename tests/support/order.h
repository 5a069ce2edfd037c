/*
 * order.h - the orders in which the connections of a migration can come
 */
#ifndef TESTS_SUPPORT_ORDER_H
#define TESTS_SUPPORT_ORDER_H

#include <stddef.h>

#include "tests/support/several.h"

#define ORDER_MAX 9u

/* The @nth of the permutations of the numbers below @count; there are order_count(count) of them. */
void order_nth(unsigned nth, unsigned count, unsigned *ret_order);
unsigned order_count(unsigned count);

/* Where main, channel 0 and channel 1 are among the lines when others are between them. */
struct order_real {
	unsigned line[3];
};

/* Connection @which connects and may send its first @upto bytes. */
void order_connect(struct several *s, struct order_real *r, unsigned which, size_t upto);
/* All three send what they have, and the migration runs to its end. */
void order_finish(struct several *s, const struct order_real *r);
/* That; it has landed, and nothing is left. */
void order_lands(struct several *s, const struct order_real *r);

#endif
