/* Coroutines that fault park, others run, and the instruction runs again; and which coroutines may not park. */
#include "tests/support/huge_pool.h"
#include "tests/unit/yield_world.h"

/* ---- faults that park ---- */

TEST_CASE("faults", 60);

TEST(test_yield_many_coroutines_fault_at_once)
{
	struct callback c[PAGES];

	NEEDS(FAULTS);
	domain_begin(&one, 0);
	for (size_t i = 0; i < PAGES; i++) {
		c[i] = (struct callback){ .d = &one, .off = i * 4096 + i };
		world_spawn(&one.w, reads_one, &c[i]);
	}
	domain_run(&one);
	for (size_t i = 0; i < PAGES; i++)
		ck_assert_int_eq(c[i].wrong, 0);
	ck_assert_uint_eq(one.parked_max, PAGES);
	ck_assert_uint_eq(one.y.faults, PAGES);
	domain_end(&one);
}

static int keeps_its_world(void *arg)
{
	struct callback *c = arg;
	size_t n = c->off / 4096;
	volatile double third = 1.0 / 3.0, before, after;
	int mode = n % 2 && !RUNNING_ON_VALGRIND ? FE_UPWARD : FE_TONEAREST;

	yield_watch(&c->d->y, "keeps its world");
	before = third * (double)n;
	errno = (int)n + 1;
	fesetround(mode);
	c->wrong += *(volatile uint8_t *)(c->d->ram.view + c->off) != content(c->off);
	c->wrong += errno != (int)n + 1;
	c->wrong += fegetround() != mode;
	fesetround(FE_TONEAREST);
	after = third * (double)n;
	c->wrong += after != before;
	yield_unwatch(&c->d->y);
	return 0;
}

TEST(test_yield_errno_and_rounding_are_kept)
{
	struct callback c[20];

	NEEDS(FAULTS);
	domain_begin(&one, 0);
	for (size_t i = 0; i < 20; i++) {
		c[i] = (struct callback){ .d = &one, .off = i * 4096 };
		world_spawn(&one.w, keeps_its_world, &c[i]);
	}
	domain_run(&one);
	for (size_t i = 0; i < 20; i++)
		ck_assert_int_eq(c[i].wrong, 0);
	ck_assert_uint_eq(one.parked_max, 20);
	domain_end(&one);
}

static int copies(void *arg)
{
	struct callback *c = arg;
	uint8_t *copy = malloc(c->bytes);

	yield_watch(&c->d->y, "copies");
	memcpy(copy, c->d->ram.view + c->off, c->bytes);
	yield_unwatch(&c->d->y);
	for (size_t i = 0; i < c->bytes; i++)
		c->wrong += copy[i] != content(c->off + i);
	free(copy);
	return 0;
}

/* Each page of a copy is a fault in the middle of memcpy, and others run in between, in memcpy too. */
static void copies_run(unsigned rounds)
{
	for (unsigned round = 0; round < rounds; round++) {
		struct callback c[8];

		one.last_first = round % 2;
		one.y.faults = 0;
		for (size_t i = 0; i < 8; i++) {
			c[i] = (struct callback){ .d = &one,
				                  .off = i * 6 * 4096 + 4090 - i,
				                  .bytes = 5 * 4096 + 13 * i };
			world_spawn(&one.w, copies, &c[i]);
		}
		domain_run(&one);
		for (size_t i = 0; i < 8; i++)
			ck_assert_int_eq(c[i].wrong, 0);
		ck_assert_uint_ge(one.y.faults, 8 * 6);
		ram_forget(&one.ram);
	}
}

TEST(test_yield_a_copy_may_cross_missing_pages)
{
	NEEDS(FAULTS);
	domain_begin(&one, 0);
	copies_run(RUNNING_ON_VALGRIND ? 5 : 100);
	ck_assert_uint_eq(one.parked_max, 8);
	domain_end(&one);
}

static int reads_across(void *arg)
{
	struct callback *c = arg;
	uint64_t got, expected;

	yield_watch(&c->d->y, "reads across");
	__builtin_memcpy(&got, c->d->ram.view + c->off, sizeof(got)); /* one load that touches two pages */
	__asm__ volatile("" : "+r"(got));
	yield_unwatch(&c->d->y);
	for (size_t i = 0; i < sizeof(expected); i++)
		((uint8_t *)&expected)[i] = content(c->off + i);
	c->wrong += got != expected;
	return 0;
}

TEST(test_yield_one_instruction_may_miss_two_pages)
{
	struct callback c = { .d = &one, .off = 7 * 4096 - 3 };

	NEEDS(FAULTS);
	domain_begin(&one, 0);
	world_spawn(&one.w, reads_across, &c);
	domain_run(&one);
	ck_assert_int_eq(c.wrong, 0);
	ck_assert_uint_eq(one.y.faults, 2);
	domain_end(&one);
}

static int writes(void *arg)
{
	struct callback *c = arg;

	yield_watch(&c->d->y, "writes");
	*(volatile uint8_t *)(c->d->ram.view + c->off) = 0xee;
	c->wrong += c->d->ram.view[c->off ^ 1] != content(c->off ^ 1);
	yield_unwatch(&c->d->y);
	return 0;
}

TEST(test_yield_several_may_want_one_page_and_write)
{
	struct callback c[5];

	NEEDS(FAULTS);
	domain_begin(&one, 0);
	for (size_t i = 0; i < 5; i++) {
		c[i] = (struct callback){ .d = &one, .off = 2 * i };
		world_spawn(&one.w, writes, &c[i]);
	}
	/* Not by domain_run, because its second landing would overwrite the first one's write. */
	world_settle(&one.w);
	ck_assert_uint_eq(one.parked_count, 5);
	ram_land(&one.ram, 0, one.ram.view_uffd, one.ram.view);
	for (size_t i = 0; i < 5; i++)
		co_wake(one.parked[i].co, 0);
	world_settle(&one.w);
	for (size_t i = 0; i < 5; i++) {
		ck_assert_int_eq(c[i].wrong, 0);
		ck_assert_uint_eq(one.ram.landing[2 * i], 0xee);
	}
	domain_end(&one);
}

static void block_usr2(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
}

TEST(test_yield_a_mask_changed_meanwhile_stays)
{
	struct callback c = { .d = &one };

	NEEDS(FAULTS);
	if (PORTABLE_SWITCH)
		test_skip("swapcontext(3) gives each coroutine a mask of its own");
	domain_begin(&one, 0);
	world_spawn(&one.w, reads_one, &c);
	world_settle(&one.w);
	ck_assert_uint_eq(one.parked_count, 1);
	block_usr2();
	domain_run(&one);
	ck_assert_int_eq(c.wrong, 0);
	ck_assert(is_blocked(SIGUSR2));
	domain_end(&one);
}

TEST(test_yield_sigbus_is_not_blocked_between_begin_and_the_last_end)
{
	static struct domain two;
	struct callback c = { .d = &two };
	sigset_t set;

	NEEDS(FAULTS);
	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	domain_begin(&one, 0);
	ck_assert(!is_blocked(SIGBUS));
	domain_begin(&two, 0);
	domain_end(&one);
	ck_assert(!is_blocked(SIGBUS));
	world_spawn(&two.w, reads_one, &c);
	domain_run(&two);
	ck_assert_int_eq(c.wrong, 0);
	domain_end(&two);
	ck_assert(is_blocked(SIGBUS));
}

TEST(test_yield_many_ranges_are_told_apart)
{
	static uint8_t space[YIELD_RANGES_MAX];

	NEEDS(0);
	domain_begin(&one, 0);
	for (size_t i = 1; i < YIELD_RANGES_MAX; i++)
		ck_assert_int_eq(yield_add_view(&one.y, &space[i], 1, "small"), 0);
	ck_assert_int_eq(yield_add_view(&one.y, &space[0], 1, "one too many"), -ENOMEM);
	ck_assert_ptr_eq(one.y.views[YIELD_RANGES_MAX - 1].begin, &space[YIELD_RANGES_MAX - 1]);
	ck_assert_ptr_eq(one.y.views[0].begin, one.ram.view);
	domain_end(&one);
}

/* ---- huge pages ---- */

static void huge_pool_setup(void)
{
	huge_pool_fill(HUGE_PAGES);
}

TEST_CASE("huge", 60, .unchecked = { huge_pool_setup, huge_pool_restore });

TEST(test_yield_huge_pages_and_their_boundary)
{
	struct callback c[2] = { { .d = &one, .off = HUGE_POOL_BYTES - 3 },
		                 { .d = &one, .off = 2 * HUGE_POOL_BYTES - 5000, .bytes = 10000 } };

	NEEDS(FAULTS);
	if (huge_pool_free() < HUGE_PAGES)
		test_skip("there are no huge pages, and this process may not make any");
	domain_begin(&one, 0);
	yield_end(&one.y);
	ram_free(&one.ram);
	ram_make(&one.ram, HUGE_POOL_BYTES, HUGE_PAGES);
	one.y = (struct yield){ .sched = &one.w.sched, .fault = on_fault, .opaque = &one };
	ck_assert_int_eq(yield_begin(&one.y, 0), 0);
	ck_assert_int_eq(yield_add_view(&one.y, one.ram.view, one.ram.bytes, "huge"), 0);
	world_spawn(&one.w, reads_across, &c[0]);
	domain_run(&one);
	ck_assert_uint_eq(one.y.faults, 2);
	world_spawn(&one.w, copies, &c[1]);
	domain_run(&one);
	ck_assert_uint_eq(one.y.faults, 3);
	ck_assert_int_eq(c[0].wrong + c[1].wrong, 0);
	domain_end(&one);
}

/* ---- our own errors are seen ---- */

static void main_touches_view(struct domain *d)
{
	yield_watch(&d->y, "main");
	(void)*(volatile uint8_t *)d->ram.view;
}

TEST_CASE("errors", 4);

TEST(test_yield_the_threads_own_context_does_not_park)
{
	NEEDS(FAULTS);
	ck_assert_int_eq(ends_by(SIG_DFL, 0, main_touches_view), SIGBUS);
	former_install(true, 0);
	domain_begin(&one, 0);
	former.open = &one;
	yield_watch(&one.y, "main");
	ck_assert_uint_eq(*(volatile uint8_t *)(one.ram.view + 4096 + 5), content(4096 + 5));
	yield_unwatch(&one.y);
	ck_assert_uint_eq(former.calls, 1);
	ck_assert_uint_eq(one.y.faults, 0);
	domain_end(&one);
}

static int touches_outside_a_callback(void *arg)
{
	struct callback *c = arg;

	c->wrong += *(volatile uint8_t *)(c->d->ram.view + c->off) != content(c->off);
	return 0;
}

TEST(test_yield_outside_a_callback_nobody_parks)
{
	struct callback c[2] = { { .d = &one }, { .d = &one, .off = 4096 } };

	NEEDS(FAULTS);
	former_install(true, 0);
	domain_begin(&one, 0);
	former.open = &one;
	world_spawn(&one.w, touches_outside_a_callback, &c[0]);
	domain_run(&one);
	ck_assert_uint_eq(former.calls, 1);
	/* Nor while another coroutine is in one. */
	world_spawn(&one.w, parks_without_a_word, &c[0]);
	world_spawn(&one.w, touches_outside_a_callback, &c[1]);
	domain_run(&one);
	ck_assert_uint_eq(former.calls, 2);
	ck_assert_uint_eq(one.y.faults, 0);
	ck_assert_int_eq(c[0].wrong + c[1].wrong, 0);
	domain_end(&one);
}

TEST(test_yield_a_page_that_cannot_come_is_seen)
{
	struct callback c = { .d = &one };

	NEEDS(FAULTS);
	former_install(true, 0);
	domain_begin(&one, 0);
	former.open = &one;
	one.never = true;
	world_spawn(&one.w, reads_one, &c);
	domain_run(&one);
	ck_assert_int_eq(c.wrong, 0);
	ck_assert_uint_eq(one.y.faults, YIELD_REPEATS_MAX);
	ck_assert_uint_eq(former.calls, 1);
	domain_end(&one);
}

/* ---- more than one ---- */

static int reads_the_others(void *arg)
{
	struct callback *c = arg;
	struct domain *other = c->d == &two_domains[0] ? &two_domains[1] : &two_domains[0];

	yield_watch(&c->d->y, "reads the other's");
	c->wrong += *(volatile uint8_t *)(other->ram.view + c->off) != content(c->off);
	yield_unwatch(&c->d->y);
	return 0;
}

TEST_CASE("several", 60);

TEST(test_yield_two_schedulers_on_one_thread)
{
	struct callback c[2][10], other = { .d = &two_domains[0], .off = 50 * 4096 };

	NEEDS(FAULTS);
	former_install(true, 0);
	for (size_t k = 0; k < 2; k++)
		domain_begin(&two_domains[k], 0);
	for (size_t i = 0; i < 10; i++) {
		for (size_t k = 0; k < 2; k++) {
			c[k][i] = (struct callback){ .d = &two_domains[k], .off = 4096 * i + 1000 * k };
			world_spawn(&two_domains[k].w, reads_one, &c[k][i]);
		}
	}
	/* All of both are parked before the first page lands. */
	world_settle(&two_domains[0].w);
	world_settle(&two_domains[1].w);
	for (size_t k = 0; k < 2; k++)
		ck_assert_uint_eq(two_domains[k].parked_count, 10);
	for (size_t k = 0; k < 2; k++)
		domain_run(&two_domains[k]);
	for (size_t i = 0; i < 10; i++)
		ck_assert_int_eq(c[0][i].wrong + c[1][i].wrong, 0);
	ck_assert_uint_eq(former.calls, 0);
	/* A callback of one has no business in the other's. */
	former.open = &two_domains[1];
	world_spawn(&two_domains[0].w, reads_the_others, &other);
	domain_run(&two_domains[0]);
	ck_assert_int_eq(other.wrong, 0);
	ck_assert_uint_eq(former.calls, 1);
	for (size_t k = 0; k < 2; k++)
		domain_end(&two_domains[k]);
	ck_assert(former_is_back(true));
}

static void *thread_of_a_domain(void *arg)
{
	struct domain *d = arg;
	struct callback c[20];
	unsigned rounds = RUNNING_ON_VALGRIND ? 3 : 50;
	intptr_t wrong = 0;

	for (unsigned round = 0; round < rounds; round++) {
		domain_begin(d, NS_PER_S);
		for (size_t i = 0; i < 20; i++) {
			c[i] = (struct callback){ .d = d, .off = 4096 * i + round };
			world_spawn(&d->w, reads_one, &c[i]);
		}
		domain_run(d);
		for (size_t i = 0; i < 20; i++)
			wrong += c[i].wrong;
		wrong += d->parked_max != 20;
		domain_end(d);
	}
	return (void *)wrong;
}

TEST(test_yield_two_threads_with_a_domain_each)
{
	pthread_t threads[2];
	void *wrong;

	NEEDS(FAULTS);
	former_install(true, 0);
	for (size_t k = 0; k < 2; k++)
		ck_assert_int_eq(pthread_create(&threads[k], NULL, thread_of_a_domain, &two_domains[k]), 0);
	for (size_t k = 0; k < 2; k++) {
		ck_assert_int_eq(pthread_join(threads[k], &wrong), 0);
		ck_assert_ptr_eq(wrong, NULL);
	}
	ck_assert_uint_eq(former.calls, 0);
	ck_assert(former_is_back(true));
}

static void *reads_from_outside(void *arg)
{
	struct domain *d = arg;

	return (void *)(intptr_t)(*(volatile uint8_t *)d->ram.view == content(0));
}

TEST(test_yield_a_thread_without_a_domain_does_not_park)
{
	pthread_t thread;
	void *right;

	NEEDS(FAULTS);
	former_install(true, 0);
	domain_begin(&one, 0);
	former.open = &one;
	ck_assert_int_eq(pthread_create(&thread, NULL, reads_from_outside, &one), 0);
	pthread_join(thread, &right);
	ck_assert_ptr_nonnull(right);
	ck_assert_uint_eq(former.calls, 1);
	ck_assert_uint_eq(one.y.faults, 0);
	domain_end(&one);
}
