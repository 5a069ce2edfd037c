/* Cancel and free at any moment: everything is released, and the source keeps its guest. */
#include "tests/support/check_main.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/support/scene.h"

static const struct honest_opts stream = { .return_path = true, .rounds = 3 };

/* Landed and told so, or cancelled and not told so: nothing between. */
static void check_agreement(struct scene *s, const struct source_report *report)
{
	unsigned shuts = source_reply_count(report, WIRE_RP_SHUT);
	uint32_t status = shuts ? source_reply_value(report, WIRE_RP_SHUT, 0) : 1;
	enum inm_state last = s->e.state_count ? s->e.states[s->e.state_count - 1] : INM_STATE_NONE;

	ck_assert_uint_le(shuts, 1);
	if (s->e.result == 0) {
		ck_assert_uint_eq(status, 0);
		ck_assert_int_eq(last, INM_STATE_COMPLETED);
		ck_assert_uint_eq(s->e.start_calls, 1);
		return;
	}
	ck_assert_msg(s->e.result == -ECANCELED, "%d: %s", s->e.result, s->e.error);
	ck_assert_uint_ne(status, 0);
	ck_assert_int_eq(last, INM_STATE_CANCELLED);
	ck_assert_int_eq(s->e.stats.state, INM_STATE_CANCELLED);
	ck_assert_str_eq(s->e.error, "incoming: cancelled (ECANCELED)");
}

/* ---- between two dispatch calls ---------------------------------------------------------------------------- */

/* Return: whether the migration was over before the cancel. */
static bool cancel_after(unsigned dispatches, size_t chunk_bytes, bool return_path)
{
	struct honest_opts opts = stream;
	unsigned took;
	struct scene s;
	struct pump p;
	int fd;

	opts.return_path = return_path;
	scene_begin(&s, &opts);
	fd = pump_open(&p, &s.wire);
	p.chunk_bytes = chunk_bytes;
	land_pump(&s.e, &p, fd, &(struct land_opts){ .return_path = return_path }, dispatches, &took);
	if (return_path)
		check_agreement(&s, &p.report);
	ck_assert_msg(s.e.result == 0 || s.e.result == -ECANCELED, "%d: %s", s.e.result, s.e.error);
	if (s.e.result)
		ck_assert_msg(took <= dispatches + 3, "cancelled after %u dispatches, ended after %u", dispatches,
		              took);
	scene_end(&s);
	return took < dispatches;
}

TEST_CASE("dispatch", 300);

TEST(test_cancel_after_any_dispatch_gives_everything_back)
{
	unsigned k = 0;

	while (!cancel_after(k, 1021, true)) /* small pieces make many moments */
		k++;
	ck_assert_uint_gt(k, 20);
}

TEST(test_cancel_after_any_dispatch_of_a_fast_stream_gives_everything_back)
{
	unsigned k = 0;

	while (!cancel_after(k, 0, k % 2))
		k++;
	ck_assert_uint_gt(k, 1);
}

TEST(test_free_after_any_dispatch_gives_everything_back)
{
	bool over = false;

	for (unsigned k = 0; !over; k++) {
		struct scene s;
		struct pump p;
		int fd;

		scene_begin(&s, &stream);
		fd = pump_open(&p, &s.wire);
		p.chunk_bytes = 2039;
		p.return_path = true;
		land_new(&s.e, &(struct land_opts){ .return_path = true });
		ck_assert_int_eq(land_listen_fd(&s.e, fd), 0);
		for (unsigned i = 0; i < k && !over; i++) {
			over = inm_dispatch(s.e.inm) != 1;
			pump_step(&p);
			usleep(50);
		}
		pump_close(&p);
		scene_end(&s); /* frees it, however far it came */
	}
}

TEST(test_free_before_listen_gives_everything_back)
{
	struct scene s;

	scene_begin(&s, &stream);
	land_new(&s.e, &(struct land_opts){ 0 });
	scene_end(&s);
	inm_free(NULL);
}

TEST(test_free_while_listening_gives_everything_back)
{
	struct scene s;

	scene_begin(&s, &stream);
	land_new(&s.e, &(struct land_opts){ 0 });
	ck_assert_int_eq(inm_listen(s.e.inm, "tcp:127.0.0.1:0"), 0);
	ck_assert_int_eq(inm_dispatch(s.e.inm), 1);
	scene_end(&s);
}

TEST(test_cancel_while_listening_gives_everything_back)
{
	struct scene s;

	scene_begin(&s, &stream);
	land_new(&s.e, &(struct land_opts){ 0 });
	ck_assert_int_eq(inm_listen(s.e.inm, "tcp:127.0.0.1:0"), 0);
	ck_assert_int_eq(inm_run_until(s.e.inm, deadline_after_ns(10 * NS_PER_MS)), -ETIMEDOUT);
	inm_cancel(s.e.inm);
	inm_cancel(s.e.inm);
	ck_assert_int_eq(inm_run(s.e.inm), -ECANCELED);
	ck_assert_int_eq(inm_get_state(s.e.inm), INM_STATE_CANCELLED);
	scene_end(&s);
}

TEST(test_cancel_after_landing_changes_nothing)
{
	struct scene s;
	struct pump p;
	int fd;

	scene_begin(&s, &(struct honest_opts){ 0 });
	fd = pump_open(&p, &s.wire);
	land_new(&s.e, &(struct land_opts){ 0 });
	ck_assert_int_eq(land_listen_fd(&s.e, fd), 0);
	while (inm_dispatch(s.e.inm) == 1)
		pump_step(&p);
	ck_assert_int_eq(inm_get_state(s.e.inm), INM_STATE_COMPLETED);
	inm_cancel(s.e.inm);
	ck_assert_int_eq(inm_run(s.e.inm), 0);
	ck_assert_int_eq(inm_get_state(s.e.inm), INM_STATE_COMPLETED);
	s.e.result = 0;
	scene_check_landed(&s);
	pump_close(&p);
	scene_end(&s);
}

/* ---- from callbacks ---------------------------------------------------------------------------------------- */

static const struct {
	size_t nth;       /* of struct embedder: the number of the call in which it cancels */
	unsigned calls;   /* there are */
	bool always_ends; /* it is early enough: nothing lands */
} places[] = {
	{ offsetof(struct embedder, cancel_in_ram_block), 2, true },
	{ offsetof(struct embedder, cancel_in_device), 6, true },
	{ offsetof(struct embedder, cancel_in_start), 1, false },
	{ offsetof(struct embedder, cancel_in_state), 3, false }, /* setup, active, completed */
};

TEST_CASE("callbacks", 60);

TEST_ROWS(test_cancel_from_any_callback_is_heard_or_too_late, places)
{
	for (unsigned i = 1; i <= places[_i].calls; i++) {
		struct scene s;

		scene_begin(&s, &stream);
		*(unsigned *)((char *)&s.e + places[_i].nth) = i;
		scene_land(&s, &(struct land_opts){ .return_path = true });
		if (places[_i].always_ends) {
			ck_assert_int_eq(s.e.result, -ECANCELED);
			ck_assert_uint_eq(s.e.start_calls, 0);
		}
		check_agreement(&s, &s.report);
		scene_end(&s);
	}
}

/* ---- from elsewhere ---------------------------------------------------------------------------------------- */

struct canceller {
	struct inm *inm;
	unsigned after_us;
};

static void *cancel_thread(void *opaque)
{
	struct canceller *c = opaque;

	usleep(c->after_us);
	if (c->inm)
		inm_cancel(c->inm);
	return NULL;
}

/* The C library keeps the stack of a thread that has ended: let it have one before the census. */
static void warm_up(void)
{
	struct canceller nothing = { NULL, 0 };
	pthread_t thread;

	ck_assert_int_eq(pthread_create(&thread, NULL, cancel_thread, &nothing), 0);
	ck_assert_int_eq(pthread_join(thread, NULL), 0);
}

TEST_CASE("elsewhere", 60);

TEST(test_cancel_from_another_thread_is_heard_at_any_time)
{
	warm_up();
	for (unsigned i = 0; i < 40; i++) {
		struct canceller c = { .after_us = i * 131 };
		struct pump p;
		struct scene s;
		pthread_t thread;

		scene_begin(&s, &stream);
		land_new(&s.e, &(struct land_opts){ .return_path = true });
		ck_assert_int_eq(land_listen_fd(&s.e, pump_open(&p, &s.wire)), 0);
		p.stop_at = s.wire.len - 1; /* it cannot land */
		p.end = PUMP_HOLD;
		while (pump_step(&p))
			;
		c.inm = s.e.inm;
		ck_assert_int_eq(pthread_create(&thread, NULL, cancel_thread, &c), 0);
		ck_assert_int_eq(inm_run(s.e.inm), -ECANCELED);
		ck_assert_int_eq(pthread_join(thread, NULL), 0);
		ck_assert_int_eq(inm_get_state(s.e.inm), INM_STATE_CANCELLED);
		pump_close(&p);
		scene_end(&s);
	}
}

static struct inm *volatile to_cancel;

static void on_alarm(int sig)
{
	(void)sig;
	inm_cancel(to_cancel);
}

TEST(test_cancel_from_a_signal_handler_is_heard)
{
	const struct itimerval soon = { .it_value = { .tv_usec = 20000 } };
	struct sigaction act = { .sa_handler = on_alarm }, old;
	struct pump p;
	struct scene s;

	scene_begin(&s, &stream);
	land_new(&s.e, &(struct land_opts){ .return_path = true });
	ck_assert_int_eq(land_listen_fd(&s.e, pump_open(&p, &s.wire)), 0);
	to_cancel = s.e.inm;
	ck_assert_int_eq(sigaction(SIGALRM, &act, &old), 0);
	ck_assert_int_eq(setitimer(ITIMER_REAL, &soon, NULL), 0);
	ck_assert_int_eq(inm_run(s.e.inm), -ECANCELED);
	sigaction(SIGALRM, &old, NULL);
	pump_close(&p);
	scene_end(&s);
}
