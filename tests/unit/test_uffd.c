/*
 * Ranges and placing, with this kernel and with emulated ones: this program replaces ioctl, so that it can give the
 * answers of older and newer kernels.
 */
#include "tests/unit/uffd_world.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- a kernel that is played -------------------------------------------------------------------------------- */

static struct {
	int error;     /* negative errno, 0: success */
	int64_t field; /* written where it is not NOT_WRITTEN */
} played[4];
static size_t played_count, played_next; /* placements */
static uint64_t played_at[4];            /* where each was asked to begin */
static uint64_t played_from[4];          /* and a copy's bytes */

#define NOT_WRITTEN INT64_MIN

static int play(uint64_t at, __s64 *field)
{
	size_t i = played_next++;

	ck_assert_uint_lt(i, played_count);
	played_at[i] = at;
	if (played[i].field != NOT_WRITTEN)
		*field = played[i].field;
	errno = -played[i].error;
	return played[i].error ? -1 : 0;
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (request == UFFDIO_COPY && played_count && played_next < played_count)
		played_from[played_next] = ((struct uffdio_copy *)arg)->src;
	if (request == UFFDIO_COPY && played_count)
		return play(((struct uffdio_copy *)arg)->dst, &((struct uffdio_copy *)arg)->copy);
	if (request == UFFDIO_ZEROPAGE && played_count)
		return play(((struct uffdio_zeropage *)arg)->range.start, &((struct uffdio_zeropage *)arg)->zeropage);
	if (request == UFFDIO_CONTINUE && played_count)
		return play(((struct uffdio_continue *)arg)->range.start, &((struct uffdio_continue *)arg)->mapped);
	return (int)syscall(SYS_ioctl, fd, request, arg);
}

static void script(int error, int64_t field)
{
	played[played_count].error = error;
	played[played_count++].field = field;
}

/* ---- what the tests share ----------------------------------------------------------------------------------- */

enum { PAGES = 8 };

static size_t page;
static int file;
static uint8_t *guest, *landing, *bytes;

static void begin(uint64_t features)
{
	page = (size_t)sysconf(_SC_PAGESIZE);
	open_or_skip(features);
	bytes = malloc(PAGES * page);
	for (size_t i = 0; i < PAGES * page; i++)
		bytes[i] = (uint8_t)('A' + i / page);
}

static void begin_anonymous(void)
{
	begin(0);
	guest = mmap(NULL, PAGES * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(guest, MAP_FAILED);
	madvise(guest, PAGES * page, MADV_NOHUGEPAGE);
	ck_assert_int_eq(uffd_register(&u, guest, PAGES * page, UFFDIO_REGISTER_MODE_MISSING), 0);
}

static void begin_file(void)
{
	begin(UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM);
	file = memfd_create("guest", MFD_CLOEXEC);
	ck_assert_int_eq(ftruncate(file, (off_t)(PAGES * page)), 0);
	guest = mmap(NULL, PAGES * page, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	landing = mmap(NULL, PAGES * page, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	ck_assert(guest != MAP_FAILED && landing != MAP_FAILED);
	ck_assert_int_eq(
	        uffd_register(&u, guest, PAGES * page, UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR), 0);
}

static void setup(void)
{
	u = UFFD_NONE;
	file = -1;
	guest = landing = bytes = NULL;
	err = ERR_NONE;
}

static void teardown(void)
{
	uffd_close(&u);
	if (file >= 0)
		close(file);
	if (guest)
		munmap(guest, PAGES * page);
	if (landing)
		munmap(landing, PAGES * page);
	free(bytes);
}

static void assert_done(struct uffd_done done, size_t pages, int error)
{
	ck_assert_int_eq(done.error, error);
	ck_assert_uint_eq(done.bytes, pages * page);
}

/* ---- ranges ------------------------------------------------------------------------------------------------- */

TEST_CASE("place", 20, .checked = { setup, teardown });

TEST(test_errors_of_ranges_are_the_kernels)
{
	struct uffd none = UFFD_NONE;
	struct uffd_msg msg;
	int64_t r;

	begin_anonymous();
	ck_assert_int_eq(uffd_register(&none, guest, page, UFFDIO_REGISTER_MODE_MISSING), -EBADF);
	ck_assert_int_eq(uffd_register(&u, guest + 1, page, UFFDIO_REGISTER_MODE_MISSING), -EINVAL);
	ck_assert_int_eq(uffd_register(&u, guest, page, 0), -EINVAL);
	ck_assert_int_eq(uffd_unregister(&u, guest, page - 1), -EINVAL);
	ck_assert_int_eq(uffd_unregister(&none, guest, page), -EBADF);
	ck_assert_int_eq(uffd_wake(&u, guest + 1, page), -EINVAL);
	ck_assert_int_eq(uffd_wake(&none, guest, page), -EBADF);
	ck_assert_int_eq(uffd_wake(&u, guest, page), 0);
	r = uffd_read(&none, &msg, 1);
	ck_assert_int_eq(r, -EBADF);
	assert_done(uffd_copy(&none, guest, bytes, page), 0, -EBADF);
	assert_done(uffd_copy(&u, guest + 1, bytes, page), 0, -EINVAL);
	assert_done(uffd_zeropage(&u, guest, page - 1), 0, -EINVAL);
	assert_done(uffd_copy(&u, guest, bytes, 0), 0, 0);
}

TEST(test_what_is_not_registered_is_enoent)
{
	begin_anonymous();
	ck_assert_int_eq(uffd_unregister(&u, guest, 4 * page), 0);
	assert_done(uffd_copy(&u, guest, bytes, page), 0, -ENOENT);
	assert_done(uffd_copy(&u, guest + 4 * page, bytes, page), 1, 0);
}

/* ---- placing ------------------------------------------------------------------------------------------------ */

TEST(test_copy_places_every_byte)
{
	begin_anonymous();
	assert_done(uffd_copy(&u, guest, bytes, PAGES * page), PAGES, 0);
	ck_assert_mem_eq(guest, bytes, PAGES * page);
}

TEST(test_copy_stops_at_what_is_there)
{
	begin_anonymous();
	assert_done(uffd_copy(&u, guest + 3 * page, bytes, page), 1, 0);
	assert_done(uffd_copy(&u, guest + page, bytes + page, 4 * page), 2, -EEXIST);
	ck_assert_mem_eq(guest + page, bytes + page, 2 * page);
	ck_assert_int_eq(guest[3 * page], 'A');
}

TEST(test_zeropage_stops_at_what_is_there)
{
	begin_anonymous();
	assert_done(uffd_copy(&u, guest + 3 * page, bytes, page), 1, 0);
	assert_done(uffd_zeropage(&u, guest, 8 * page), 3, -EEXIST);
	ck_assert_int_eq(guest[2 * page], 0);
	assert_done(uffd_zeropage(&u, guest + 4 * page, 4 * page), 4, 0);
}

TEST(test_continue_stops_at_what_is_there_and_at_a_hole)
{
	begin_file();
	memcpy(landing, bytes, 6 * page);
	assert_done(uffd_continue(&u, guest + 2 * page, page), 1, 0);
	assert_done(uffd_continue(&u, guest, 6 * page), 2, -EEXIST);
	assert_done(uffd_continue(&u, guest + 3 * page, 5 * page), 3, -EFAULT);
	ck_assert_mem_eq(guest, bytes, 6 * page);
}

static void *reads_one(void *arg)
{
	return (void *)(uintptr_t) * (volatile uint8_t *)arg;
}

TEST(test_events_come_in_batches_and_placing_ends_the_waiting)
{
	struct uffd_msg msgs[4];
	pthread_t threads[3];
	size_t got = 0;
	void *saw;

	need_the_real_machine();
	begin_anonymous();
	for (size_t i = 0; i < 3; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, reads_one, guest + i * page), 0);
	usleep(200000);
	for (int tries = 0; got < 3 && tries < 1000; tries++) {
		ssize_t n = uffd_read(&u, msgs + got, 4 - got);

		ck_assert_int_ge(n, 0);
		got += (size_t)n;
		usleep(10000);
	}
	ck_assert_uint_eq(got, 3);
	for (size_t i = 0; i < 3; i++)
		ck_assert_int_eq(msgs[i].event, UFFD_EVENT_PAGEFAULT);
	assert_done(uffd_copy(&u, guest, bytes, 3 * page), 3, 0);
	for (size_t i = 0; i < 3; i++) {
		pthread_join(threads[i], &saw);
		ck_assert_uint_eq((uintptr_t)saw, 'A' + i);
	}
}

TEST(test_a_fault_inside_a_limit_leaves_the_others)
{
	struct uffd_msg msg[2];
	pthread_t threads[2];

	need_the_real_machine();
	begin_anonymous();
	for (size_t i = 0; i < 2; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, reads_one, guest + i * page), 0);
	usleep(200000);
	for (size_t i = 0; i < 2; i++)
		ck_assert_int_eq(uffd_read(&u, &msg[i], 1), 1);
	ck_assert_uint_ne(msg[0].arg.pagefault.address, msg[1].arg.pagefault.address);
	ck_assert_int_eq(uffd_read(&u, msg, 2), 0);
	assert_done(uffd_zeropage(&u, guest, 2 * page), 2, 0);
	for (size_t i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
}

/* The three, against a kernel that is played. */
static struct uffd_done place(int which)
{
	played_next = 0;
	if (which == 0)
		return uffd_copy(&u, guest, bytes, 4 * page);
	return which == 1 ? uffd_zeropage(&u, guest, 4 * page) : uffd_continue(&u, guest, 4 * page);
}

static void begin_played(void)
{
	page = 4096;
	guest = (uint8_t *)(uintptr_t)0x100000;
	bytes = NULL;
	played_count = 0;
}

TEST_EACH(test_a_failure_is_read_the_same_from_old_and_new_kernels, 6)
{
	begin_played();
	script(-EAGAIN, _i < 3 ? NOT_WRITTEN : -EAGAIN); /* before Linux 6.15, and since */
	assert_done(place(_i % 3), 0, -EAGAIN);
	ck_assert_uint_eq(played_next, 1); /* no retry of our own: it would spin */
	guest = NULL;
}

TEST_EACH(test_a_part_that_was_placed_counts, 6)
{
	begin_played();
	script(-EAGAIN, 4096);
	script(-EAGAIN, 2 * 4096);
	script(-EAGAIN, _i < 3 ? NOT_WRITTEN : -EAGAIN);
	assert_done(place(_i % 3), 3, -EAGAIN);
	ck_assert_uint_eq(played_at[1], 0x101000);
	ck_assert_uint_eq(played_at[2], 0x103000);
	if (_i % 3 == 0)
		ck_assert_uint_eq(played_from[2] - played_from[0], 0x3000);
	guest = NULL;
}

TEST_EACH(test_a_part_and_then_the_rest_is_all, 3)
{
	begin_played();
	script(-EAGAIN, 4096);
	script(0, 3 * 4096);
	assert_done(place(_i), 4, 0);
	guest = NULL;
}

TEST_EACH(test_nothing_done_without_an_error_is_an_error, 3)
{
	begin_played();
	script(0, 0);
	assert_done(place(_i), 0, -EIO);
	guest = NULL;
}
