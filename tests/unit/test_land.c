/* How bytes get into guest RAM, and what counts as received then: memory/land.h, memory/forget.h. */
#include "tests/support/check_main.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "memory/forget.h"
#include "memory/land.h"

#define PAGE 4096u
#define PAGES 200u

static struct ram ram;
static struct block *file, *anonymous;
static uint8_t *memory, bytes[PAGES][PAGE];
static struct iovec pages[PAGES];

static struct block *add(const char *name, const struct block_source *source)
{
	struct block *b;

	ck_assert_int_eq(ram_add(&ram, name, strlen(name), (uint64_t)PAGES * PAGE, source, &b), 0);
	return b;
}

static void setup(void)
{
	int fd = memfd_create("land", MFD_CLOEXEC);

	ck_assert_int_eq(ftruncate(fd, (off_t)PAGES * PAGE), 0);
	memory = mmap(NULL, (size_t)PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert(memory != MAP_FAILED);
	ram_init(&ram, 12);
	file = add("file", &(struct block_source){ .fd = fd });
	anonymous = add("anonymous", &(struct block_source){ .fd = -1, .addr = memory });
	close(fd);
	for (unsigned i = 0; i < PAGES; i++) {
		memset(bytes[i], (int)(1 + i), PAGE);
		pages[i] = (struct iovec){ bytes[i], PAGE };
	}
}

static void teardown(void)
{
	ram_fini(&ram);
	munmap(memory, (size_t)PAGES * PAGE);
}

static void check_pages(const struct block *b, size_t tpage, unsigned first, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		ck_assert(block_is_received(b, tpage + i));
		ck_assert_int_eq(memcmp(b->landing + (tpage + i) * PAGE, bytes[first + i], PAGE), 0);
	}
}

static void shut(void)
{
	ck_assert_int_eq(gate_shut(&ram.gate), 0);
}

/* A page of the file cannot be written: beyond this length there is none. */
static void forbid_writing(void)
{
	struct rlimit limit = { PAGE, PAGE };

	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

TEST_CASE("land", 10, .checked = { setup, teardown });

TEST_EACH(test_pages_land_side_by_side_and_are_received, 2)
{
	struct block *b = _i ? anonymous : file;

	ck_assert_int_eq(land_pages(b, 60, pages, 70), 0);
	check_pages(b, 60, 0, 70);
	ck_assert(!block_is_received(b, 59) && !block_is_received(b, 130));
	ck_assert_uint_eq(b->received_tpages, 70);
	ck_assert_uint_eq(ram_missing_tpages(&ram), 2 * PAGES - 70);
}

TEST(test_a_page_that_comes_again_is_counted_once)
{
	for (unsigned i = 0; i < 3; i++)
		ck_assert_int_eq(land_pages(file, 7, &pages[i], 1), 0);
	check_pages(file, 7, 2, 1);
	land_done(file, 7, 1);
	land_zero(file, 7);
	ck_assert_uint_eq(file->landing[7 * PAGE], 0);
	ck_assert_uint_eq(file->received_tpages, 1);
	ck_assert_uint_eq(ram.received_tpages, 1);
}

TEST(test_a_page_that_cannot_be_written_is_not_received)
{
	forbid_writing();
	ck_assert_int_eq(land_pages(file, 5, pages, 3), -EFBIG);
	ck_assert_uint_eq(ram.received_tpages, 0);
	shut();
	ck_assert_int_eq(land_unseen(file, 5, pages, 3), -EFBIG);
	ck_assert_uint_eq(file->received_tpages, 0);
	ck_assert_uint_eq(ram.received_tpages, 0);
}

TEST(test_from_the_switch_on_pages_land_unseen)
{
	shut();
	ck_assert_int_eq(land_unseen(file, 3, pages, 4), 0);
	check_pages(file, 3, 0, 4);
	ck_assert_uint_eq(ram.received_tpages, 4);
	forget_unseen(file, 4, 2);
	ck_assert(block_is_received(file, 3) && block_is_received(file, 6));
	ck_assert_uint_eq(file->landing[4 * PAGE], 0);
	ck_assert_uint_eq(ram.received_tpages, 2);
}

TEST_EACH(test_what_is_forgotten_reads_as_zeros, 2)
{
	struct block *b = _i ? anonymous : file;

	ck_assert_int_eq(land_pages(b, 0, pages, PAGES), 0);
	ck_assert_int_eq(forget_pages(b, 10, 100), 0);
	ck_assert_uint_eq(ram.received_tpages, 100);
	check_pages(b, 0, 0, 10);
	check_pages(b, 110, 110, 90);
	for (size_t i = 10 * PAGE; i < 110 * PAGE; i++)
		ck_assert_uint_eq(b->landing[i], 0);
}

TEST(test_a_word_of_the_map_is_counted_as_its_pages_are)
{
	ck_assert_int_eq(land_pages(file, 64, pages, 2), 0);
	block_mark_word(file, 1, 0xff);
	block_mark_word(file, 1, 0xff);
	ck_assert_uint_eq(file->received_tpages, 8);
	ck_assert_uint_eq(ram.received_tpages, 8);
	ck_assert(block_is_received(file, 71) && !block_is_received(file, 72));
}

/* ---- each function is for one side of the switch ---- */

TEST_ABORTS(test_land_pages_after_the_switch)
{
	shut();
	land_pages(file, 0, pages, 1);
}

TEST_ABORTS(test_land_zero_after_the_switch)
{
	shut();
	land_zero(file, 0);
}

TEST_ABORTS(test_land_at_after_the_switch)
{
	shut();
	land_at(file, 0);
}

TEST_ABORTS(test_land_done_after_the_switch)
{
	shut();
	land_done(file, 0, 1);
}

TEST_ABORTS(test_land_at_inside_while_nobody_is_inside)
{
	land_at_inside(file, 0);
}

TEST_ABORTS(test_land_unseen_before_the_switch)
{
	land_unseen(file, 0, pages, 1);
}

TEST_ABORTS(test_land_unseen_over_what_is_received)
{
	ck_assert_int_eq(land_pages(file, 1, pages, 1), 0);
	shut();
	land_unseen(file, 0, pages, 2);
}

TEST_ABORTS(test_forget_unseen_before_the_switch)
{
	forget_unseen(file, 0, 1);
}
