#include "engine/ram/discard.h"

#include "base/be.h"
#include "base/err.h"
#include "base/text.h"
#include "postcopy/postcopy.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static int check_range(const struct block *b, uint64_t start, uint64_t bytes, struct err *err)
{
	uint64_t mask = block_unit_bytes(b) - 1;

	if (bytes == 0 || start & mask || start >= b->used_bytes || bytes > b->used_bytes - start ||
	    (bytes & mask && start + bytes != b->used_bytes))
		return err_set(err, -EPROTO, "0x%" PRIx64 " bytes at 0x%" PRIx64 " are no whole pages of block '%s'",
		               bytes, start, b->label);
	return 0;
}

static int carry_out(struct postcopy *pc, struct block *b, const uint8_t *ranges, size_t count, struct err *err)
{
	int e = 0;

	for (size_t i = 0; e == 0 && i < count; i++)
		e = check_range(b, be64_load(ranges + 16 * i), be64_load(ranges + 16 * i + 8), err);
	if (e < 0)
		return e;
	/* One that is named again costs a look (see postcopy_discard); no more. */
	for (size_t i = 0; e == 0 && i < count; i++)
		e = postcopy_discard(pc, b, be64_load(ranges + 16 * i) >> b->tpage_shift,
		                     be64_load(ranges + 16 * i + 8) >> b->tpage_shift);
	if (e == -ECANCELED)
		return e;
	if (e < 0)
		return err_set(err, e, "giving back memory of block '%s': %s", b->label, strerror(-e));
	return 0;
}

int discard_ranges(struct postcopy *pc, const uint8_t *payload, size_t bytes, struct err *err)
{
	const char *name = (const char *)payload + 2;
	size_t name_bytes, head;
	struct block *b;

	if (bytes < 2 || payload[0] != 0)
		return err_set(err, -EPROTO, "version %u is unknown; 0 is expected", bytes ? payload[0] : 0);
	name_bytes = payload[1];
	head = 2 + name_bytes + 1;
	if (bytes < head + 16 || (bytes - head) % 16)
		return err_set(err, -EPROTO, "%zu bytes with a name of %zu: no whole number of ranges", bytes,
		               name_bytes);
	if (payload[head - 1] != 0)
		return err_set(err, -EPROTO, "the byte after the name is %u, not 0", payload[head - 1]);
	b = ram_find(pc->ram, name, name_bytes);
	if (!b)
		return err_set(err, -EPROTO, "unknown block '%s'", TEXT_QUOTE(name, name_bytes));
	if (b->kind == BLOCK_IGNORED)
		return err_set(err, -EPROTO, "block '%s' is shared and not sent", TEXT_QUOTE(name, name_bytes));
	return carry_out(pc, b, payload + head, (bytes - head) / 16, err);
}
