#include "memory/forget.h"

#include "coroutine/turn.h"

/* Looked at a time for pages that are there: what is received, a bit for each. */
#define LOOK_TPAGES ((size_t)64 * 1024 * 8)

/* So many tpages from @tpage on, whole units, hold FORGET_TPAGES at most; one unit at least. */
static size_t piece(const struct block *b, size_t tpage, size_t count, size_t unit)
{
	size_t n = FORGET_TPAGES > unit ? FORGET_TPAGES : unit, end = tpage + count, at = tpage;

	/* What the embedder has put there is not known. */
	if (b->dirty)
		return n < count ? n : count;
	/* The first page that is there; what is before it costs nothing. */
	at = bitmap_next_set(&b->received, tpage, count < LOOK_TPAGES ? end : tpage + LOOK_TPAGES);
	n += (at - tpage) / unit * unit;
	return n < count ? n : count;
}

int forget_range(struct sched *s, struct block *b, size_t tpage, size_t count)
{
	size_t unit = (size_t)1 << block_unit_order(b), n;
	int r = 0;

	while (r == 0 && count > 0) {
		n = piece(b, tpage, count, unit);
		r = block_forget(b, tpage, n);
		tpage += n;
		count -= n;
		/* A look at the clock for each piece of some size; a page alone costs its system call. */
		if (r == 0)
			r = turn_spend(s, n < TURN_LOOK / TURN_SYSCALL ? TURN_SYSCALL : TURN_LOOK);
	}
	return r;
}
