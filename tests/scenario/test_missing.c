/*
 * Pages that are to come are missing: a page that the source has discarded is not in the guest view when the guest
 * begins, so that a thread that touches it waits. Others put pages there: the kernel makes huge pages of memory with
 * holes, and a shared mapping keeps what was given back.
 */
#include "tests/support/check_main.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/support/postcopy_scene.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

#define HUGE_PAGES (PC_HUGE_BYTES / PC_PAGE)

/* The first one has a huge page's place in it, wherever it begins. */
static const struct pc_block anon[] = { { "pc.ram", 3 * HUGE_PAGES, EMB_ANON }, { "vga.vram", 16, EMB_ANON } };

/* What khugepaged(8) does at any time: a huge page, of what is there and zeros where nothing is. */
static int collapse(struct pc *s)
{
	uintptr_t at = (uintptr_t)pc_guest(s, 0, 0), end = at + s->ram[0].bytes;

	for (at = (at + PC_HUGE_BYTES - 1) & ~(PC_HUGE_BYTES - 1); at + PC_HUGE_BYTES <= end; at += PC_HUGE_BYTES)
		if (madvise((void *)at, PC_HUGE_BYTES, MADV_COLLAPSE) < 0)
			return -errno;
	return 0;
}

/* Once, right before memory of this size is registered. */
static struct pc *collapse_late;
static int collapsed = 1;

int ioctl(int fd, unsigned long request, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (collapse_late && request == UFFDIO_REGISTER &&
	    ((struct uffdio_register *)arg)->range.len == collapse_late->ram[0].bytes) {
		collapsed = collapse(collapse_late);
		collapse_late = NULL;
	}
	return (int)syscall(SYS_ioctl, fd, request, arg);
}

static void skip_where_it_cannot(struct pc *s, int r)
{
	if (r == 0)
		return;
	pc_give_up(s);
	if (r == -EINVAL || r == -ENOMEM || r == -EAGAIN || r == -EBUSY)
		test_skip("the kernel makes no huge page on demand");
	ck_abort_msg("MADV_COLLAPSE: %s", strerror(-r));
}

TEST_CASE("missing", 60, .checked = { .setup = pc_need });

/* The guest touches all pages, of which each third one came in precopy, others stale, and many never. */
TEST_EACH(test_a_huge_page_that_the_kernel_makes_of_holes_does_not_stand_for_pages_to_come, 4)
{
	struct pc s;

	pc_begin(&s, &(struct pc_opts){ .blocks = anon,
	                                .block_count = 2,
	                                .precopied = 30,
	                                .quiet = _i % 2,
	                                .touch = { .threads = 2, .order = PC_SCATTERED } });
	pc_precopy(&s);
	pc_allow(&s, s.package_at);
	pc_settle(&s);
	ck_assert_int_eq(s.result, 1);
	skip_where_it_cannot(&s, collapse(&s));
	if (_i / 2)
		collapse_late = &s;
	pc_finish(&s);
	ck_assert_int_eq(collapsed, _i / 2 ? 0 : 1);
	pc_check_landed(&s);
	pc_end(&s);
}

/* Given by its address alone: what is given back there stays in the file behind it, and nobody would wait for it. */
TEST_EACH(test_a_shared_mapping_without_its_descriptor_is_refused_for_postcopy, 2)
{
	struct pc s;
	uint8_t *guest;

	pc_begin(&s, &(struct pc_opts){ .blocks = anon, .block_count = 2, .precopied = 90, .touch = { .threads = 1 } });
	guest = pc_guest(&s, 0, 0);
	ck_assert_ptr_eq(mmap(guest + _i * PC_PAGE, s.ram[0].bytes - (size_t)_i * PC_PAGE, PROT_READ | PROT_WRITE,
	                      MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
	                 guest + _i * PC_PAGE);
	pc_finish(&s);
	pc_check_failed(&s, -EINVAL, "a shared mapping");
	pc_end(&s);
}
