/*
 * The engine view: a second mapping of the same memory file, on a userfaultfd with UFFD_FEATURE_SIGBUS. A missing page
 * there causes a signal with its address, and no event; CONTINUE makes the page accessible. A system call with such an
 * address fails with EFAULT.
 */
#include "tests/platform/uffd_kit.h"

#include <setjmp.h>
#include <signal.h>

static sigjmp_buf back;
static const void *volatile fault_addr;

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	fault_addr = info->si_addr;
	siglongjmp(back, 1);
}

/* Return: did it raise SIGBUS? */
static bool raises(const volatile uint8_t *addr, uint8_t *ret_value)
{
	if (sigsetjmp(back, 1))
		return true;
	fault_addr = NULL;
	*ret_value = *addr;
	return false;
}

int main(void)
{
	struct uffd guests = uffd_or_skip(UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM);
	struct uffd ours = uffd_or_skip(UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_SIGBUS);
	struct sigaction act = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO };
	size_t page = page_size();
	int fd = memory_file(4 * page), pipes[2];
	uint8_t *guest = map(fd, 4 * page), *view = map(fd, 4 * page), *at = view + page + 123, value = 0;
	struct toucher t;
	int64_t m;

	if (sigaction(SIGBUS, &act, NULL) < 0 || pipe(pipes) < 0)
		broken("setup");
	watch(&guests, guest, 4 * page, BOTH_MODES);
	watch(&ours, view, 4 * page, BOTH_MODES);

	CLAIM(raises(at, &value), "a missing page in the view raises SIGBUS");
	/* Not to the byte: without UFFD_FEATURE_EXACT_ADDRESS only the page is promised. */
	CLAIM((uintptr_t)fault_addr / page == (uintptr_t)at / page, "with the address: touched +%zu, told +%zu",
	      (size_t)(at - view), (size_t)((const uint8_t *)fault_addr - view));
	CLAIM(!event_comes(&ours, 0) && !event_comes(&guests, 0), "and no event");

	if (write(pipes[1], "zz", 2) != 2)
		broken("write");
	CLAIM(read(pipes[0], at, 1) < 0 && errno == EFAULT, "read(2) into it says EFAULT");
	CLAIM(write(pipes[1], at, 1) < 0 && errno == EFAULT, "write(2) from it says EFAULT");

	if (pwrite(fd, "q", 1, (off_t)(page + 123)) != 1)
		broken("pwrite");
	CLAIM(raises(at, &value), "a page that is in the file and not in the view raises SIGBUS too");
	CLAIM(bare_continue(&ours, view + page, page, 0, &m) == 0 && !raises(at, &value) && value == 'q',
	      "after CONTINUE it can be read");
	CLAIM(read(pipes[0], at, 1) == 1 && *at == 'z', "and read(2) into it works");
	touch_sleeps(&t, &guests, guest + page + 123);
	CLAIM(bare_continue(&guests, guest + page, page, 0, &m) == 0 && touch_ends(&t, SOON_MS) && t.saw == 'z',
	      "the guest's mapping is another matter: it waits for a CONTINUE of its own");
	return 0;
}
