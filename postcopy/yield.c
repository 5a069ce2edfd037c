#include "postcopy/yield.h"

#include "base/assert.h"
#include "base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

/* Of a mask, the kernel writes and reads only so much: in a signal frame, what follows it is something else. */
#define KERNEL_MASK_BYTES (64 / 8)

static void on_sigbus(int sig, siginfo_t *info, void *context);

/* ---- this thread's domains ---- */

/* Read in a signal handler: in the initial-exec model that is one load, also when the library came by dlopen(3), where
 * other models may call the allocator at a thread's first use. */
static __thread struct yield *domains __attribute__((tls_model("initial-exec")));

/* Not inlined, so that no address of a thread-local is kept over a switch of stacks. */
static __attribute__((noinline)) struct yield *domains_here(void)
{
	__asm__ volatile("");
	return __atomic_load_n(&domains, __ATOMIC_RELAXED);
}

/* A handler may run between any two instructions here: it finds the list as it was, or as it will be. */
static __attribute__((noinline)) struct yield **domains_link(void)
{
	__asm__ volatile("");
	return &domains;
}

static void domain_link(struct yield *y)
{
	struct yield **head = domains_link();

	y->next = *head;
	__atomic_store_n(head, y, __ATOMIC_RELEASE);
}

static void domain_unlink(struct yield *y)
{
	struct yield **at = domains_link();

	while (*at && *at != y)
		at = &(*at)->next;
	ASSERT(*at == y); /* begun on another thread otherwise */
	__atomic_store_n(at, y->next, __ATOMIC_RELEASE);
}

static const struct yield_range *range_of(const struct yield_range *ranges, size_t count, uintptr_t addr)
{
	for (size_t i = 0; i < count; i++) {
		if (addr >= (uintptr_t)ranges[i].begin && addr < (uintptr_t)ranges[i].end)
			return &ranges[i];
	}
	return NULL;
}

static struct yield *domain_of(uintptr_t addr)
{
	for (struct yield *y = domains_here(); y; y = y->next) {
		if (range_of(y->views, y->view_count, addr))
			return y;
	}
	return NULL;
}

/* Compares only: @y may be anything. */
static bool is_domain_here(const struct yield *y)
{
	const struct yield *d = domains_here();

	while (d && d != y)
		d = d->next;
	return d != NULL;
}

/* ---- the process's handler ---- */

static pthread_mutex_t process_lock = PTHREAD_MUTEX_INITIALIZER; /* the handler never takes it */
static unsigned domain_count;
static bool installed; /* ours is the process's handler, or below one that was put on top of it */
/* What was there before. A handler may be reading one while the other is written. */
static struct sigaction formers[2];
static unsigned former_now;
static bool former_spent; /* it had SA_RESETHAND and has been called */

static bool is_ours(const struct sigaction *act)
{
	return (act->sa_flags & SA_SIGINFO) && act->sa_sigaction == on_sigbus;
}

/* Whether SA_SIGINFO is set or not: as the kernel does. */
static bool is_handler(const struct sigaction *act)
{
	return act->sa_handler != SIG_DFL && act->sa_handler != SIG_IGN;
}

static void set_former(const struct sigaction *former)
{
	unsigned next = !__atomic_load_n(&former_now, __ATOMIC_RELAXED);

	formers[next] = *former;
	__atomic_store_n(&former_now, next, __ATOMIC_RELEASE);
	__atomic_store_n(&former_spent, false, __ATOMIC_RELEASE);
}

static bool same_handler(const struct sigaction *a, const struct sigaction *b)
{
	return a->sa_flags == b->sa_flags && a->sa_handler == b->sa_handler;
}

static int handler_install(void)
{
	/* SA_NODEFER: others fault while one is parked in here. No SA_ONSTACK: it would be one stack for all of them.
	 * SA_RESTART: the watch disturbs a system call as little as can be. */
	struct sigaction ours = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART };
	struct sigaction before, replaced;

	sigemptyset(&ours.sa_mask);
	if (sigaction(SIGBUS, NULL, &before) < 0)
		return -errno;
	/* One that lies on top of ours hands on to ours: a second time below and above it, we would go in circles. */
	if (is_ours(&before) || (installed && is_handler(&before)))
		return 0;
	/* Known before ours can run on another thread. */
	set_former(&before);
	if (sigaction(SIGBUS, &ours, &replaced) < 0)
		return -errno;
	installed = true;
	if (!same_handler(&before, &replaced))
		set_former(&replaced);
	return 0;
}

static void handler_remove(void)
{
	struct sigaction now, former = formers[former_now];

	if (sigaction(SIGBUS, NULL, &now) < 0 || (!is_ours(&now) && is_handler(&now)))
		return;
	installed = false;
	if (!is_ours(&now))
		return;
	if (__atomic_load_n(&former_spent, __ATOMIC_ACQUIRE))
		former.sa_handler = SIG_DFL;
	sigaction(SIGBUS, &former, NULL);
}

static int handler_get(void)
{
	int r;

	pthread_mutex_lock(&process_lock);
	r = handler_install();
	if (r == 0)
		domain_count++;
	pthread_mutex_unlock(&process_lock);
	return r;
}

static void handler_put(void)
{
	pthread_mutex_lock(&process_lock);
	if (--domain_count == 0)
		handler_remove();
	pthread_mutex_unlock(&process_lock);
}

/* ---- what is not ours ---- */

/* Raised by an instruction, which runs again when the handler returns. */
static bool is_forced(const siginfo_t *info)
{
	return info->si_code > 0 && info->si_code != BUS_MCEERR_AO;
}

/* The process ends by this signal, with the registers and the si_code it would have ended with. */
static void end_by_default(int sig, siginfo_t *info)
{
	struct sigaction act = { .sa_handler = SIG_DFL };

	sigaction(sig, &act, NULL);
	if (is_forced(info))
		return;
	if (syscall(SYS_rt_tgsigqueueinfo, getpid(), (pid_t)syscall(SYS_gettid), sig, info) < 0)
		raise(sig);
}

static void call_former(const struct sigaction *former, int sig, siginfo_t *info, void *context)
{
	sigset_t blocked = former->sa_mask, before;

	if (!(former->sa_flags & SA_NODEFER))
		sigaddset(&blocked, sig);
	pthread_sigmask(SIG_BLOCK, &blocked, &before);
	if (former->sa_flags & SA_SIGINFO)
		former->sa_sigaction(sig, info, context);
	else
		former->sa_handler(sig);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void chain(int sig, siginfo_t *info, void *context)
{
	struct sigaction former = formers[__atomic_load_n(&former_now, __ATOMIC_ACQUIRE)];

	if (is_handler(&former) && (former.sa_flags & SA_RESETHAND) &&
	    __atomic_exchange_n(&former_spent, true, __ATOMIC_ACQ_REL))
		former.sa_handler = SIG_DFL;
	if (is_handler(&former))
		call_former(&former, sig, info, context);
	else if (former.sa_handler == SIG_DFL || is_forced(info))
		end_by_default(sig, info); /* what an instruction raises cannot be ignored: signal(7) */
}

/* ---- what the registers say ---- */

#if defined(__x86_64__)
static const struct {
	const char *name;
	int index;
} registers[] = {
	{ "rax", REG_RAX }, { "rbx", REG_RBX }, { "rcx", REG_RCX }, { "rdx", REG_RDX }, { "rsi", REG_RSI },
	{ "rdi", REG_RDI }, { "rbp", REG_RBP }, { "r8", REG_R8 },   { "r9", REG_R9 },   { "r10", REG_R10 },
	{ "r11", REG_R11 }, { "r12", REG_R12 }, { "r13", REG_R13 }, { "r14", REG_R14 }, { "r15", REG_R15 },
};
#define REGISTER_COUNT (sizeof(registers) / sizeof(registers[0]))

static uintptr_t register_value(const ucontext_t *uc, unsigned i, const char **ret_name)
{
	*ret_name = registers[i].name;
	return (uintptr_t)uc->uc_mcontext.gregs[registers[i].index];
}

static uintptr_t pc_of(const ucontext_t *uc)
{
	return (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];
}
#elif defined(__aarch64__)
static const char register_names[][4] = {
	"x0",  "x1",  "x2",  "x3",  "x4",  "x5",  "x6",  "x7",  "x8",  "x9",  "x10", "x11", "x12", "x13", "x14", "x15",
	"x16", "x17", "x18", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x29", "x30",
};
#define REGISTER_COUNT (sizeof(register_names) / sizeof(register_names[0]))

static uintptr_t register_value(const ucontext_t *uc, unsigned i, const char **ret_name)
{
	*ret_name = register_names[i];
	return (uintptr_t)uc->uc_mcontext.regs[i];
}

static uintptr_t pc_of(const ucontext_t *uc)
{
	return (uintptr_t)uc->uc_mcontext.pc;
}
#else
/* A CPU whose registers nobody has named yet: the watch speaks, and names no block. */
#define REGISTER_COUNT 0u

static uintptr_t register_value(const ucontext_t *uc, unsigned i, const char **ret_name)
{
	(void)uc;
	(void)i;
	*ret_name = "";
	return 0;
}

static uintptr_t pc_of(const ucontext_t *uc)
{
	(void)uc;
	return 0;
}
#endif

/* ---- one line, made in a signal handler: nothing of stdio ---- */

struct line {
	char text[STUCK_WHERE_BYTES];
	size_t len;
};

static void put(struct line *l, const char *s)
{
	for (; *s && l->len + 1 < sizeof(l->text); s++)
		l->text[l->len++] = *s;
	l->text[l->len] = '\0';
}

static void put_hex(struct line *l, uint64_t n)
{
	char digits[24];
	size_t i = sizeof(digits);

	digits[--i] = '\0';
	do {
		digits[--i] = "0123456789abcdef"[n % 16];
		n /= 16;
	} while (n > 0);
	put(l, "0x");
	put(l, digits + i);
}

/* A value inside a guest view is an address in use, most probably. Return: how many were named. */
static unsigned put_registers(struct line *l, const struct yield *y, const ucontext_t *uc)
{
	enum { NAMED_MAX = 4 };
	unsigned named = 0;

	for (unsigned i = 0; i < REGISTER_COUNT; i++) {
		const char *name;
		uintptr_t value = register_value(uc, i, &name);
		const struct yield_range *range = range_of(y->guests, y->guest_count, value);

		if (!range)
			continue;
		if (named == NAMED_MAX) {
			put(l, ", ...");
			break;
		}
		put(l, named++ > 0 ? ", block '" : ", registers point into block '");
		put(l, range->name);
		put(l, "' at ");
		put_hex(l, value - (uintptr_t)range->begin);
		put(l, " (");
		put(l, name);
		put(l, ")");
	}
	return named;
}

/* ---- the watch ---- */

static void timer_due(struct yield *y, uint64_t due_ns)
{
	struct itimerspec at = { .it_value = { .tv_sec = (time_t)(due_ns / NS_PER_S),
		                               .tv_nsec = (long)(due_ns % NS_PER_S) } };

	y->due_ns = due_ns;
	/* Cannot fail: the timer is there and the time is one. */
	timer_settime(y->timer, TIMER_ABSTIME, &at, NULL);
}

static void timer_stop(struct yield *y)
{
	timer_settime(y->timer, 0, &(struct itimerspec){ 0 }, NULL);
}

/* After 1, 2, 4, ... times watch_ns; too far away to be on the clock is never. */
static void watch_again(struct yield *y)
{
	uint64_t after_ns = y->stuck_times < 63 ? y->watch_ns << y->stuck_times : 0;

	if (after_ns >> y->stuck_times == y->watch_ns && after_ns <= (uint64_t)INT64_MAX - y->since_ns)
		timer_due(y, y->since_ns + after_ns);
}

static void speak(struct yield *y, const ucontext_t *uc)
{
	struct line l = { .len = 0 };

	put(&l, " at pc ");
	put_hex(&l, pc_of(uc));
	if (put_registers(&l, y, uc) > 0)
		put(&l, ": it probably touches the guest view, where a missing page blocks this thread;"
		        " the engine view (inm_ram_view) does not");
	else
		put(&l, ": busy or blocked elsewhere");
	y->stuck_times++;
	stuck_note(y->stuck, l.text);
}

/* Return: false if it is not a timer of ours. */
static bool watch_fired(const siginfo_t *info, const ucontext_t *uc)
{
	struct yield *y = info->si_value.sival_ptr;

	if (!is_domain_here(y))
		return false;
	/* One that was on its way when the watch ended, or started again, says nothing. */
	if (!y->watched || clock_now_ns() < y->due_ns)
		return true;
	if (y->sched->current == y->watched_co) {
		y->sched->current->in_handler = true;
		speak(y, uc);
		y->sched->current->in_handler = false;
	} else {
		y->since_ns = clock_now_ns(); /* parked without a word: that is not stuck */
		y->stuck_times = 0;
		stuck_enter(y->stuck, y->watched, y->watch_ns, "");
	}
	watch_again(y);
	return true;
}

static void watch(struct yield *y, const char *what)
{
	y->watched_co = y->sched->current;
	y->stuck_times = 0;
	if (y->stuck)
		stuck_enter(y->stuck, what, y->watch_ns, y->timer_made ? "" : ": busy or blocked");
	if (y->timer_made) {
		y->since_ns = clock_now_ns();
		y->due_ns = DEADLINE_NEVER;
	}
	__atomic_store_n(&y->watched, what, __ATOMIC_RELEASE);
	if (y->timer_made)
		watch_again(y);
}

void yield_watch(struct yield *y, const char *what)
{
	ASSERT(what && !y->watched);
	y->last.count = 0;
	watch(y, what);
}

void yield_unwatch(struct yield *y)
{
	if (!y->watched)
		return;
	__atomic_store_n(&y->watched, NULL, __ATOMIC_RELEASE);
	if (y->timer_made)
		timer_stop(y);
	if (y->stuck)
		stuck_leave(y->stuck);
}

/* ---- a fault ---- */

bool yield_may_park(const struct yield *y)
{
	const struct co *co = y->sched->current;

	return y->watched && y->watched_co == co && co != &y->sched->main;
}

static bool comes_for_ever(struct yield *y, const void *addr, uintptr_t pc)
{
	const struct co *co = y->sched->current;

	if (y->last.co == co && y->last.addr == addr && y->last.pc == pc)
		return ++y->last.count >= YIELD_REPEATS_MAX;
	y->last.co = co;
	y->last.addr = addr;
	y->last.pc = pc;
	y->last.count = 0;
	return false;
}

/*
 * The mask from before the fault. Another one's handler that called ours may have been installed without SA_NODEFER,
 * and ThreadSanitizer installs all of them with a full mask: with SIGBUS blocked, the next fault would end the process.
 */
static void mask_of_frame(const ucontext_t *uc)
{
	sigset_t mask;

	sigemptyset(&mask);
	memcpy(&mask, &uc->uc_sigmask, KERNEL_MASK_BYTES);
	sigdelset(&mask, SIGBUS);
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
}

/* The end of the handler puts back what the frame says, and that is old: the mask is the thread's, others ran. */
static void mask_to_frame(ucontext_t *uc)
{
	sigset_t mask;

	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	memcpy(&uc->uc_sigmask, &mask, KERNEL_MASK_BYTES);
}

/* Return: false if nothing of ours is missing there. */
static bool faulted(const siginfo_t *info, ucontext_t *uc)
{
	struct yield *y = info->si_code == BUS_ADRERR ? domain_of((uintptr_t)info->si_addr) : NULL;
	struct co *co;
	const char *what;

	if (!y || !yield_may_park(y) || comes_for_ever(y, info->si_addr, pc_of(uc)))
		return false;
	mask_of_frame(uc);
	what = y->watched;
	yield_unwatch(y);
	y->faults++;
	co = y->sched->current;
	co->in_handler = true;
	y->fault(y->opaque, info->si_addr); /* parks */
	co->in_handler = false;
	watch(y, what);
	mask_to_frame(uc);
	return true;
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	int saved = errno; /* of code that does not know that anything else ran */

	if (info->si_code == SI_TIMER ? !watch_fired(info, context) : !faulted(info, context))
		chain(sig, info, context);
	errno = saved;
}

/* ---- a domain ---- */

static void timer_make(struct yield *y)
{
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID,
		                  .sigev_signo = SIGBUS,
		                  .sigev_value.sival_ptr = y,
		                  .sigev_notify_thread_id = (pid_t)syscall(SYS_gettid) };

	y->timer_made = timer_create(CLOCK_MONOTONIC, &event, &y->timer) == 0;
}

static void timer_unmake(struct yield *y)
{
	if (y->timer_made)
		timer_delete(y->timer);
	y->timer_made = false;
}

static bool block_sigbus(bool on)
{
	sigset_t set, before;

	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	pthread_sigmask(on ? SIG_BLOCK : SIG_UNBLOCK, &set, &before);
	return sigismember(&before, SIGBUS);
}

/* Domains end in any order: the last one of the thread blocks again what was blocked before the first. */
static void mask_put(const struct yield *y)
{
	/* If not by (2), then here: a signal of the timer that is on its way arrives while it is known as ours. */
	bool blocked = block_sigbus(false) || y->sigbus_was_blocked;
	struct yield *other = domains_here();

	if (other == y)
		other = y->next;
	if (other)
		other->sigbus_was_blocked |= blocked;
	else if (blocked)
		block_sigbus(true);
}

int yield_begin(struct yield *y, uint64_t watch_ns)
{
	int r;

	ASSERT(!y->begun && y->sched && y->fault && (watch_ns == 0 || y->stuck));
	y->watch_ns = watch_ns;
	if (watch_ns > 0)
		timer_make(y);
	r = handler_get();
	if (r < 0) {
		timer_unmake(y);
		return r;
	}
	domain_link(y);
	y->sigbus_was_blocked = block_sigbus(false);
	y->begun = true;
	return 0;
}

void yield_end(struct yield *y)
{
	if (y->begun) {
		yield_unwatch(y);
		timer_unmake(y);
		mask_put(y);
		domain_unlink(y);
		handler_put();
	}
	free(y->views);
	free(y->guests);
	y->views = y->guests = NULL;
	y->view_count = y->guest_count = 0;
	y->begun = false;
}

/* Room is made whenever the count is a power of two. Not by realloc: the handler may look at any moment. */
static int add_range(struct yield_range **ranges, size_t *count, struct yield_range range)
{
	struct yield_range *old = *ranges, *more;

	ASSERT(range.end > range.begin && range.name);
	if (*count >= YIELD_RANGES_MAX)
		return -ENOMEM;
	if ((*count & (*count - 1)) == 0) {
		more = calloc(*count > 0 ? 2 * *count : 1, sizeof(*more));
		if (!more)
			return -ENOMEM;
		if (old)
			memcpy(more, old, *count * sizeof(*more));
		__atomic_store_n(ranges, more, __ATOMIC_RELEASE);
		free(old);
	}
	(*ranges)[*count] = range;
	__atomic_store_n(count, *count + 1, __ATOMIC_RELEASE);
	return 0;
}

int yield_add_view(struct yield *y, void *addr, size_t bytes, const char *name)
{
	return add_range(&y->views, &y->view_count,
	                 (struct yield_range){ .begin = addr, .end = (uint8_t *)addr + bytes, .name = name });
}

int yield_add_guest(struct yield *y, void *addr, size_t bytes, const char *name)
{
	return add_range(&y->guests, &y->guest_count,
	                 (struct yield_range){ .begin = addr, .end = (uint8_t *)addr + bytes, .name = name });
}
