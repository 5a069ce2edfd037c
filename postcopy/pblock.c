#include "postcopy/pblock.h"

#include "memory/block.h"

bool pblock_complete(const struct pblock *pb, size_t unit)
{
	unsigned shift = block_unit_order(pb->b);
	size_t first = unit << shift, end = (unit + 1) << shift, all = pb->b->received.nbits;

#ifdef CONTROL_4096
	return block_is_received(pb->b, first); /* only in the control of test_stress, which must then fail */
#endif
	if (shift == 0)
		return block_is_received(pb->b, unit);
	if (end > all)
		end = all;
	return bitmap_next_clear(&pb->b->received, first, end) == end;
}
