/*
 * A signal interrupts a thread that waits for a missing page. The handler runs, and sees the address in the registers.
 * Then the instruction faults again: the kernel reports the fault a second time, and it can be resolved. The watch of
 * postcopy/yield.h relies on this, and on a timer that can send SIGBUS, with SI_TIMER, to one thread.
 *
 * Inside the kernel this differs: a system call with the address is not interrupted; the thread spins there with its
 * signal pending until the page comes. The program prints what it finds; we do not depend on it.
 */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

#define AFTER_NS 50000000l

static size_t page;
static uint8_t *ram;
static int fired, in_registers = -1;
static _Atomic int wrong;
static pthread_t toucher;

static void on_timer(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	wrong += info->si_code != SI_TIMER || info->si_value.sival_ptr != &ram ||
	         !pthread_equal(pthread_self(), toucher);
#if defined(__x86_64__)
	in_registers = ((ucontext_t *)context)->uc_mcontext.gregs[REG_RSI] == (greg_t)(uintptr_t)(ram + 5);
#else
	(void)context;
#endif
	__atomic_add_fetch(&fired, 1, __ATOMIC_RELEASE);
}

static void arm(timer_t *ret_timer)
{
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID,
		                  .sigev_signo = SIGBUS,
		                  .sigev_value.sival_ptr = &ram,
		                  .sigev_notify_thread_id = (pid_t)syscall(SYS_gettid) };
	struct itimerspec at = { .it_value.tv_nsec = AFTER_NS };

	toucher = pthread_self();
	wrong += timer_create(CLOCK_MONOTONIC, &event, ret_timer) < 0;
	wrong += timer_settime(*ret_timer, 0, &at, NULL) < 0;
}

static void *touches(void *arg)
{
	uint64_t got;
	timer_t timer;

	(void)arg;
	arm(&timer);
#if defined(__x86_64__)
	__asm__ volatile("movzbl (%%rsi), %%eax" : "=a"(got) : "S"(ram + 5) : "memory");
#else
	got = *(volatile uint8_t *)(ram + 5);
#endif
	wrong += got != 0x5a;
	timer_delete(timer);
	return NULL;
}

static void *asks_the_kernel(void *arg)
{
	uint64_t before = (uint64_t)__atomic_load_n(&fired, __ATOMIC_ACQUIRE);
	struct timespec cpu;
	timer_t timer;
	int fds[2];

	(void)arg;
	wrong += pipe(fds) < 0;
	arm(&timer);
	wrong += write(fds[1], ram + page + 5, 1) != 1;
	timer_delete(timer);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
	printf("in a system call: %d signals, %ld ms of CPU while it waited\n",
	       (int)((uint64_t)__atomic_load_n(&fired, __ATOMIC_ACQUIRE) - before),
	       (long)cpu.tv_sec * 1000 + cpu.tv_nsec / 1000000);
	close(fds[0]);
	close(fds[1]);
	return NULL;
}

/* Return: how many faults were reported within that time. */
static int count_faults(int uffd, int ms)
{
	struct pollfd p = { .fd = uffd, .events = POLLIN };
	struct uffd_msg msg;
	int n = 0;

	while (poll(&p, 1, ms) == 1 && read(uffd, &msg, sizeof(msg)) == sizeof(msg))
		n++;
	return n;
}

static void place(int uffd, uint8_t *dst, const uint8_t *src)
{
	struct uffdio_copy copy = { .dst = (uintptr_t)dst, .src = (uintptr_t)src, .len = page };

	wrong += ioctl(uffd, UFFDIO_COPY, &copy) < 0;
}

int main(void)
{
	struct sigaction act = { .sa_sigaction = on_timer, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART };
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK), first, again;
	static uint8_t content[1 << 16];
	pthread_t thread;

	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) < 0) {
		printf("no userfaultfd for this process\n");
		return 77;
	}
	page = (size_t)sysconf(_SC_PAGESIZE);
	memset(content, 0x5a, sizeof(content));
	ram = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	reg.range.start = (uintptr_t)ram;
	reg.range.len = 2 * page;
	if (ram == MAP_FAILED || ioctl(uffd, UFFDIO_REGISTER, &reg) < 0 || sigaction(SIGBUS, &act, NULL) < 0)
		return 1;

	pthread_create(&thread, NULL, touches, NULL);
	first = count_faults(uffd, (int)(AFTER_NS / 2000000));
	while (__atomic_load_n(&fired, __ATOMIC_ACQUIRE) == 0)
		poll(NULL, 0, 1);
	again = count_faults(uffd, 200);
	place(uffd, ram, content);
	pthread_join(thread, NULL);
	printf("reported %d times before the signal and %d times after it; address in the registers: %s\n", first,
	       again,
	       in_registers < 0 ? "not looked for" :
	       in_registers     ? "yes" :
	                          "no");
	wrong += first != 1 || again != 1 || fired != 1 || in_registers == 0;

	pthread_create(&thread, NULL, asks_the_kernel, NULL);
	count_faults(uffd, 300);
	place(uffd, ram + page, content);
	pthread_join(thread, NULL);
	printf("%d things wrong\n", wrong);
	return wrong > 0;
}
