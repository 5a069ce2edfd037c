/*
 * Misuse while pages are missing: which callers may wait for one, and what becomes of a callback that waits while its
 * migration is freed (inmigrate(3), the table; inm_ram_await(3)).
 */
#include "tests/support/check_main.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "tests/support/postcopy_scene.h"

/* Missing for as long as nobody asks for it. */
#define MISSING 3

static struct inm_reactor *reactor;

static void begin(struct pc *s, struct pc_opts o)
{
	ck_assert_int_eq(inm_reactor_new(&reactor, NULL), 0);
	o.quiet = o.unanswered = true;
	o.config.reactor = reactor;
	pc_begin(s, &o);
}

static void end(struct pc *s)
{
	pc_free(s);
	pc_end(s); /* the reactor was there before the scene */
	inm_reactor_free(reactor);
	ck_assert_ptr_null(strstr(inm_last_error(), "inm_reactor_free"));
}

static void land_it(struct pc *s)
{
	pc_answer(s);
	pc_push(s);
	pc_run(s, 5000);
	pc_check_landed(s);
}

/* ---- waiting where nobody may ---------------------------------------------------------------------------------- */

static void may_not_wait(struct pc *s)
{
	struct inm *inm = s->e.inm;

	ck_assert_int_eq(inm_ram_await(inm, pc_guest(s, 0, MISSING), 1), -EDEADLK);
	ck_assert_ptr_nonnull(strstr(inm_error(inm), "only the callbacks device, ready and start_vcpus"));
	ck_assert_ptr_null(inm_ram_view(inm, pc_guest(s, 0, MISSING), 1));
	ck_assert_int_eq(inm_ram_await(inm, s, 1), -EFAULT);
}

TEST_CASE("waiting", 60, .checked = { .setup = pc_need });

TEST(test_nobody_waits_for_a_page_outside_of_a_callback)
{
	struct pc s;

	begin(&s, (struct pc_opts){ .device = pc_device_waits });
	pc_switch(&s);
	ck_assert(pc_until(&s, pc_asked, 5000));
	may_not_wait(&s);
	land_it(&s);
	end(&s);
}

static struct pc *logged;
static unsigned log_refusals;

/* A log line may come from anywhere in the library, where nothing may change under it. */
static void wait_in_log(void *opaque, enum inm_log_level level, const char *text)
{
	(void)opaque;
	(void)level;
	(void)text;
	if (logged && inm_get_state(logged->e.inm) == INM_STATE_POSTCOPY_ACTIVE)
		log_refusals += inm_ram_await(logged->e.inm, pc_guest(logged, 0, MISSING), 1) == -EDEADLK;
}

TEST(test_the_log_callback_does_not_wait_for_a_page)
{
	struct pc s;

	log_refusals = 0;
	logged = &s;
	begin(&s, (struct pc_opts){ .log = wait_in_log, .config.log_level = INM_LOG_DEBUG });
	pc_switch(&s);
	ck_assert(pc_until(&s, pc_vcpus_started, 5000));
	logged = NULL;
	ck_assert_uint_gt(log_refusals, 0);
	land_it(&s);
	end(&s);
}

/* ---- another migration on the same reactor ------------------------------------------------------------------- */

struct other {
	struct inm *inm;
	struct pc *s;
	void (*act)(struct pc *s);
	unsigned acted;
};

static int no_block(void *opaque, struct inm_ram_block *block)
{
	(void)opaque;
	(void)block;
	return -ENOENT;
}

static void other_state(void *opaque, enum inm_state state)
{
	struct other *o = opaque;

	if (state == INM_STATE_CANCELLED) {
		o->acted++;
		o->act(o->s);
	}
}

/* @act in a coroutine of another migration. */
static void act_in_another(struct pc *s, void (*act)(struct pc *s))
{
	static const struct inm_ops ops = { .size = sizeof(ops), .ram_block = no_block, .state_changed = other_state };
	struct inm_config config = { .size = sizeof(config), .reactor = reactor };
	struct other o = { .s = s, .act = act };

	ck_assert_int_eq(inm_new(&o.inm, &config, &ops, &o), 0);
	ck_assert_int_eq(inm_listen(o.inm, "tcp:127.0.0.1:0"), 0);
	inm_cancel(o.inm);
	ck_assert_int_eq(inm_run_until(o.inm, deadline_after_ns(5 * NS_PER_S)), -ECANCELED);
	ck_assert_uint_eq(o.acted, 1);
	inm_free(o.inm);
}

TEST(test_a_callback_of_another_migration_does_not_wait_for_a_page)
{
	struct pc s;

	begin(&s, (struct pc_opts){ .device = pc_device_waits });
	pc_switch(&s);
	ck_assert(pc_until(&s, pc_asked, 5000));
	act_in_another(&s, may_not_wait);
	land_it(&s);
	end(&s);
}

static void free_it(struct pc *s)
{
	inm_free(s->e.inm);
	ck_assert_ptr_nonnull(strstr(inm_last_error(), "inm_free: cancelled, and to be freed once more"));
	ck_assert_int_eq(inm_get_state(s->e.inm), INM_STATE_POSTCOPY_ACTIVE);
}

TEST_CASE("freeing", 60, .checked = { .setup = pc_need });

TEST(test_to_free_one_whose_callback_waits_from_a_callback_of_another_cancels_it)
{
	struct pc s;

	begin(&s, (struct pc_opts){ .device = pc_device_waits });
	pc_switch(&s);
	ck_assert(pc_until(&s, pc_asked, 5000));
	act_in_another(&s, free_it);
	pc_run(&s, 5000);
	ck_assert_int_eq(s.result, -ECANCELED);
	ck_assert(s.device_ended);
	ck_assert_int_eq(s.device_result, -ECANCELED);
	ck_assert_uint_eq(s.vcpu_starts, 0);
	end(&s);
}

/* ---- freed while a callback waits ------------------------------------------------------------------------------ */

TEST(test_to_free_one_whose_callback_waits_lets_the_callback_return_first)
{
	struct pc s;

	begin(&s, (struct pc_opts){ .device = pc_device_waits });
	pc_switch(&s);
	ck_assert(pc_until(&s, pc_asked, 5000));
	pc_free(&s);
	ck_assert(s.device_ended);
	ck_assert_int_eq(s.device_result, -ECANCELED);
	ck_assert_int_eq(s.e.states[s.e.state_count - 1], INM_STATE_CANCELLED);
	end(&s);
}

static unsigned read_byte;

static int touch_the_engine_view(struct pc *s, const struct inm_device *device)
{
	volatile uint8_t *at = inm_ram_view(s->e.inm, pc_guest(s, 0, MISSING), 1);

	(void)device;
	read_byte = *at; /* waits */
	return 0;
}

TEST(test_to_free_one_whose_callback_has_faulted_lets_it_read_zeros_and_return)
{
	struct pc s;

	read_byte = 0x100;
	begin(&s, (struct pc_opts){ .device = touch_the_engine_view });
	pc_switch(&s);
	ck_assert(pc_until(&s, pc_asked, 5000));
	ck_assert_uint_eq(read_byte, 0x100);
	pc_free(&s);
	ck_assert_uint_eq(read_byte, 0);
	ck_assert(s.device_ended);
	end(&s);
}

static int free_myself(struct pc *s, const struct inm_device *device)
{
	(void)device;
	inm_free(s->e.inm);
	ck_assert_int_eq(inm_ram_await(s->e.inm, pc_guest(s, 0, MISSING), 1), -ECANCELED);
	return 0;
}

TEST(test_to_free_in_a_callback_of_the_package_cancels_before_the_guest_runs)
{
	struct pc s;

	begin(&s, (struct pc_opts){ .device = free_myself });
	pc_switch(&s);
	pc_run(&s, 5000);
	ck_assert_int_eq(s.result, -ECANCELED);
	ck_assert_uint_eq(s.vcpu_starts, 0);
	end(&s);
}
