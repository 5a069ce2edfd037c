/*
 * Nobody watches a child that is forked while pages are missing, unless UFFD_FEATURE_EVENT_FORK was requested: its
 * touches are not reported and read zeros, and on shared memory they leave zeros in the file where the page had still
 * to come. With the feature the fork waits until somebody reads its event, which carries a userfaultfd of the child's.
 * The feature needs CAP_SYS_PTRACE, however the descriptor was opened.
 */
#include "tests/platform/uffd_kit.h"

#include <fcntl.h>
#include <sys/wait.h>

static size_t page;

/* In a thread, because with the feature fork() waits for us. The child ends with what it read. */
struct forker {
	pthread_t thread;
	const volatile uint8_t *addr;
	int status;
};

static void *forker_main(void *arg)
{
	struct forker *f = arg;
	pid_t pid = fork();

	if (pid == 0)
		_exit(*f->addr);
	if (pid < 0 || waitpid(pid, &f->status, 0) != pid)
		f->status = -1;
	return NULL;
}

static void start(struct forker *f, const void *addr)
{
	*f = (struct forker){ .addr = addr };
	if (pthread_create(&f->thread, NULL, forker_main, f) != 0)
		broken("pthread_create");
}

static bool read_in_child(struct forker *f, uint8_t value)
{
	pthread_join(f->thread, NULL);
	return WIFEXITED(f->status) && WEXITSTATUS(f->status) == value;
}

static void without(int fd, const char *what)
{
	struct uffd u = uffd_or_skip(fd < 0 ? 0 : UFFD_FEATURE_MISSING_SHMEM);
	uint8_t *guest = map(fd, page);
	struct forker f;

	watch(&u, guest, page, UFFDIO_REGISTER_MODE_MISSING);
	start(&f, guest);
	CLAIM(read_in_child(&f, 0), "%s: the child reads zero from a missing page", what);
	CLAIM(!event_comes(&u, NEVER_MS), "and nothing is told");
	if (fd >= 0)
		CLAIM(lseek(fd, 0, SEEK_DATA) == 0, "but the file now has a page of zeros");
	uffd_close(&u);
}

static void with(void)
{
	struct err err = ERR_NONE;
	uint8_t *guest = map(-1, page), *bytes = malloc(page);
	struct uffd u, childs = UFFD_NONE;
	struct uffd_msg msg;
	struct forker f;
	int64_t c;

	if (uffd_open(&u, UFFD_FEATURE_EVENT_FORK, 0, &err) < 0) {
		printf("the rest is skipped: %s\n", err.text);
		exit(77);
	}
	watch(&u, guest, page, UFFDIO_REGISTER_MODE_MISSING);
	memset(bytes, 77, page);
	start(&f, guest);
	msg = next_event(&u);
	CLAIM(msg.event == UFFD_EVENT_FORK, "with the feature the fork is told");
	childs.fd = (int)msg.arg.fork.ufd;
	CLAIM(fcntl(childs.fd, F_GETFD) >= 0, "with a descriptor, %s close-on-exec",
	      fcntl(childs.fd, F_GETFD) & FD_CLOEXEC ? "which is" : "which is not");
	msg = next_event(&childs);
	CLAIM(msg.event == UFFD_EVENT_PAGEFAULT && msg.arg.pagefault.address == (uintptr_t)guest,
	      "through which the child's touch is told");
	CLAIM(bare_copy(&childs, guest, bytes, page, 0, &c) == 0 && read_in_child(&f, 77), "and answered");
	CLAIM(!event_comes(&u, 0), "the parent's descriptor has nothing of that");
	uffd_close(&childs);
	uffd_close(&u);
	free(bytes);
}

/* To who may have a descriptor all the same (for user mode only) the error is about the feature. */
static void privilege(void)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		struct uffd u;
		struct err err = ERR_NONE;
		int r;

		if (setresuid(65534, 65534, 65534) < 0)
			_exit(3);
		r = uffd_open(&u, UFFD_FEATURE_EVENT_FORK, 0, &err);
		printf("without privileges: %s\n", r < 0 ? err.text : "no error");
		fflush(stdout);
		_exit(r == -EPERM ? 0 : 1);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		broken("fork");
	CLAIM(WIFEXITED(status) && WEXITSTATUS(status) == 0,
	      "a process without privileges is refused the feature with EPERM");
}

int main(void)
{
	page = page_size();
	without(-1, "anonymous memory");
	without(memory_file(page), "a memory file");
	with();
	privilege();
	return 0;
}
