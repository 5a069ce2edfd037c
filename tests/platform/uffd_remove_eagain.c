/*
 * While the event of a madvise is unread, no placement works anywhere: EAGAIN. This also shows which removals are
 * reported at all, and what they leave in a memory file.
 *
 * Code that retries meets two surprises. Reading the event does not yet end the EAGAIN: the thread in madvise does,
 * when it gets to run. And the removal itself comes after that: it also removes what is placed in between.
 */
#include "tests/platform/uffd_kit.h"

#include <fcntl.h>
#include <sched.h>

enum { PAGES = 8 };

static size_t page;
static int fd;
static uint8_t *guest, *landing;

/* madvise returns only when its event has been read, so it needs a thread. */
struct remover {
	pthread_t thread;
	uint8_t *addr;
	int advice, error;
};

static void *remover_main(void *arg)
{
	struct remover *r = arg;

	r->error = madvise(r->addr, page, r->advice) < 0 ? -errno : 0;
	return NULL;
}

static void begin_removal(struct remover *r, size_t index, int advice)
{
	*r = (struct remover){ .addr = guest + index * page, .advice = advice };
	if (pthread_create(&r->thread, NULL, remover_main, r) != 0)
		broken("pthread_create");
}

static bool is_remove_of(const struct uffd_msg *msg, const struct remover *r)
{
	return msg->event == UFFD_EVENT_REMOVE && msg->arg.remove.start == (uintptr_t)r->addr &&
	       msg->arg.remove.end == (uintptr_t)r->addr + page;
}

static void end_removal(const struct uffd *u, struct remover *r)
{
	struct uffd_msg msg = next_event(u);

	CLAIM(is_remove_of(&msg, r), "REMOVE is told, with its range");
	pthread_join(r->thread, NULL);
	CLAIM(r->error == 0, "and then madvise returns");
}

/* The field is untouched before Linux 6.15. */
static bool refused(int r, const int64_t *field)
{
	return r == -EAGAIN && (*field == 0 || *field == -EAGAIN);
}

static void nothing_is_placed_meanwhile(const struct uffd *u)
{
	uint8_t *bytes = calloc(1, page);
	struct remover rm;
	struct uffd_msg msg;
	int64_t c, z, m;
	int tries = 0, r;

	if (pwrite(fd, "x", 1, (off_t)(1 * page)) != 1 || pwrite(fd, "y", 1, (off_t)(2 * page)) != 1)
		broken("pwrite");
	bare_continue(u, guest + page, page, 0, &m);
	begin_removal(&rm, 1, MADV_DONTNEED);
	CLAIM(event_comes(u, SOON_MS), "an event is there, unread");
	CLAIM(refused(bare_copy(u, guest + 3 * page, bytes, page, 0, &c), &c), "COPY elsewhere: EAGAIN, copy %lld",
	      (long long)c);
	CLAIM(refused(bare_zeropage(u, guest + 4 * page, page, &z), &z), "ZEROPAGE elsewhere: EAGAIN, zeropage %lld",
	      (long long)z);
	CLAIM(refused(bare_continue(u, guest + 2 * page, page, 0, &m), &m), "CONTINUE elsewhere: EAGAIN, mapped %lld",
	      (long long)m);
	msg = next_event(u);
	CLAIM(is_remove_of(&msg, &rm), "the event is read");
	while ((r = bare_continue(u, guest + 2 * page, page, 0, &m)) == -EAGAIN && tries < 1000000) {
		tries++;
		sched_yield();
	}
	CLAIM(r == 0, "CONTINUE works again (after %d more EAGAIN)", tries);
	CLAIM(bare_copy(u, guest + 3 * page, bytes, page, 0, &c) == 0, "COPY works again");
	CLAIM(bare_zeropage(u, guest + 4 * page, page, &z) == 0, "ZEROPAGE works again");
	pthread_join(rm.thread, NULL);
	free(bytes);
}

static void what_is_left(const struct uffd *u)
{
	struct remover rm;
	struct toucher t;
	struct uffd_msg msg;
	int64_t m;

	CLAIM(landing[page] == 'x', "after MADV_DONTNEED of a shared mapping the file has its content");
	msg = touch_sleeps(&t, u, guest + page);
	CLAIM(msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR, "and the next touch is a MINOR fault");
	CLAIM(bare_continue(u, guest + page, page, 0, &m) == 0 && touch_ends(&t, SOON_MS) && t.saw == 'x',
	      "which CONTINUE ends");

	begin_removal(&rm, 2, MADV_REMOVE);
	end_removal(u, &rm);
	CLAIM(landing[2 * page] == 0, "after MADV_REMOVE the file has none");
}

static void punching_is_silent(const struct uffd *u)
{
	struct toucher t;
	struct uffd_msg msg;
	int64_t z;

	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)page, (off_t)page) < 0)
		broken("fallocate");
	CLAIM(!event_comes(u, NEVER_MS), "a hole punched through the descriptor is not told");
	msg = touch_sleeps(&t, u, guest + page);
	CLAIM(msg.event == UFFD_EVENT_PAGEFAULT && !(msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR),
	      "and the next touch is a MISSING fault");
	CLAIM(bare_zeropage(u, guest + page, page, &z) == 0 && touch_ends(&t, SOON_MS) && t.saw == 0, "of a hole");
}

int main(void)
{
	struct uffd u = uffd_or_skip(UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_EVENT_REMOVE);

	page = page_size();
	fd = memory_file(PAGES * page);
	guest = map(fd, PAGES * page);
	landing = map(fd, PAGES * page);
	watch(&u, guest, PAGES * page, BOTH_MODES);
	nothing_is_placed_meanwhile(&u);
	what_is_left(&u);
	punching_is_silent(&u);
	return 0;
}
