/* What most tests of a postcopy scene begin with. See postcopy_scene.h. */
#include "tests/support/huge_pool.h"
#include "tests/support/postcopy_scene.h"

#include <check.h>

struct pc_opts pc_in_memory(const struct pc_block blocks[static 2], struct pc_opts o)
{
	uint64_t pages = 0;

	for (unsigned b = 0; b < 2; b++)
		if (blocks[b].backing == EMB_HUGETLB)
			pages += ((blocks[b].pages + o.spare_pages) * PC_PAGE + PC_HUGE_BYTES - 1) / PC_HUGE_BYTES;
	if (pages > 0)
		huge_pool_need(pages);
	o.blocks = blocks;
	o.block_count = 2;
	o.look = pc_check_books;
	return o;
}

int pc_device_waits(struct pc *s, const struct inm_device *device)
{
	(void)device;
	return inm_ram_await(s->e.inm, pc_guest(s, 0, 1), 1);
}

void pc_begin_until(struct pc *s, pc_done_fn *done, const struct pc_opts *o)
{
	pc_begin(s, o);
	pc_switch(s);
	ck_assert(pc_until(s, done, 5000));
}
