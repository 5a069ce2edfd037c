/*
 * UFFDIO_CONTINUE on a memory file that is mapped twice, as we use it to place pages: bytes come in through the file,
 * and the guest view, registered for MISSING and MINOR, gets a run of them with one call. This shows how far the call
 * gets and why it stops, and that ZEROPAGE and COPY work on such memory too.
 */
#include "tests/platform/uffd_kit.h"

enum { PAGES = 16 };

static size_t page;
static int fd;
static uint8_t *guest, *landing;

static void land(size_t index, uint8_t value)
{
	uint8_t *bytes = malloc(page);

	memset(bytes, value, page);
	if (pwrite(fd, bytes, page, (off_t)(index * page)) != (ssize_t)page)
		broken("pwrite");
	free(bytes);
}

static void waiter_is_woken(const struct uffd *u)
{
	struct toucher t;
	struct uffd_msg msg = touch_sleeps(&t, u, guest + 5);
	int64_t field;

	CLAIM(!(msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR),
	      "a page that the file has not is a MISSING fault");
	land(0, 'a');
	CLAIM(!touch_ends(&t, NEVER_MS), "bytes in the file alone wake nobody");
	CLAIM(bare_continue(u, guest, page, 0, &field) == 0 && field == (int64_t)page && touch_ends(&t, SOON_MS) &&
	              t.saw == 'a',
	      "CONTINUE wakes the thread, and it reads what was written to the file");
	land(1, 'b');
	msg = touch_sleeps(&t, u, guest + page);
	CLAIM(msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR, "a page that the file has is a MINOR fault");
	CLAIM(bare_continue(u, guest + page, page, 0, &field) == 0 && touch_ends(&t, SOON_MS) && t.saw == 'b',
	      "and CONTINUE ends it");
}

/* Pages 2 to 4 are in the file, 5 is so too and mapped, 6 and 7 are in the file, 8 is a hole. */
static void run_stops(const struct uffd *u)
{
	struct uffd_done done;
	int64_t field;
	int r;

	for (size_t i = 2; i < 8; i++)
		land(i, (uint8_t)('a' + i));
	bare_continue(u, guest + 5 * page, page, 0, &field);
	r = bare_continue(u, guest + 2 * page, 6 * page, 0, &field);
	CLAIM(r == -EAGAIN && field == (int64_t)(3 * page), "a run into a mapped page stops before it: %s, %lld",
	      err_name(r), (long long)field);
	r = bare_continue(u, guest + 5 * page, 3 * page, 0, &field);
	CLAIM(r == -EEXIST && field <= 0, "one that begins there says EEXIST: %s, mapped %lld", err_name(r),
	      (long long)field);
	r = bare_continue(u, guest + 6 * page, 3 * page, 0, &field);
	CLAIM(r == -EAGAIN && field == (int64_t)(2 * page), "a run into a hole of the file stops before it: %s, %lld",
	      err_name(r), (long long)field);
	r = bare_continue(u, guest + 8 * page, page, 0, &field);
	CLAIM(r == -EFAULT && field <= 0, "one that begins there says EFAULT: %s, mapped %lld", err_name(r),
	      (long long)field);
	for (size_t i = 2; i < 8; i++)
		CLAIM(guest[i * page] == 'a' + i, "page %zu is there", i);
	land(9, 'j');
	land(10, 'k');
	done = uffd_continue(u, guest + 9 * page, 3 * page);
	CLAIM(done.bytes == 2 * page && done.error == -EFAULT, "uffd_continue says both: %zu bytes, %s", done.bytes,
	      err_name(done.error));
}

static void others_work(const struct uffd *u)
{
	struct toucher t;
	uint8_t *bytes = malloc(page);
	int64_t field;

	touch_sleeps(&t, u, guest + 12 * page);
	CLAIM(bare_zeropage(u, guest + 12 * page, page, &field) == 0 && touch_ends(&t, SOON_MS) && t.saw == 0,
	      "ZEROPAGE works on a memory file and wakes");
	memset(bytes, 'n', page);
	touch_sleeps(&t, u, guest + 13 * page);
	CLAIM(bare_copy(u, guest + 13 * page, bytes, page, 0, &field) == 0 && touch_ends(&t, SOON_MS) && t.saw == 'n',
	      "COPY works on a memory file and wakes");
	CLAIM(landing[13 * page + page - 1] == 'n', "and the bytes are in the file");
	land(14, 'o');
	CLAIM(bare_copy(u, guest + 14 * page, bytes, page, 0, &field) == -EEXIST && landing[14 * page] == 'o',
	      "COPY onto what the file has says EEXIST and leaves it alone");
	free(bytes);
}

int main(void)
{
	struct uffd u = uffd_or_skip(UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM);

	page = page_size();
	fd = memory_file(PAGES * page);
	guest = map(fd, PAGES * page);
	landing = map(fd, PAGES * page);
	watch(&u, guest, PAGES * page, BOTH_MODES);
	waiter_is_woken(&u);
	run_stops(&u);
	others_work(&u);
	return 0;
}
