/*
 * Forbidden calls: from a callback, on another thread, twice. Each is an error, or does a defined part of its work;
 * none of them ends the process that owns the guest, and the migration goes on (inmigrate(3), the table).
 */
#include "tests/support/check_main.h"

#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/list.h"
#include "tests/support/scene.h"

enum place {
	IN_LISTEN,
	IN_ACTIVE,
	IN_RAM_BLOCK,
	IN_DEVICE,
	IN_READY,
	IN_START,
	IN_COMPLETED,
	IN_LOG,
	IN_TRACE,
	PLACES
};

/* A migration whose embedder does something wrong in one of its callbacks, the first time that one is called. */
struct sinner {
	struct scene s;
	struct pump p;
	enum place place;
	void (*sin)(struct sinner *me);
	struct inm *other; /* for sin */
	struct inm_reactor *reactor;
	unsigned sinned;
};

static void at(void *opaque, enum place place)
{
	struct sinner *me = container_of(opaque, struct sinner, s.e);

	if (me->sin && me->place == place && me->sinned++ == 0)
		me->sin(me);
}

static int sin_ram_block(void *opaque, struct inm_ram_block *block)
{
	at(opaque, IN_RAM_BLOCK);
	return embedder_ops.ram_block(opaque, block);
}

static int sin_device(void *opaque, const struct inm_device *device)
{
	at(opaque, IN_DEVICE);
	return embedder_ops.device(opaque, device);
}

static int sin_ready(void *opaque, const char *run_state)
{
	at(opaque, IN_READY);
	return embedder_ops.ready(opaque, run_state);
}

static void sin_start(void *opaque, const char *run_state)
{
	(void)run_state;
	at(opaque, IN_START);
}

static void sin_state(void *opaque, enum inm_state state)
{
	embedder_ops.state_changed(opaque, state);
	if (state == INM_STATE_SETUP)
		at(opaque, IN_LISTEN);
	if (state == INM_STATE_ACTIVE)
		at(opaque, IN_ACTIVE);
	if (state == INM_STATE_COMPLETED)
		at(opaque, IN_COMPLETED);
}

static void sin_log(void *opaque, enum inm_log_level level, const char *text)
{
	embedder_ops.log(opaque, level, text);
	at(opaque, IN_LOG);
}

static void sin_trace(void *opaque, uint64_t off, int depth, const char *text)
{
	embedder_trace(opaque, off, depth, text);
	at(opaque, IN_TRACE);
}

static const struct inm_ops sin_ops = {
	.size = sizeof(sin_ops),
	.ram_block = sin_ram_block,
	.device = sin_device,
	.ready = sin_ready,
	.start_vcpus = sin_start,
	.state_changed = sin_state,
	.log = sin_log,
	.trace = sin_trace,
};

static void *do_nothing(void *arg)
{
	return arg;
}

/* What a process keeps of its first thread is there before the census. */
static void make_a_thread(void)
{
	pthread_t thread;

	mallopt(M_ARENA_MAX, 1); /* a thread's arena would be taken for a leak */
	ck_assert_int_eq(pthread_create(&thread, NULL, do_nothing, NULL), 0);
	ck_assert_int_eq(pthread_join(thread, NULL), 0);
}

static void sinner_begin(struct sinner *me, enum place place, void (*sin)(struct sinner *me))
{
	struct land_opts o = { .ops = &sin_ops, .return_path = true };

	*me = (struct sinner){ .place = place, .sin = sin };
	make_a_thread();
	scene_begin(&me->s, &(struct honest_opts){ .return_path = true });
	ck_assert_int_eq(inm_reactor_new(&me->reactor, NULL), 0);
	o.config.reactor = me->reactor;
	o.config.log_level = INM_LOG_DEBUG;
	land_new(&me->s.e, &o);
	me->p.return_path = true;
}

static void sinner_listen(struct sinner *me)
{
	ck_assert_int_eq(land_listen_fd(&me->s.e, pump_open(&me->p, &me->s.wire)), 0);
	me->p.return_path = true;
}

/* To the end. Return: of the last dispatch. */
static int sinner_play(struct sinner *me)
{
	uint64_t end_ns = deadline_after_ns(10 * NS_PER_S);
	int r;

	while ((r = inm_dispatch(me->s.e.inm)) == 1 && clock_now_ns() < end_ns) {
		struct pollfd pfd = { .fd = inm_fd(me->s.e.inm), .events = POLLIN };

		if (!pump_step(&me->p))
			poll(&pfd, 1, 1);
	}
	pump_step(&me->p);
	return r;
}

static void sinner_end(struct sinner *me)
{
	struct embedder *e = &me->s.e;

	e->stats.size = sizeof(e->stats);
	ck_assert_int_eq(inm_get_stats(e->inm, &e->stats), 0);
	inm_free(e->inm);
	e->inm = NULL;
	inm_free(me->other);
	inm_reactor_free(me->reactor);
	pump_close(&me->p);
	scene_end(&me->s);
}

static void check_landed(struct sinner *me, int r)
{
	ck_assert_msg(r == 0, "%d: %s", r, inm_error(me->s.e.inm));
	ck_assert_uint_eq(me->sinned > 0, me->sin != NULL);
	ck_assert_uint_eq(embedder_compare(&me->s.e, &me->s.image), 0);
	ck_assert_uint_eq(source_reply_value(&me->p.report, WIRE_RP_SHUT, 0), 0);
}

/* ---- a callback runs its own migration ----------------------------------------------------------------------- */

static void run_myself(struct sinner *me)
{
	struct inm *inm = me->s.e.inm;

	ck_assert_int_eq(inm_run(inm), -EDEADLK);
	ck_assert_msg(strstr(inm_error(inm), "inm_run: called from a callback (EDEADLK)"), "%s", inm_error(inm));
	ck_assert_int_eq(inm_run_until(inm, clock_now_ns() + NS_PER_S), -EDEADLK);
	ck_assert_int_eq(inm_dispatch(inm), -EDEADLK);
	ck_assert_msg(strstr(inm_error(inm), "inm_dispatch"), "%s", inm_error(inm));
	ck_assert_str_eq(inm_last_error(), "inm_dispatch: called from a callback (EDEADLK)");
}

TEST_CASE("callbacks", 60);

TEST_EACH(test_to_run_from_a_callback_is_refused_and_the_guest_lands, PLACES)
{
	struct sinner me;

	sinner_begin(&me, (enum place)_i, run_myself);
	sinner_listen(&me);
	check_landed(&me, sinner_play(&me));
	sinner_end(&me);
}

/* What may be asked and set in a callback. */
static void ask_everything(struct sinner *me)
{
	struct inm_stats st = { .size = sizeof(st) };
	struct inm *inm = me->s.e.inm;

	ck_assert_int_eq(inm_get_stats(inm, &st), 0);
	ck_assert_int_eq(st.state, inm_get_state(inm));
	ck_assert_uint_eq(inm_get_blocktime(inm, NULL, 10), 0);
	ck_assert_int_ge(inm_fd(inm), 0);
	ck_assert_ptr_null(inm_address(inm, 0));
	ck_assert_int_eq(inm_set_capability(inm, "return-path", true), -EBUSY);
	ck_assert_int_eq(inm_set_parameter(inm, "multifd-channels", "2"), -EBUSY);
	ck_assert_int_eq(inm_listen(inm, "tcp:127.0.0.1:0"), -EBUSY);
	ck_assert_int_eq(inm_recover(inm, "tcp:127.0.0.1:0"), -EBUSY);
	ck_assert_int_eq(inm_pause(inm), -EINVAL);
	ck_assert_int_eq(inm_ram_await(inm, inm, 1), -EFAULT);
	ck_assert_ptr_null(inm_ram_view(inm, inm, 1));
	ck_assert_str_ne(inm_error(inm), "no error");
}

TEST_EACH(test_all_other_calls_may_be_made_from_any_callback, PLACES)
{
	struct sinner me;

	sinner_begin(&me, (enum place)_i, ask_everything);
	sinner_listen(&me);
	check_landed(&me, sinner_play(&me));
	/* What fails before the guest is here is forgotten when it is. */
	ck_assert_int_eq(strcmp(inm_error(me.s.e.inm), "no error") == 0, _i != IN_START && _i != IN_COMPLETED);
	sinner_end(&me);
}

static void run_elsewhere(struct sinner *me)
{
	struct embedder e;
	struct pump p;

	embedder_init(&e);
	embedder_add_image(&e, &me->s.image);
	land_new(&e, &(struct land_opts){ .return_path = true });
	ck_assert_int_eq(land_listen_fd(&e, pump_open(&p, &me->s.wire)), 0);
	p.return_path = true;
	while (inm_dispatch(e.inm) == 1)
		pump_step(&p);
	ck_assert_int_eq(inm_run(e.inm), 0);
	ck_assert_uint_eq(embedder_compare(&e, &me->s.image), 0);
	pump_close(&p);
	embedder_fini(&e); /* frees it, too */
}

TEST_EACH(test_a_callback_may_carry_through_a_migration_on_another_reactor, PLACES)
{
	struct sinner me;

	sinner_begin(&me, (enum place)_i, run_elsewhere);
	sinner_listen(&me);
	check_landed(&me, sinner_play(&me));
	sinner_end(&me);
}

/* ---- a callback frees ---------------------------------------------------------------------------------------- */

static void free_myself(struct sinner *me)
{
	inm_free(me->s.e.inm);
	ck_assert_msg(
	        strstr(inm_last_error(), "inm_free: cancelled, and to be freed once more: called from a callback"),
	        "%s", inm_last_error());
	inm_free(me->s.e.inm); /* twice changes nothing */
}

TEST_EACH(test_to_free_in_a_callback_cancels_and_the_object_lives_until_it_is_freed_again, PLACES)
{
	struct sinner me;
	int r;

	sinner_begin(&me, (enum place)_i, free_myself);
	sinner_listen(&me);
	r = sinner_play(&me);
	ck_assert_uint_gt(me.sinned, 0);
	if (_i == IN_COMPLETED || _i == IN_START) {
		/* Too late: the source has been told. */
		check_landed(&me, r);
	} else {
		ck_assert_int_eq(r, -ECANCELED);
		ck_assert_int_eq(inm_get_state(me.s.e.inm), INM_STATE_CANCELLED);
		ck_assert_str_eq(inm_error(me.s.e.inm), "incoming: cancelled (ECANCELED)");
		ck_assert_int_eq(inm_dispatch(me.s.e.inm), -ECANCELED);
	}
	sinner_end(&me);
}

static void free_other(struct sinner *me)
{
	inm_free(me->other);
	ck_assert_int_ne(inm_get_state(me->other), INM_STATE_CANCELLED); /* it lives, and has not had its turn */
}

static void make_other(struct sinner *me, bool listening)
{
	struct inm_config config = { .size = sizeof(config), .reactor = me->reactor };

	ck_assert_int_eq(inm_new(&me->other, &config, &embedder_ops, &me->s.e), 0);
	if (listening)
		ck_assert_int_eq(inm_listen(me->other, "tcp:127.0.0.1:0"), 0);
}

TEST(test_to_free_another_migration_in_a_callback_cancels_that_one_only)
{
	for (unsigned listening = 0; listening < 2; listening++) {
		struct sinner me;

		sinner_begin(&me, IN_DEVICE, free_other);
		me.s.e.state_count = 0;
		make_other(&me, listening);
		sinner_listen(&me);
		check_landed(&me, sinner_play(&me));
		if (listening)
			ck_assert_int_eq(inm_run_until(me.other, deadline_after_ns(5 * NS_PER_S)), -ECANCELED);
		else
			ck_assert_int_eq(inm_get_state(me.other), INM_STATE_NONE);
		sinner_end(&me);
	}
}

static void free_reactor(struct sinner *me)
{
	inm_reactor_free(me->reactor);
	ck_assert_msg(
	        strstr(inm_last_error(), "inm_reactor_free: called from a callback: nothing is released (EDEADLK)"),
	        "%s", inm_last_error());
}

TEST_EACH(test_a_reactor_is_not_freed_in_a_callback, PLACES)
{
	struct sinner me;

	sinner_begin(&me, (enum place)_i, free_reactor);
	sinner_listen(&me);
	check_landed(&me, sinner_play(&me));
	sinner_end(&me);
}

TEST(test_a_reactor_with_migrations_is_not_freed)
{
	struct sinner me;

	sinner_begin(&me, PLACES, NULL);
	inm_reactor_free(me.reactor);
	ck_assert_str_eq(inm_last_error(),
	                 "inm_reactor_free: 1 of its migrations have not been freed: nothing is released (EBUSY)");
	sinner_listen(&me);
	inm_reactor_free(me.reactor);
	check_landed(&me, sinner_play(&me));
	inm_reactor_free(me.reactor);
	sinner_end(&me);
}

/* ---- another thread ------------------------------------------------------------------------------------------ */

static void *call_all(void *arg)
{
	struct inm_stats st = { .size = sizeof(st), .devices = 77 };
	struct sinner *me = arg;
	struct inm *inm = me->s.e.inm, *made;
	struct inm_config config = { .size = sizeof(config), .reactor = me->reactor };

	ck_assert_str_eq(inm_last_error(), "no error"); /* it is this thread's */
	ck_assert_int_eq(inm_dispatch(inm), -EDEADLK);
	ck_assert_int_eq(inm_run(inm), -EDEADLK);
	ck_assert_int_eq(inm_run_until(inm, 0), -EDEADLK);
	ck_assert_msg(strstr(inm_last_error(), "another thread"), "%s", inm_last_error());
	ck_assert_int_eq(inm_set_capability(inm, "return-path", true), -EDEADLK);
	ck_assert_int_eq(inm_set_parameter(inm, "multifd-channels", "2"), -EDEADLK);
	ck_assert_int_eq(inm_listen(inm, "tcp:127.0.0.1:0"), -EDEADLK);
	ck_assert_int_eq(inm_recover(inm, "tcp:127.0.0.1:0"), -EDEADLK);
	ck_assert_int_eq(inm_fd(inm), -EDEADLK);
	ck_assert_int_eq(inm_ram_await(inm, me, 1), -EDEADLK);
	ck_assert_ptr_null(inm_ram_view(inm, me, 1));
	ck_assert_ptr_null(inm_address(inm, 0));
	ck_assert_uint_eq(inm_get_blocktime(inm, NULL, 0), 0);
	ck_assert_int_eq(inm_get_stats(inm, &st), -EDEADLK);
	ck_assert_uint_eq(st.devices, 0);
	ck_assert_int_eq(st.state, inm_get_state(inm));
	ck_assert_msg(strstr(inm_error(inm), "is being run on another thread"), "%s", inm_error(inm));
	ck_assert_int_eq(inm_pause(inm), -EINVAL);
	ck_assert_int_eq(inm_new(&made, &config, &embedder_ops, NULL), -EDEADLK);
	ck_assert_ptr_null(made);
	inm_reactor_free(me->reactor);
	ck_assert_msg(strstr(inm_last_error(), "inm_reactor_free"), "%s", inm_last_error());
	return NULL;
}

static void on_thread(struct sinner *me, void *(*fn)(void *arg))
{
	pthread_t thread;

	ck_assert_int_eq(pthread_create(&thread, NULL, fn, me), 0);
	ck_assert_int_eq(pthread_join(thread, NULL), 0);
}

static void others_call(struct sinner *me)
{
	on_thread(me, call_all);
}

TEST_CASE("threads", 60);

TEST(test_while_a_thread_runs_it_others_are_refused_and_the_guest_lands)
{
	struct sinner me;

	sinner_begin(&me, IN_ACTIVE, others_call);
	sinner_listen(&me);
	check_landed(&me, sinner_play(&me));
	ck_assert_str_eq(inm_error(me.s.e.inm), "no error");
	sinner_end(&me);
}

static void *dispatch_elsewhere(void *arg)
{
	struct inm_stats st = { .size = sizeof(st) };
	struct sinner *me = arg;

	ck_assert_int_eq(inm_dispatch(me->s.e.inm), -EDEADLK);
	ck_assert_int_eq(inm_run_until(me->s.e.inm, 0), -EDEADLK);
	ck_assert_msg(strstr(inm_last_error(), "belongs to another thread"), "%s", inm_last_error());
	/* Nobody is inside: all that only looks or sets may be called. */
	ck_assert_int_eq(inm_get_stats(me->s.e.inm, &st), 0);
	ck_assert_int_eq(inm_set_capability(me->s.e.inm, "return-path", true), -EBUSY);
	return NULL;
}

TEST(test_a_reactor_belongs_to_the_thread_that_ran_it_first)
{
	struct sinner me;

	sinner_begin(&me, PLACES, NULL);
	sinner_listen(&me);
	ck_assert_int_eq(inm_dispatch(me.s.e.inm), 1);
	on_thread(&me, dispatch_elsewhere);
	check_landed(&me, sinner_play(&me));
	on_thread(&me, dispatch_elsewhere);
	sinner_end(&me);
}

static void *free_elsewhere(void *arg)
{
	struct sinner *me = arg;

	inm_free(me->s.e.inm);
	ck_assert_msg(strstr(inm_last_error(), "inm_free: cancelled, and to be freed once more"), "%s",
	              inm_last_error());
	return NULL;
}

static void others_free(struct sinner *me)
{
	on_thread(me, free_elsewhere);
}

TEST(test_to_free_on_another_thread_while_it_runs_cancels)
{
	struct sinner me;

	sinner_begin(&me, IN_DEVICE, others_free);
	sinner_listen(&me);
	ck_assert_int_eq(sinner_play(&me), -ECANCELED);
	sinner_end(&me);
}

TEST(test_to_free_on_another_thread_while_it_is_under_way_cancels)
{
	struct sinner me;

	sinner_begin(&me, PLACES, NULL);
	sinner_listen(&me);
	ck_assert_int_eq(inm_dispatch(me.s.e.inm), 1);
	on_thread(&me, free_elsewhere);
	ck_assert_int_eq(sinner_play(&me), -ECANCELED);
	sinner_end(&me);
}

static void *free_the_ended(void *arg)
{
	struct inm *inm = arg;

	inm_free(inm);
	ck_assert_str_eq(inm_last_error(), "no error");
	return NULL;
}

/* With a deadline set by inm_dispatch still under way in the kernel, which only the other thread could end. */
TEST(test_one_that_has_ended_can_be_freed_on_any_thread)
{
	pthread_t thread;
	struct scene s;
	struct pump p;
	int r;

	make_a_thread();
	scene_begin(&s, &(struct honest_opts){ 0 });
	land_new(&s.e, &(struct land_opts){ 0 });
	ck_assert_int_eq(land_listen_fd(&s.e, pump_open(&p, &s.wire)), 0);
	while ((r = inm_dispatch(s.e.inm)) == 1)
		pump_step(&p);
	ck_assert_int_eq(r, 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, free_the_ended, s.e.inm), 0);
	ck_assert_int_eq(pthread_join(thread, NULL), 0);
	s.e.inm = NULL;
	pump_close(&p);
	scene_end(&s);
}

/* Listening, never run: the thread that frees it may run it. */
TEST(test_one_that_nobody_has_run_can_be_freed_on_any_thread)
{
	pthread_t thread;
	struct scene s;

	make_a_thread();
	scene_begin(&s, NULL);
	land_new(&s.e, &(struct land_opts){ 0 });
	ck_assert_int_eq(inm_listen(s.e.inm, "tcp:127.0.0.1:0"), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, free_the_ended, s.e.inm), 0);
	ck_assert_int_eq(pthread_join(thread, NULL), 0);
	s.e.inm = NULL;
	scene_end(&s);
}

/* ---- the descriptor ------------------------------------------------------------------------------------------ */

TEST_CASE("descriptor", 4);

TEST(test_an_embedder_that_closes_the_reactor_s_descriptor_is_told)
{
	struct sinner me;
	int fd;

	sinner_begin(&me, PLACES, NULL);
	sinner_listen(&me);
	ck_assert_int_eq(inm_dispatch(me.s.e.inm), 1);
	fd = inm_fd(me.s.e.inm);
	ck_assert_int_eq(close(fd), 0);
	ck_assert_int_eq(inm_dispatch(me.s.e.inm), -EBADF);
	ck_assert_msg(strstr(inm_error(me.s.e.inm), "EBADF"), "%s", inm_error(me.s.e.inm));
	ck_assert_int_lt(inm_fd(me.s.e.inm), 0);
	/* It is not needed for inm_run. */
	while (pump_step(&me.p))
		;
	ck_assert_int_eq(inm_run_until(me.s.e.inm, deadline_after_ns(50 * NS_PER_MS)), -ETIMEDOUT);
	sinner_end(&me);
}
