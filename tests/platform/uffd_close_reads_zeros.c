/*
 * Why we never close a userfaultfd, nor unregister a range, while pages are missing and the guest may run: threads that
 * wait wake up, without a signal, and read zeros. In a memory file these zeros are there to stay.
 */
#include "tests/platform/uffd_kit.h"

static size_t page;

static void lets_go(int fd, const char *what, bool by_close)
{
	struct uffd u = uffd_or_skip(fd < 0 ? 0 : UFFD_FEATURE_MISSING_SHMEM);
	uint8_t *guest = map(fd, 2 * page);
	struct toucher t;

	watch(&u, guest, 2 * page, UFFDIO_REGISTER_MODE_MISSING);
	touch_sleeps(&t, &u, guest);
	if (by_close)
		uffd_close(&u);
	else
		uffd_unregister(&u, guest, 2 * page);
	CLAIM(touch_ends(&t, SOON_MS) && t.saw == 0, "%s, %s: a thread that waited reads zero", what,
	      by_close ? "closed" : "unregistered");
	touch(&t, guest + page);
	CLAIM(touch_ends(&t, SOON_MS) && t.saw == 0, "one that comes later reads zero, too");
	uffd_close(&u);
}

int main(void)
{
	int fd;

	page = page_size();
	lets_go(-1, "anonymous memory", true);
	lets_go(-1, "anonymous memory", false);
	fd = memory_file(2 * page);
	lets_go(fd, "a memory file", true);
	CLAIM(lseek(fd, 0, SEEK_DATA) == 0, "and the file has pages where nothing had come");
	return 0;
}
