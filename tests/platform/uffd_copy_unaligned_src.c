/* UFFDIO_COPY takes its bytes from any address, so we can place a page directly from a receive buffer. The destination
 * must be aligned. */
#include "tests/platform/uffd_kit.h"

static size_t page;

static void copies(int fd, const char *what)
{
	struct uffd u = uffd_or_skip(fd < 0 ? 0 : UFFD_FEATURE_MISSING_SHMEM);
	uint8_t *guest = map(fd, 4 * page), *bytes = malloc(3 * page);
	int64_t c;

	for (size_t i = 0; i < 3 * page; i++)
		bytes[i] = (uint8_t)(i * 7 + i / 256);
	watch(&u, guest, 4 * page, UFFDIO_REGISTER_MODE_MISSING);
	CLAIM(bare_copy(&u, guest, bytes + 9, page, 0, &c) == 0 && c == (int64_t)page, "%s: COPY from an odd address",
	      what);
	CLAIM(bare_copy(&u, guest + page, bytes + 1, 2 * page, 0, &c) == 0 && c == (int64_t)(2 * page), "a run, too");
	CLAIM(memcmp(guest, bytes + 9, page) == 0 && memcmp(guest + page, bytes + 1, 2 * page) == 0,
	      "and all bytes are right");
	CLAIM(bare_copy(&u, guest + 3 * page + 1, bytes, page, 0, &c) == -EINVAL &&
	              bare_copy(&u, guest + 3 * page, bytes, page - 1, 0, &c) == -EINVAL,
	      "an odd destination or length is EINVAL");
	free(bytes);
	uffd_close(&u);
}

int main(void)
{
	page = page_size();
	copies(-1, "anonymous memory");
	copies(memory_file(4 * page), "a memory file");
	return 0;
}
