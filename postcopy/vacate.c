#include "postcopy/vacate.h"

#include "base/assert.h"
#include "coroutine/reactor.h"
#include "coroutine/turn.h"
#include "memory/forget.h"
#include "postcopy/shared.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <unistd.h>

/* Tpages that are looked through between two looks at the clock. */
#define LOOK_TPAGES (TURN_LOOK * 8)

/* Pages that one call of mincore(2) is asked about: no tpage is larger. */
#define PIECE_PAGES ((size_t)512)

/* The kernel takes its time for a huge page: what comes between our steps so often is not the kernel. */
#define TRIES 100

/* Tpages [first, end). */
struct place {
	size_t first, end;
};

/* A page of a page table: what it maps becomes one huge page. An entry has 8 bytes on all machines with 64 bits. */
static uintptr_t huge_bytes(const struct block *b)
{
	return (uintptr_t)b->hpage_bytes / 8 * b->hpage_bytes;
}

/* What a huge page around @tpage could fill; whole tpages, also those that it has a part of. */
static struct place place_around(const struct block *b, size_t tpage)
{
	unsigned shift = b->tpage_shift;
	uintptr_t base = (uintptr_t)b->guest, mask = huge_bytes(b) - 1;
	uintptr_t begin = (base + ((uintptr_t)tpage << shift)) & ~mask;
	uintptr_t end = (base + (((uintptr_t)tpage + 1) << shift) + mask) & ~mask;
	struct place p = { begin > base ? (begin - base) >> shift : 0, 0 };

	p.end = (end - base + ((uintptr_t)1 << shift) - 1) >> shift;
	if (p.end > b->received.nbits)
		p.end = b->received.nbits;
	return p;
}

/* The next place from *@at on where something is there and something is expected. Return: false: there is none. */
static may_park bool next_place(struct postcopy *pc, const struct pblock *pb, size_t *at, struct place *ret)
{
	const struct bitmap *received = &pb->b->received, *expected = &pb->expected.level[0];
	size_t all = received->nbits, end, there;

	while (*at < all) {
		end = all - *at < LOOK_TPAGES ? all : *at + LOOK_TPAGES;
		there = bitmap_next_set(received, *at, end);
		turn_spend_shielded(&pc->reactor->sched, (there - *at) / 8 + TURN_STEP);
		*at = there;
		if (there == end)
			continue;
		*ret = place_around(pb->b, there);
		*at = ret->end;
		if (bitmap_next_set(expected, ret->first, ret->end) < ret->end)
			return true;
	}
	return false;
}

static may_park int give_back(struct postcopy *pc, struct pblock *pb, struct place p)
{
	const struct bitmap *expected = &pb->expected.level[0];
	size_t end;
	int r = 0;

	for (size_t t = bitmap_next_set(expected, p.first, p.end); r == 0 && t < p.end;
	     t = bitmap_next_set(expected, end, p.end)) {
		end = bitmap_next_clear(expected, t, p.end);
		r = forget_pages(pb->b, t, end - t);
		turn_spend_shielded(&pc->reactor->sched, TURN_SYSCALL);
	}
	return r;
}

int vacate(struct postcopy *pc, struct pblock *pb)
{
	struct place p;
	size_t at = 0;
	int r = 0;

	while (pb->b->kind == BLOCK_ANONYMOUS && r == 0 && next_place(pc, pb, &at, &p))
		r = give_back(pc, pb, p);
	return r;
}

/* Is anything of [p.first, p.end), PIECE_PAGES at most, there that is expected? */
static int is_filled(const struct pblock *pb, struct place p)
{
	const struct block *b = pb->b;
	unsigned shift = b->tpage_shift;
	size_t pages = (((p.end - p.first) << shift) + b->hpage_bytes - 1) / b->hpage_bytes;
	unsigned char there[PIECE_PAGES];

	ASSERT(pages <= PIECE_PAGES);
	if (mincore(b->guest + (p.first << shift), pages * b->hpage_bytes, there) < 0)
		return -errno;
	for (size_t i = 0; i < pages; i++)
		if (there[i] & 1 && coverage_test(&pb->expected, p.first + (i * b->hpage_bytes >> shift)))
			return 1;
	return 0;
}

/* A step without a park: nobody else comes in between, but the kernel. */
static int empty_again(struct postcopy *pc, struct pblock *pb, struct place p)
{
	unsigned shift = pb->b->tpage_shift;
	const struct bitmap *expected = &pb->expected.level[0];
	uint8_t *at = pb->b->guest + (p.first << shift);
	size_t bytes = (p.end - p.first) << shift, end;
	int r = uffd_unregister(&pc->guest, at, bytes);

	for (size_t t = bitmap_next_set(expected, p.first, p.end); r == 0 && t < p.end;
	     t = bitmap_next_set(expected, end, p.end)) {
		end = bitmap_next_clear(expected, t, p.end);
		r = forget_pages(pb->b, t, end - t);
	}
	return r < 0 ? r : uffd_register(&pc->guest, at, bytes, UFFDIO_REGISTER_MODE_MISSING);
}

static may_park int check_piece(struct postcopy *pc, struct pblock *pb, struct place p)
{
	int r;

	for (unsigned i = 0; i < TRIES; i++) {
		r = is_filled(pb, p);
		turn_spend_shielded(&pc->reactor->sched, TURN_SYSCALL);
		if (r <= 0)
			return r;
		r = empty_again(pc, pb, p);
		turn_spend_shielded(&pc->reactor->sched, TURN_LOOK);
		if (r < 0)
			return r;
	}
	return -EBUSY;
}

int vacate_check(struct postcopy *pc, struct pblock *pb)
{
	size_t step = (PIECE_PAGES * pb->b->hpage_bytes) >> pb->b->tpage_shift, at = 0;
	struct place p, piece;
	int r = 0;

	while (pb->b->kind == BLOCK_ANONYMOUS && r == 0 && next_place(pc, pb, &at, &p)) {
		for (piece = p; r == 0 && piece.first < p.end; piece.first = piece.end) {
			piece.end = p.end - piece.first < step ? p.end : piece.first + step;
			r = check_piece(pc, pb, piece);
		}
	}
	return r;
}
