/*
 * We can fill huge pages of hugetlbfs in small pieces, through a mapping that is not registered, while the guest view
 * waits; one CONTINUE then maps the whole page there.
 */
#include "tests/platform/uffd_kit.h"
#include "tests/support/huge_pool.h"

#include <linux/memfd.h>

#define HPAGE HUGE_POOL_BYTES

int main(void)
{
	struct uffd u = uffd_or_skip(UFFD_FEATURE_MISSING_HUGETLBFS | UFFD_FEATURE_MINOR_HUGETLBFS);
	size_t piece = page_size();
	uint8_t *guest, *landing, *bytes = malloc(piece);
	struct toucher t, other;
	struct uffd_msg msg;
	int64_t m;
	int fd;

	atexit(huge_pool_restore);
	huge_pool_fill(2);
	fd = memfd_create("memory", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB);
	if (fd < 0 || huge_pool_free() < 2) {
		puts("no two free pages of 2 MiB, and the pool cannot be enlarged");
		return 77;
	}
	if (ftruncate(fd, 2 * HPAGE) < 0)
		broken("ftruncate");
	guest = map(fd, 2 * HPAGE);
	landing = map(fd, 2 * HPAGE);
	watch(&u, guest, 2 * HPAGE, BOTH_MODES);

	msg = touch_sleeps(&t, &u, guest + 5 * piece + 7);
	CLAIM(!(msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR), "a page nobody has filled is a MISSING fault");
	CLAIM(msg.arg.pagefault.address / HPAGE == (uintptr_t)guest / HPAGE, "told at +%#llx of the huge page",
	      (unsigned long long)msg.arg.pagefault.address - (unsigned long long)(uintptr_t)guest);
	for (size_t off = 0; off < HPAGE; off += piece) {
		memset(bytes, (int)(off / piece % 251), piece);
		memcpy(landing + off, bytes, piece);
	}
	CLAIM(!touch_ends(&t, NEVER_MS), "filled through the other mapping in pieces of %zu: the guest waits", piece);
	msg = touch_sleeps(&other, &u, guest + 9 * piece);
	CLAIM(msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR, "from the first byte on it is a MINOR fault");
	CLAIM(bare_continue(&u, guest, piece, 0, &m) == -EINVAL, "CONTINUE of a piece is EINVAL");
	CLAIM(bare_continue(&u, guest, HPAGE, 0, &m) == 0 && m == (int64_t)HPAGE, "CONTINUE of the page maps 2 MiB");
	CLAIM(touch_ends(&t, SOON_MS) && t.saw == 5 && touch_ends(&other, SOON_MS) && other.saw == 9,
	      "and wakes both, who read what was filled in");
	CLAIM(guest[HPAGE - 1] == (HPAGE / piece - 1) % 251, "to the last byte");
	CLAIM(bare_continue(&u, guest + HPAGE, HPAGE, 0, &m) == -EFAULT, "CONTINUE of a hole is EFAULT");
	CLAIM(bare_zeropage(&u, guest + HPAGE, HPAGE, &m) == -EINVAL, "ZEROPAGE is not for huge pages: EINVAL");
	munmap(guest, 2 * HPAGE);
	munmap(landing, 2 * HPAGE);
	close(fd);
	free(bytes);
	return 0;
}
