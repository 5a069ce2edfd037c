/*
 * EEXIST from a placement does not mean that the threads waiting for the page were woken: here somebody has placed it
 * without a wake. The waiter sleeps on through any number of further placements, until a UFFDIO_WAKE. So we send one
 * after EEXIST.
 */
#include "tests/platform/uffd_kit.h"

static size_t page;

static void only_wake_ends(const struct uffd *u, struct toucher *t, void *addr, const char *with, uint8_t value)
{
	CLAIM(!touch_ends(t, NEVER_MS), "%s without a wake, and once more with EEXIST: the thread still waits", with);
	CLAIM(uffd_wake(u, addr, page) == 0 && touch_ends(t, SOON_MS) && t->saw == value, "UFFDIO_WAKE ends it");
}

static void by_copy(void)
{
	struct uffd u = uffd_or_skip(0);
	uint8_t *guest = map(-1, page), *bytes = malloc(page);
	struct toucher t;
	int64_t field;
	int r;

	watch(&u, guest, page, UFFDIO_REGISTER_MODE_MISSING);
	memset(bytes, 'c', page);
	touch_sleeps(&t, &u, guest);
	if (bare_copy(&u, guest, bytes, page, UFFDIO_COPY_MODE_DONTWAKE, &field) < 0)
		broken("UFFDIO_COPY");
	r = bare_copy(&u, guest, bytes, page, 0, &field);
	CLAIM(r == -EEXIST, "COPY where a page is: %s, copy %lld", err_name(r), (long long)field);
	only_wake_ends(&u, &t, guest, "COPY", 'c');
	uffd_close(&u);
	free(bytes);
}

static void by_continue(void)
{
	struct uffd u = uffd_or_skip(UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM);
	int fd = memory_file(page);
	uint8_t *guest = map(fd, page);
	struct toucher t;
	int64_t field;
	int r;

	watch(&u, guest, page, BOTH_MODES);
	touch_sleeps(&t, &u, guest);
	if (pwrite(fd, "d", 1, 0) != 1 || bare_continue(&u, guest, page, UFFDIO_CONTINUE_MODE_DONTWAKE, &field) < 0)
		broken("UFFDIO_CONTINUE");
	r = bare_continue(&u, guest, page, 0, &field);
	CLAIM(r == -EEXIST, "CONTINUE where a page is: %s, mapped %lld", err_name(r), (long long)field);
	only_wake_ends(&u, &t, guest, "CONTINUE", 'd');
	uffd_close(&u);
}

int main(void)
{
	page = page_size();
	by_copy();
	by_continue();
	return 0;
}
