/* The watch names a callback that stays too long, and what it touches. */
#include "tests/unit/yield_world.h"

/* ---- the watch ---- */

#define WATCH_NS (40 * NS_PER_MS)

static char seen[STUCK_TEXT_BYTES]; /* by another thread, while the callback was stuck */

/* The one who would bring the page is another thread here: it does so when it has read that the callback is stuck. */
static void *lands_when_it_is_stuck(void *arg)
{
	struct domain *d = arg;
	struct uffd_msg msg;
	struct pollfd p = { .fd = d->ram.guest_uffd, .events = POLLIN };
	struct pollfd stuck = { .fd = d->stuck.fd, .events = POLLIN };

	ck_assert_int_eq(poll(&stuck, 1, 20000), 1);
	ck_assert_uint_eq(stuck_text(&d->stuck, seen, sizeof(seen)), strlen(seen));
	ck_assert_int_eq(poll(&stuck, 1, 0), 0); /* read, and no news */
	while (poll(&p, 1, 1000) == 1 && read(p.fd, &msg, sizeof(msg)) == sizeof(msg)) {
		ram_land(&d->ram, (size_t)(msg.arg.pagefault.address - (uintptr_t)d->ram.guest), p.fd, d->ram.guest);
		if (__atomic_load_n(&d->done, __ATOMIC_ACQUIRE))
			break;
	}
	return NULL;
}

static uint8_t load_by_a_known_register(const uint8_t *p)
{
	uint64_t value;

#if defined(__x86_64__)
	__asm__ volatile("movzbl (%%rsi), %%eax" : "=a"(value) : "S"(p) : "memory");
#elif defined(__aarch64__)
	register const uint8_t *x9 __asm__("x9") = p;

	__asm__ volatile("ldrb %w0, [%1]" : "=r"(value) : "r"(x9) : "memory");
#else
	value = *(const volatile uint8_t *)p;
#endif
	return (uint8_t)value;
}

static int touches_guest_view(void *arg)
{
	struct callback *c = arg;

	yield_watch(&c->d->y, "device 'kbd' instance 0");
	c->wrong += load_by_a_known_register(c->d->ram.guest + c->off) != content(c->off);
	yield_unwatch(&c->d->y);
	__atomic_store_n(&c->d->done, 1, __ATOMIC_RELEASE);
	return 0;
}

TEST_CASE("watch", 60);

TEST(test_yield_the_watch_names_callback_and_block)
{
	struct callback c = { .d = &one, .off = 0x12345 };
	const char *line;
	pthread_t thread;

	NEEDS(FAULTS);
	domain_begin(&one, WATCH_NS);
	ck_assert_int_eq(pthread_create(&thread, NULL, lands_when_it_is_stuck, &one), 0);
	world_spawn(&one.w, touches_guest_view, &c);
	domain_run(&one);
	pthread_join(thread, NULL);
	ck_assert_int_eq(c.wrong, 0);
	ck_assert_msg(strncmp(seen, "device 'kbd' instance 0: stuck for ", 35) == 0, "%s", seen);
	ck_assert_msg(strstr(seen, " at pc 0x"), "%s", seen);
#if defined(__x86_64__)
	ck_assert_msg(strstr(seen, "block 'pc.ram' at 0x12345 (rsi)"), "%s", seen);
#elif defined(__aarch64__)
	ck_assert_msg(strstr(seen, "block 'pc.ram' at 0x12345 (x9)"), "%s", seen);
#endif
#if defined(__x86_64__) || defined(__aarch64__)
	ck_assert_msg(strstr(seen, "the engine view (inm_ram_view) does not"), "%s", seen);
#endif
	/* The same for the log, now and once; and nothing is stuck any more. */
	line = stuck_line(&one.stuck);
	ck_assert_ptr_nonnull(line);
	ck_assert_ptr_nonnull(strstr(line, strstr(seen, " at pc 0x")));
	ck_assert_ptr_null(stuck_line(&one.stuck));
	ck_assert_uint_eq(stuck_text(&one.stuck, seen, sizeof(seen)), 0);
	ck_assert_str_eq(seen, "");
	domain_end(&one);
}

static int is_busy(void *arg)
{
	struct callback *c = arg;
	uint64_t until_ns = clock_now_ns() + c->bytes;

	yield_watch(&c->d->y, "busy");
	while (clock_now_ns() < until_ns && stuck_notes(c->d) < c->off)
		;
	yield_unwatch(&c->d->y);
	return 0;
}

TEST(test_yield_the_watch_repeats_at_doubling_intervals)
{
	const char *line = NULL;
	uint64_t before_ns;

	NEEDS(FIRES);
	domain_begin(&one, WATCH_NS);
	for (size_t n = 1; n <= 3; n++) {
		struct callback c = { .d = &one, .off = n, .bytes = 100 * NS_PER_S };

		before_ns = clock_now_ns();
		world_spawn(&one.w, is_busy, &c);
		domain_run(&one);
		ck_assert_uint_ge(clock_now_ns() - before_ns, WATCH_NS << (n - 1));
		ck_assert_uint_eq(stuck_notes(&one), n);
		line = stuck_line(&one.stuck);
		ck_assert_ptr_nonnull(line);
	}
	ck_assert_msg(strncmp(line, "busy: stuck for ", 16) == 0, "%s", line);
	ck_assert_ptr_nonnull(strstr(line, ": busy or blocked elsewhere"));
	ck_assert_ptr_null(strstr(line, "pc.ram"));
	domain_end(&one);
}

static int sleeps_unwatched(void *arg)
{
	struct callback *c = arg;

	for (int i = 0; i < 20; i++) {
		yield_watch(&c->d->y, "short");
		yield_unwatch(&c->d->y);
	}
	poll(NULL, 0, 3 * WATCH_NS / NS_PER_MS);
	return 0;
}

TEST(test_yield_the_watch_is_silent_when_nothing_is_watched)
{
	struct callback c = { .d = &one };

	NEEDS(0);
	domain_begin(&one, WATCH_NS);
	world_spawn(&one.w, sleeps_unwatched, &c);
	domain_run(&one);
	ck_assert_ptr_null(stuck_line(&one.stuck));
	domain_end(&one);
}

TEST(test_yield_who_is_parked_is_not_stuck)
{
	struct callback c[2] = { { .d = &one }, { .d = &one } };

	NEEDS(FAULTS);
	domain_begin(&one, WATCH_NS);
	world_spawn(&one.w, reads_one, &c[0]);
	world_settle(&one.w);
	ck_assert_uint_eq(one.parked_count, 1);
	/* The timer is not even running: nothing interrupts. */
	ck_assert_int_eq(poll(NULL, 0, 3 * WATCH_NS / NS_PER_MS), 0);
	ck_assert_ptr_null(stuck_line(&one.stuck));
	domain_run(&one);
	ck_assert_int_eq(c[0].wrong, 0);
	ck_assert_ptr_null(stuck_line(&one.stuck));

	world_spawn(&one.w, parks_without_a_word, &c[1]);
	sched_run_ready(&one.w.sched);
	for (int i = 0; i < 3; i++)
		poll(NULL, 0, WATCH_NS / NS_PER_MS);
	ck_assert_ptr_null(stuck_line(&one.stuck));
	domain_run(&one);
	domain_end(&one);
}

static int faults_and_is_busy(void *arg)
{
	struct callback *c = arg;
	uint64_t until_ns;

	yield_watch(&c->d->y, "faults, then busy");
	c->wrong += *(volatile uint8_t *)(c->d->ram.view + c->off) != content(c->off);
	until_ns = clock_now_ns() + 100 * NS_PER_S;
	while (clock_now_ns() < until_ns && stuck_notes(c->d) == 0)
		;
	yield_unwatch(&c->d->y);
	return 0;
}

TEST(test_yield_the_watch_goes_on_after_a_fault)
{
	struct callback c = { .d = &one };
	const char *line;

	NEEDS(FAULTS | FIRES);
	domain_begin(&one, WATCH_NS);
	world_spawn(&one.w, faults_and_is_busy, &c);
	domain_run(&one);
	ck_assert_int_eq(c.wrong, 0);
	line = stuck_line(&one.stuck);
	ck_assert_ptr_nonnull(line);
	ck_assert_msg(strncmp(line, "faults, then busy: ", 19) == 0, "%s", line);
	domain_end(&one);
}

/* Two watches of one thread: each timer speaks for its own domain. */
TEST(test_yield_each_domain_has_its_own_watch)
{
	struct callback c = { .d = &two_domains[1], .off = 1, .bytes = 100 * NS_PER_S };

	NEEDS(FIRES);
	former_install(true, 0);
	for (size_t k = 0; k < 2; k++)
		domain_begin(&two_domains[k], WATCH_NS);
	world_spawn(&two_domains[1].w, is_busy, &c);
	domain_run(&two_domains[1]);
	ck_assert_ptr_null(stuck_line(&two_domains[0].stuck));
	ck_assert_ptr_nonnull(stuck_line(&two_domains[1].stuck));
	for (size_t k = 0; k < 2; k++)
		domain_end(&two_domains[k]);
	ck_assert_uint_eq(former.calls, 0);
}

/* The embedder's own timer that signals so is the embedder's. */
TEST(test_yield_a_timer_of_somebody_else_is_not_ours)
{
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGBUS };
	struct itimerspec soon = { .it_value.tv_nsec = 1000 * 1000 };
	uint64_t until_ns = clock_now_ns() + 10 * NS_PER_S;
	timer_t timer;

	NEEDS(FIRES);
	former_install(true, 0);
	domain_begin(&one, WATCH_NS);
	ck_assert_int_eq(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
	timer_settime(timer, 0, &soon, NULL);
	while (former.calls == 0 && clock_now_ns() < until_ns)
		poll(NULL, 0, 1);
	timer_delete(timer);
	ck_assert_uint_eq(former.calls, 1);
	ck_assert_int_eq(former.info.si_code, SI_TIMER);
	ck_assert_ptr_null(stuck_line(&one.stuck));
	domain_end(&one);
}

/* The timer is deleted just when it fires: no signal of it reaches the former handler. */
TEST(test_yield_a_watch_that_ends_when_it_fires_leaves_no_signal)
{
	unsigned rounds = RUNNING_ON_VALGRIND ? 20 : 2000;

	NEEDS(FIRES);
	former_install(true, 0);
	world_init(&one.w);
	ck_assert_int_eq(stuck_init(&one.stuck), 0);
	for (unsigned i = 0; i < rounds; i++) {
		struct yield y = { .sched = &one.w.sched, .fault = on_fault, .opaque = &one, .stuck = &one.stuck };
		uint64_t until_ns;

		ck_assert_int_eq(yield_begin(&y, 20 * NS_PER_US), 0);
		yield_watch(&y, "short");
		until_ns = clock_now_ns() + 15 * NS_PER_US + i % 16 * NS_PER_US;
		while (clock_now_ns() < until_ns)
			;
		yield_end(&y);
	}
	stuck_fini(&one.stuck);
	world_fini(&one.w);
	ck_assert_uint_eq(former.calls, 0);
	ck_assert(former_is_back(true));
}
