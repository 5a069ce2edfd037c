#include "tests/netem/fate.h"

/* The numbers a packet draws. A new one goes to the end, or old seeds mean something else. */
enum draw {
	DRAW_LOSS,
	DRAW_MOVE,
	DRAW_BURST,
	DRAW_DUPLICATE,
	DRAW_CORRUPT,
	DRAW_FLIP,
	DRAW_JITTER,
	DRAW_REORDER,
	DRAWS_MAX = 16 /* room for more */
};

/* The finalizer of splitmix64: neighbouring inputs have unrelated outputs, so a counter is state enough. */
static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

static uint64_t draw(const struct dice *d, enum draw which)
{
	return mix(d->seed + d->count * DRAWS_MAX + which);
}

/* In [0, 1): 53 bits are what a double holds. So a chance of 1 always comes, a chance of 0 never. */
static double share(const struct dice *d, enum draw which)
{
	return (double)(draw(d, which) >> 11) * 0x1p-53;
}

void dice_init(struct dice *d, uint64_t seed, unsigned int direction)
{
	/* Twice: with a seed that is used as it comes, seed 1 would be seed 0 a few packets later. */
	*d = (struct dice){ .seed = mix(mix(seed) + direction) };
}

/* The chain moves first, then the state it is in decides: with h = 0 a burst has 1 / r packets on average. */
static bool lost_in_burst(struct dice *d, const struct settings *s)
{
	if (share(d, DRAW_MOVE) < (d->bad ? s->burst_r : s->burst_p))
		d->bad = !d->bad;
	return share(d, DRAW_BURST) >= (d->bad ? s->burst_h : s->burst_k);
}

void fate_draw(struct dice *d, const struct settings *s, struct fate *ret_fate)
{
	bool burst = lost_in_burst(d, s);

	*ret_fate = (struct fate){
		.lost = share(d, DRAW_LOSS) < s->loss || burst,
		.duplicated = share(d, DRAW_DUPLICATE) < s->duplicate,
		.corrupted = share(d, DRAW_CORRUPT) < s->corrupt,
		.reordered = share(d, DRAW_REORDER) < s->reorder,
		.flip = draw(d, DRAW_FLIP),
		.jitter = share(d, DRAW_JITTER) * 2 - 1,
	};
	d->count++;
}
