/* The earlier handler of SIGBUS gets what is not ours, and is installed again at the end. */
#include "tests/unit/yield_world.h"

/* ---- what is not ours ---- */

static struct foreign {
	volatile uint8_t *p;
	int fd;
} foreign;

static int touches_foreign(void *arg)
{
	struct callback *c = arg;

	yield_watch(&c->d->y, "touches foreign");
	errno = 77;
	c->wrong += *foreign.p != 0;
	c->wrong += errno != 77;
	yield_unwatch(&c->d->y);
	return 0;
}

TEST_CASE("foreign", 4);

TEST_EACH(test_yield_a_foreign_address_goes_to_the_former_handler, 4)
{
	bool info = _i % 2;
	struct callback c = { .d = &one };

	NEEDS(FAULTS);
	foreign.p = foreign_make(&foreign.fd);
	former_install(info, 0);
	domain_begin(&one, 0);
	former.grow_fd = foreign.fd;
	/* In a callback, and outside; by an instruction, which runs again. */
	if (_i < 2) {
		world_spawn(&one.w, touches_foreign, &c);
		domain_run(&one);
	} else {
		ck_assert_uint_eq(*foreign.p, 0);
	}
	ck_assert_int_eq(c.wrong, 0);
	ck_assert_uint_eq(former.calls, 1);
	ck_assert_int_eq(former.sig, SIGBUS);
	if (info) {
		ck_assert_ptr_eq(former.info.si_addr, (void *)foreign.p);
		ck_assert_int_eq(former.info.si_code, BUS_ADRERR);
	}
	/* As the kernel would have called it, and nothing is left of that. */
	ck_assert(former.sigbus_blocked && former.usr1_blocked);
	ck_assert(!is_blocked(SIGBUS) && !is_blocked(SIGUSR1));
	domain_end(&one);
	foreign_free(foreign.p, foreign.fd);
	ck_assert(former_is_back(info));
}

TEST(test_yield_a_former_handler_with_nodefer_may_be_hit_again)
{
	NEEDS(0);
	former_install(true, SA_NODEFER);
	domain_begin(&one, 0);
	raise(SIGBUS);
	ck_assert_uint_eq(former.calls, 1);
	ck_assert(!former.sigbus_blocked || UNDER_TSAN); /* which blocks everything in every handler */
	domain_end(&one);
}

TEST(test_yield_a_signal_that_was_sent_goes_to_the_former_handler)
{
	siginfo_t info = { .si_signo = SIGBUS, .si_code = SI_QUEUE };

	NEEDS(QUEUES);
	former_install(true, 0);
	domain_begin(&one, 0);
	raise(SIGBUS);
	ck_assert_uint_eq(former.calls, 1);
	ck_assert_int_eq(former.info.si_code, SI_TKILL);
	/* An address of ours as it may be: only a fault has one. */
	info.si_addr = one.ram.view;
	ck_assert_int_eq(syscall(SYS_rt_tgsigqueueinfo, getpid(), (pid_t)syscall(SYS_gettid), SIGBUS, &info), 0);
	ck_assert_uint_eq(former.calls, 2);
	ck_assert_int_eq(former.info.si_code, SI_QUEUE);
	ck_assert_uint_eq(one.y.faults, 0);
	domain_end(&one);
}

static void touches_it(struct domain *d)
{
	int fd;

	(void)d;
	(void)*foreign_make(&fd);
}

static void touches_it_twice(struct domain *d)
{
	volatile uint8_t *p;
	int fd;

	(void)d;
	p = foreign_make(&fd);
	former.grow_fd = fd;
	(void)*p; /* former_plain makes it longer */
	former.grow_fd = -1;
	if (former.calls != 1)
		_exit(1);
	p = foreign_make(&fd);
	(void)*p;
}

static void raises(struct domain *d)
{
	(void)d;
	raise(SIGBUS);
}

TEST(test_yield_without_a_former_handler_the_process_ends_as_it_would_have)
{
	NEEDS(FAULTS);
	if (WITH_ASAN)
		test_skip("AddressSanitizer ends the process in its own way");
	ck_assert_int_eq(ends_by(SIG_DFL, 0, touches_it), SIGBUS);
	ck_assert_int_eq(ends_by(SIG_DFL, 0, raises), SIGBUS);
	ck_assert_int_eq(ends_by(SIG_IGN, 0, touches_it), SIGBUS);
	ck_assert_int_eq(ends_by(SIG_IGN, 0, raises), 0);
	ck_assert_int_eq(ends_by(former_plain, SA_RESETHAND, touches_it_twice), SIGBUS);
}

TEST(test_yield_a_former_handler_that_was_for_once_is_not_put_back)
{
	struct sigaction now;

	NEEDS(0);
	former_install(true, SA_RESETHAND);
	domain_begin(&one, 0);
	domain_end(&one);
	ck_assert(former_is_back(true));
	domain_begin(&one, 0);
	raise(SIGBUS);
	ck_assert_uint_eq(former.calls, 1);
	domain_end(&one);
	sigaction(SIGBUS, NULL, &now);
	ck_assert(now.sa_handler == SIG_DFL);
}

TEST_EACH(test_yield_the_former_handler_is_back_after_the_last_end, 2)
{
	static struct domain two;
	struct domain *first = _i ? &two : &one, *last = _i ? &one : &two;
	struct callback c = { .d = last };

	NEEDS(FAULTS);
	former_install(true, 0);
	domain_begin(&one, 0);
	domain_begin(&two, 0);
	domain_end(first);
	ck_assert(!former_is_back(true));
	world_spawn(&last->w, reads_one, &c);
	domain_run(last);
	ck_assert_int_eq(c.wrong, 0);
	domain_end(last);
	ck_assert(former_is_back(true));
	ck_assert_uint_eq(former.calls, 0);
	/* And again. */
	domain_begin(&one, 0);
	ck_assert(!former_is_back(true));
	domain_end(&one);
	ck_assert(former_is_back(true));
}

static struct sigaction below;
static unsigned on_top_calls;

static void on_top(int sig, siginfo_t *info, void *context)
{
	on_top_calls++;
	below.sa_sigaction(sig, info, context);
}

/* Without SA_NODEFER: ours parks with SIGBUS blocked, unless it sees to that. */
TEST(test_yield_works_below_a_handler_that_hands_on)
{
	struct sigaction top = { .sa_sigaction = on_top, .sa_flags = SA_SIGINFO }, now;
	struct callback c[4];

	NEEDS(FAULTS);
	former_install(true, 0);
	domain_begin(&one, 0);
	sigaction(SIGBUS, &top, &below);
	for (unsigned round = 0; round < 2; round++) {
		for (size_t i = 0; i < 4; i++) {
			c[i] = (struct callback){ .d = &one, .off = 4096 * i };
			world_spawn(&one.w, reads_one, &c[i]);
		}
		domain_run(&one);
		ck_assert_uint_eq(one.parked_max, 4);
		for (size_t i = 0; i < 4; i++)
			ck_assert_int_eq(c[i].wrong, 0);
		raise(SIGBUS);
		ck_assert_uint_eq(former.calls, round + 1);
		ck_assert_uint_eq(on_top_calls, (round + 1) * 5);
		domain_end(&one);
		sigaction(SIGBUS, NULL, &now);
		ck_assert_ptr_eq(now.sa_sigaction, on_top);
		domain_begin(&one, 0);
	}
	/* It goes away: ours is the process's again, and then the former one's. */
	sigaction(SIGBUS, &below, NULL);
	domain_end(&one);
	ck_assert(former_is_back(true));
}

TEST_EACH(test_yield_begins_anew_when_somebody_took_the_handler_away, 2)
{
	struct sigaction none = { .sa_handler = SIG_DFL }, now;
	struct callback c = { .d = &one };

	NEEDS(FAULTS);
	former_install(true, 0);
	domain_begin(&one, 0);
	sigaction(SIGBUS, &none, NULL);
	/* While the first one is there, and after the last one. */
	if (_i == 0)
		domain_begin(&two_domains[0], 0);
	domain_end(&one);
	sigaction(SIGBUS, NULL, &now);
	ck_assert((now.sa_handler == SIG_DFL) == (_i == 1));
	domain_begin(&one, 0);
	world_spawn(&one.w, reads_one, &c);
	domain_run(&one);
	ck_assert_int_eq(c.wrong, 0);
	if (_i == 0)
		domain_end(&two_domains[0]);
	domain_end(&one);
	sigaction(SIGBUS, NULL, &now);
	ck_assert(now.sa_handler == SIG_DFL);
}
