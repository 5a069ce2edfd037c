/*
 * What a userfaultfd only for faults of user mode does to the others: a thread that touches a missing page itself waits
 * and is served. A system call on the page, which is how KVM and vhost touch it, fails with EFAULT and is not reported.
 * With a userfaultfd for all faults the call waits and is served.
 */
#include "tests/platform/uffd_kit.h"

#include <fcntl.h>
#include <sys/syscall.h>

static size_t page;

static struct uffd open_user_mode_only(uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	struct uffd u = { .fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY),
		          .features = features,
		          .door = UFFD_DOOR_USER_MODE };

	if (u.fd < 0 || ioctl(u.fd, UFFDIO_API, &api) < 0) {
		puts("no userfaultfd for user mode only, before Linux 5.11");
		exit(77);
	}
	return u;
}

/* One byte is read into the page by the kernel. */
struct call {
	pthread_t thread;
	uint8_t *page;
	int fds[2];
	ssize_t got;
	int error;
	atomic_bool over;
};

static void *call_main(void *arg)
{
	struct call *c = arg;

	c->got = read(c->fds[0], c->page, 1);
	c->error = errno;
	atomic_store(&c->over, true);
	return NULL;
}

static void call_begin(struct call *c, uint8_t *into)
{
	*c = (struct call){ .page = into };
	if (pipe(c->fds) < 0 || write(c->fds[1], "x", 1) != 1)
		broken("pipe");
	if (pthread_create(&c->thread, NULL, call_main, c) != 0)
		broken("pthread_create");
}

static bool call_ends(struct call *c, unsigned ms)
{
	uint64_t deadline_ns = deadline_after_ns(ms * NS_PER_MS);

	while (!atomic_load(&c->over)) {
		if (clock_now_ns() > deadline_ns)
			return false;
		usleep(1000);
	}
	pthread_join(c->thread, NULL);
	close(c->fds[0]);
	close(c->fds[1]);
	return true;
}

static void serve(const struct uffd *u, uint8_t *at)
{
	uint8_t *content = map(-1, page);

	memset(content, 7, page);
	if (uffd_copy(u, at, content, page).error < 0)
		broken("UFFDIO_COPY");
	munmap(content, page);
}

static void faults(int fd, const char *what)
{
	uint64_t features = fd < 0 ? 0 : UFFD_FEATURE_MISSING_SHMEM;
	struct uffd user = open_user_mode_only(features), all;
	uint8_t *guest = map(fd, 3 * page);
	struct toucher t;
	struct call c;

	watch(&user, guest, 2 * page, UFFDIO_REGISTER_MODE_MISSING);
	touch_sleeps(&t, &user, guest);
	serve(&user, guest);
	CLAIM(touch_ends(&t, SOON_MS) && t.saw == 7, "%s: a touch in user mode waits, and is served", what);
	call_begin(&c, guest + page);
	CLAIM(call_ends(&c, SOON_MS) && c.got < 0 && c.error == EFAULT, "%s: a system call fails with EFAULT", what);
	CLAIM(!event_comes(&user, NEVER_MS), "%s: and nobody is told", what);
	uffd_close(&user);

	all = uffd_or_skip(features);
	if (all.door == UFFD_DOOR_USER_MODE) {
		puts("no other for this user");
		exit(77);
	}
	watch(&all, guest + 2 * page, page, UFFDIO_REGISTER_MODE_MISSING);
	call_begin(&c, guest + 2 * page);
	next_event(&all);
	CLAIM(!call_ends(&c, NEVER_MS), "%s: with one for all faults it waits", what);
	serve(&all, guest + 2 * page);
	CLAIM(call_ends(&c, SOON_MS) && c.got == 1 && guest[2 * page] == 'x', "%s: and is served", what);
	uffd_close(&all);
	munmap(guest, 3 * page);
}

int main(void)
{
	page = page_size();
	faults(-1, "anonymous memory");
	faults(memory_file(3 * page), "a memory file");
	return 0;
}
