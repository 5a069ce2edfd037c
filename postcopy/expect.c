#include "postcopy/expect.h"

#include "coroutine/reactor.h"
#include "coroutine/turn.h"
#include "memory/forget.h"
#include "postcopy/shared.h"

#include <errno.h>
#include <stdlib.h>

/* Words of a bitmap that are gone through between two looks at the clock. */
#define WORDS_AT_A_TIME ((size_t)4096)

static int make_block(struct pblock *pb, struct block *b)
{
	int r;

	pb->b = b;
	if (b->kind == BLOCK_IGNORED)
		return 0;
	pb->units = (b->used_bytes + block_unit_bytes(b) - 1) >> b->unit_shift;
	r = bitmap_init(&pb->asked, pb->units);
	return r < 0 ? r : coverage_init(&pb->expected, b->received.nbits);
}

int expect_prepare(struct postcopy *pc)
{
	struct pblock *blocks;
	int r = 0;

	if (pc->blocks)
		return 0;
	blocks = calloc(pc->ram->count, sizeof(*blocks));
	if (!blocks)
		return -ENOMEM;
	pc->blocks = blocks;
	for (size_t i = 0; r == 0 && i < pc->ram->count; i++) {
		r = make_block(&blocks[i], pc->ram->blocks[i]);
		if (r == 0)
			r = turn_spend(&pc->reactor->sched, 2 * TURN_SYSCALL);
	}
	return r;
}

int expect_range(struct postcopy *pc, struct block *b, size_t tpage, size_t count)
{
	struct sched *s = &pc->reactor->sched;
	size_t end = tpage + count, at, n, most;
	int r = expect_prepare(pc);
	struct coverage *expected;
	struct pblock *pb;

	if (r < 0)
		return r;
	pb = postcopy_block(pc, b);
	expected = &pb->expected;
	/* Marking is cheap, and still too long for all of a large guest at once. Whole units. */
	most = (size_t)1 << block_unit_order(b);
	most = most > 64 * WORDS_AT_A_TIME ? most : 64 * WORDS_AT_A_TIME;
	for (at = coverage_find_clear(expected, tpage); at < end; at = coverage_find_clear(expected, at)) {
		n = coverage_clear_end(expected, at, end - at < most ? end : at + most) - at;
		r = forget_range(s, b, at, n);
		if (r < 0)
			return r;
		coverage_set(expected, at, n);
		pc->counts.discarded += n;
		r = turn_spend(s, n / 8);
		if (r < 0)
			return r;
	}
	return turn_spend(s, TURN_STEP);
}

/* Bits whose memory is given back at a time: 2 MiB of it. */
#define DROP_BITS ((size_t)2 << 23)

/* Of a large guest that is hundreds of megabytes: the kernel takes 0.1 ms for each two of them. */
static may_park void drop_expected(struct postcopy *pc, struct pblock *pb)
{
	for (size_t bit = 0; bit + DROP_BITS < pb->expected.nbits; bit += DROP_BITS) {
		bitmap_drop(&pb->expected.level[0], bit, DROP_BITS);
		turn_spend_shielded(&pc->reactor->sched, TURN_LOOK);
	}
	coverage_fini(&pb->expected);
}

/* By words: a received page stays so, an expected one is missing, and what is neither has come as zeros. */
static int settle_block(struct postcopy *pc, struct pblock *pb)
{
	struct block *b = pb->b;
	size_t words = (b->received.nbits + 63) / 64, tail = b->received.nbits % 64;
	int r = 0;

	for (size_t i = 0; r == 0 && i < words; i++) {
		uint64_t inside = i + 1 == words && tail ? (1ull << tail) - 1 : ~0ull;

		block_mark_word(b, i, inside & ~pb->expected.level[0].words[i]);
		if (i % WORDS_AT_A_TIME == WORDS_AT_A_TIME - 1)
			r = turn_spend(&pc->reactor->sched, TURN_LOOK);
	}
	drop_expected(pc, pb);
	return r < 0 ? r : turn_spend(&pc->reactor->sched, TURN_STEP);
}

int expect_settle(struct postcopy *pc)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < pc->ram->count; i++)
		if (pc->ram->blocks[i]->kind != BLOCK_IGNORED)
			r = settle_block(pc, &pc->blocks[i]);
	pc->settled = r == 0;
	if (r == 0)
		postcopy_tell_whole(pc);
	return r;
}

void expect_free(struct postcopy *pc)
{
	for (size_t i = 0; pc->blocks && i < pc->ram->count; i++) {
		bitmap_fini(&pc->blocks[i].asked);
		drop_expected(pc, &pc->blocks[i]);
		turn_spend_shielded(&pc->reactor->sched, 2 * TURN_SYSCALL);
	}
	free(pc->blocks);
	pc->blocks = NULL;
}
