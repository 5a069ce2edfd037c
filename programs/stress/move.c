#include "programs/stress/move.h"

#include "base/clock.h"
#include "coroutine/co.h"
#include "coroutine/io.h"
#include "coroutine/wait.h"
#include "memory/block.h"
#include "postcopy/place.h"
#include "postcopy/postcopy.h"
#include "postcopy/uffd.h"
#include "programs/stress/block.h"
#include "programs/stress/stress.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>

struct uffdio_move_args {
	uint64_t dst, src, len, mode;
	int64_t move;
};

#define UFFDIO_MOVE_PAGES _IOWR(0xAA, 0x05, struct uffdio_move_args)

int move_ioctl(int uffd, void *dst, void *src, size_t bytes)
{
	struct uffdio_move_args m = { .dst = (uintptr_t)dst, .src = (uintptr_t)src, .len = bytes };

	if (ioctl(uffd, UFFDIO_MOVE_PAGES, &m) < 0)
		return -errno;
	return m.move == (int64_t)bytes ? 0 : -EIO;
}

/* Unmapped, or moved: the event that says which has not been read. */
#define GONE_TRIES 1000u

/* As copy_page of postcopy/place.c, which says why each step is there. */
may_park int move_page(struct stress *s, struct sblock *sb, uint32_t page, const uint8_t *bytes, uint8_t *src)
{
	struct postcopy *pc = s->pc;
	struct pblock *pb = postcopy_block(pc, sb->b);
	uint64_t deadline_ns = deadline_after_ns(PLACE_PATIENCE_NS);
	unsigned gone = 0;
	uint8_t *dst;
	int r;

	for (;;) {
		if (block_is_received(sb->b, page)) {
			pc->counts.duplicates++;
			return 0;
		}
		/* Written each time: what a fork shares cannot be moved (EBUSY), and a write ends the sharing. */
		memcpy(src, bytes, TPAGE_BYTES);
		dst = sb->b->guest + (uint64_t)page * TPAGE_BYTES;
		r = move_ioctl(pc->guest.fd, dst, src, TPAGE_BYTES);
		if ((r != -EAGAIN && r != -EBUSY && (r != -ENOENT || gone++ >= GONE_TRIES)) ||
		    clock_now_ns() > deadline_ns)
			break;
		pc->counts.place_retries++;
		r = io_sleep_until(s->reactor, deadline_after_ns(50 * NS_PER_US));
		if (r == -ECANCELED)
			return r;
	}
	if (r == -EEXIST || r == -ENOENT)
		uffd_wake(&pc->guest, dst, TPAGE_BYTES);
	else if (r < 0)
		return r;
	block_mark_received(sb->b, page, 1);
	pc->counts.pages++;
	if (bitmap_test(&pb->asked, page))
		ledger_landed(&pc->ledger, pb, page);
	postcopy_tell_whole(pc);
	return 0;
}
